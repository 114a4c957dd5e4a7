"""What the jobs do, the same for every Python library: leave a mark in shared memory.

A run has a folder (``$BENCH_FOLDER``) with two files of fixed size. ``done`` has one byte for
each job: 0, or the number of the worker that ran it, or 255 if it ran twice. ``times`` has two
doubles for each job, monotonic seconds: when it was sent or began, and when it began or ended.
A job knows only its place in them, so that it costs well under a microsecond itself.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import time
from pathlib import Path

NAP = 0.1
"""Seconds a `nap` takes."""
TWICE = 255
_SLOT = int(os.environ.get("BENCH_SLOT", "1"))
_PAIR = struct.Struct("dd")


def _open(name: str) -> mmap.mmap:
    with (Path(os.environ["BENCH_FOLDER"]) / name).open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


_done = _open("done")
_times = _open("times")


def noop(place: int) -> None:
    """Do nothing but leave the mark."""
    _done[place] = TWICE if _done[place] else _SLOT


def stamp(place: int) -> None:
    """Note when this began."""
    struct.pack_into("d", _times, place * _PAIR.size + 8, time.monotonic())
    noop(place)


def sent(place: int) -> None:
    """Note when the job at *place* is about to be sent."""
    struct.pack_into("d", _times, place * _PAIR.size, time.monotonic())


async def nap(place: int) -> None:
    """Wait as for a network, on an event loop."""
    began = time.monotonic()
    await asyncio.sleep(NAP)
    _PAIR.pack_into(_times, place * _PAIR.size, began, time.monotonic())
    noop(place)


def thread_nap(place: int) -> None:
    """Wait as for a network, on a thread, where a library has no event loop."""
    began = time.monotonic()
    time.sleep(NAP)
    _PAIR.pack_into(_times, place * _PAIR.size, began, time.monotonic())
    noop(place)
