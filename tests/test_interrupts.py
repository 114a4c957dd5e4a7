"""Exceptions raised in other threads arrive, and leave nothing behind in the interpreter."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from goose._interrupts import lower, raise_in, take_back


class Stop(BaseException):
    """What is raised."""


class Running:
    """A thread that runs *body* until it ends, or is stopped."""

    def __init__(self, body: Callable[[], object]) -> None:
        self._body = body
        self._began = threading.Event()
        self.stopped = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self._began.wait(10)

    def _run(self) -> None:
        try:
            self._began.set()
            self._body()
        except Stop:
            self.stopped = True

    def interrupt(self) -> None:
        assert self.thread.ident is not None
        raise_in(self.thread.ident, Stop)


def spin() -> None:
    while True:
        pass


def test_a_thread_that_runs_is_interrupted_at_once() -> None:
    """Not missed, however often it is tried: the flag that is taken down is put up again."""
    for _ in range(100):
        running = Running(spin)
        running.interrupt()
        running.thread.join(10)
        assert running.stopped


def test_a_thread_that_waits_is_interrupted_when_it_comes_back() -> None:
    """Not before: code that is not in the interpreter cannot be interrupted."""
    door = threading.Lock()
    door.acquire()
    running = Running(lambda: [door.acquire(), spin()])
    running.interrupt()
    lower()
    assert not running.stopped
    door.release()
    running.thread.join(10)

    assert running.stopped


def test_what_is_taken_back_is_not_raised() -> None:
    """A thread that was late for its interruption goes on."""
    went_on = threading.Event()

    def body() -> None:
        take_back()
        went_on.set()

    running = Running(body)
    running.thread.join(10)

    assert went_on.is_set()
    assert not running.stopped


AFTER = """
import ctypes, sys, threading
from goose._interrupts import lower, raise_in, take_back
{before}
def function(): return 1
{instrument}
"""
INSTRUMENTS = {
    "profiler": "import cProfile\nprofile = cProfile.Profile()\nprofile.enable()\nfunction()",
    "tracer": "sys.settrace(lambda *_: None)\nfunction()",
    "tracer, before": "sys.settrace(lambda *_: None)\ntake_back()\nlower()\nfunction()",
}
BEFORE = {
    "taken back": "take_back()",
    "left up by another": (
        "raising = ctypes.pythonapi.PyThreadState_SetAsyncExc\n"
        "raising(ctypes.c_ulong(threading.get_ident()), None)\nlower()"
    ),
    "in C code": (
        "import time\nwaits = threading.Thread(target=time.sleep, args=(60,), daemon=True)\n"
        "waits.start()\nraise_in(waits.ident, KeyboardInterrupt)"
    ),
}


@pytest.mark.parametrize("instrument", INSTRUMENTS)
@pytest.mark.parametrize("before", BEFORE)
def test_a_profiler_or_debugger_works_afterwards(before: str, instrument: str) -> None:
    """Python 3.11 would begin the next function for ever while the flag is up."""
    code = AFTER.format(before=BEFORE[before], instrument=INSTRUMENTS[instrument])
    done = subprocess.run([sys.executable, "-c", code], timeout=30, check=False)

    assert 0 == done.returncode
