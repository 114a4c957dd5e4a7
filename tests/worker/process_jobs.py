"""Functions that the worker processes of `test_processes` run. Each notes its runs in a file."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from pathlib import Path

import goose


def note(text: str) -> None:
    """Append one line to the file the test reads; appends this short are atomic."""
    with Path(os.environ["RUNS"]).open("a") as file:
        file.write(f"{text} {os.getpid()}\n")


def quick(name: str) -> None:
    note(f"quick {name}")


def frozen() -> None:
    """Note whether the collector leaves alone what was there before the first job."""
    note(f"frozen {gc.get_freeze_count() > 1000}")


def wait(name: str, seconds: float) -> None:
    note(f"begin {name}")
    time.sleep(seconds)
    note(f"end {name}")


def until_released(name: str, gate: str) -> None:
    """Run until the file *gate* exists."""
    note(f"begin {name}")
    while not Path(gate).exists():
        time.sleep(0.01)
    note(f"end {name}")


def vanish() -> None:
    note("vanish")
    os._exit(0)


def segfault() -> None:
    note("segfault")
    ctypes.string_at(0)


def loop() -> None:
    """Never end, whatever is raised in here."""
    note("loop")
    while True:
        try:
            while True:
                pass
        except BaseException:  # noqa: BLE001
            note("loop swallowed")


def stubborn(name: str) -> None:
    """Outlive a stop, in C code that no exception reaches."""
    note(f"begin {name}")
    threading.Event().wait(60)


async def sleepy(name: str, seconds: float) -> None:
    import asyncio

    note(f"begin {name}")
    await asyncio.sleep(seconds)
    note(f"end {name}")


@goose.job(retry=goose.Retry(max_retries=0))
def fail() -> None:
    note("fail")
    raise ValueError("no")
