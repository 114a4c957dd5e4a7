"""The jobs the benchmarks run; the same functions for both sides."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from pathlib import Path

cpu_used: list[float] = []
"""Seconds of CPU of this process, all threads, at each call of `tick`."""
reached_end = threading.Event()


def noop() -> None:
    """Do nothing, so that what is measured is everything else."""


def mark(path: str, name: str) -> None:
    """Write down when this job ran, what its process used so far, and its peak memory."""
    line = {
        "name": name,
        "wall": time.monotonic(),
        "cpu": time.process_time(),
        "rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "parent_rss_kib": _resident_kib(os.getppid()),
    }
    with Path(path).open("a") as out:
        out.write(json.dumps(line) + "\n")


def stamp(path: str, sent: float) -> None:
    """Write down how many seconds after *sent* (monotonic) this job started."""
    took = time.monotonic() - sent
    with Path(path).open("a") as out:
        out.write(f"{took}\n")


def tick() -> None:
    """Note the CPU used so far, as the first and the last job of an embedded worker."""
    cpu_used.append(time.process_time())
    if len(cpu_used) == 2:
        reached_end.set()


def _resident_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line), 0)
