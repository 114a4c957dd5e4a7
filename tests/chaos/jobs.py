"""The functions that run in a fault campaign; each run leaves its mark before and after.

A third mark comes when the broker has said that the outcome was settled: whatever is done to
the process from then on is no reason for the job to run again. A mark is one line appended by
one ``write`` to a file of its process, so it is whole and survives the process. Instants are
monotonic: one clock for all processes of the machine.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from pathlib import Path

import goose

_files: dict[tuple[str, int], int] = {}


def _mark(what: str, name: str) -> None:
    """Note what happened to the job of that *name*; or, once it is settled, of that id."""
    folder = os.environ["CHAOS_MARKS"]
    key = (folder, os.getpid())
    fd = _files.get(key)
    if fd is None:
        path = Path(folder) / f"{os.getpid()}.marks"
        fd = _files[key] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    known = f" {goose.current().job.id}" if what == "start" else ""
    os.write(fd, f"{what} {name} {time.monotonic():.6f}{known}\n".encode())


class _Settled(logging.Handler):
    """Marks what the worker says of settled jobs."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.DEBUG:
            _mark("settled", str(vars(record)["job_id"]))


class _Again(logging.Handler):
    """Marks what a broker says it stored again because it was unsure of the first time."""

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "stored_again"):
            _mark("again", str(vars(record)["job_id"]))


if "CHAOS_MARKS" in os.environ:  # in a worker process, not where the jobs come from
    _log = logging.getLogger("goose.worker.settle")
    _log.setLevel(logging.DEBUG)
    _log.addHandler(_Settled())
    logging.getLogger("goose.brokers").addHandler(_Again())


def work(name: str, seconds: float) -> None:
    """Take *seconds*."""
    _mark("start", name)
    time.sleep(seconds)
    _mark("end", name)


def fail_once(name: str, marker: str) -> None:
    """Fail the first time, whoever runs it."""
    _mark("start", name)
    path = Path(os.environ["CHAOS_MARKS"]) / marker
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        _mark("end", name)
        return
    _mark("fail", name)
    raise RuntimeError("the first time")


def segfault(name: str) -> None:
    """End the process by reading address 0."""
    _mark("start", name)
    ctypes.string_at(0)


def leave(name: str) -> None:
    """End the process as if all was well."""
    _mark("start", name)
    os._exit(0)


def kill_itself(name: str) -> None:
    """End the process as the kernel does when memory is short."""
    _mark("start", name)
    os.kill(os.getpid(), signal.SIGKILL)


def exit_quietly(name: str) -> None:
    """Raise what ends a script."""
    _mark("start", name)
    sys.exit(0)


def interrupt(name: str) -> None:
    """Raise what Ctrl-C raises."""
    _mark("start", name)
    raise KeyboardInterrupt


def hold_interpreter(name: str, seconds: float) -> None:
    """Keep every other thread of the process from running for *seconds*, as C code may."""
    _mark("start", name)
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    _mark("end", name)


def probe(name: str) -> None:
    """Show that this worker works."""
    (Path(os.environ["CHAOS_MARKS"]) / f"{name}.probe").touch()


def long_work(name: str, seconds: float) -> None:
    """Take *seconds*, and show that it began."""
    probe(name)
    work(name, seconds)


def never_end(name: str) -> None:
    """Run for ever, whatever is raised inside."""
    _mark("start", name)
    while True:
        try:
            while True:
                time.sleep(0.001)
        except BaseException:  # noqa: BLE001 - a job that nothing inside its process can end
            _mark("ignored", name)


NODES = "nodes"
"""The file in which jobs of flows note their begin and end, all in one, in the order of time."""


def node(flow: int, name: int, values: list[int]) -> int:
    """Return the job's own number and what its parents returned, added up."""
    _note(f"start {flow} {name}")
    time.sleep(0.002 * (name % 7))
    _note(f"end {flow} {name}")
    return name + sum(values)


def _note(line: str) -> None:
    path = Path(os.environ["CHAOS_MARKS"]) / NODES
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)
