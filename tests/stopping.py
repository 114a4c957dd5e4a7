"""Stops a call at every step of chosen code, one after the other, as a timeout or a signal handler may."""

from __future__ import annotations

import itertools
import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, ModuleType
from typing import Any


class Stopped(BaseException):
    """What is raised in the midst of the call."""


class Steps:
    """How far a call came.

    Attributes:
        passed: Steps of the chosen code.
    """

    def __init__(self) -> None:
        self.passed = 0


def stop() -> None:
    """Be an interrupt."""
    raise Stopped


@contextmanager
def at_step(step: int, do: Callable[[], object], *where: ModuleType | CodeType) -> Iterator[Steps]:
    """Have *do* called in the block, at that entry, line or return of the code of *where* that is passed.

    On the same thread, and once: as a signal handler may, or, with `stop`, as a timeout may.
    """
    files = {each.__file__ for each in where if isinstance(each, ModuleType)}
    steps = Steps()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in files and frame.f_code not in where:
            return None
        if event in ("call", "line", "return") and not _leaves_a_block(frame):
            steps.passed += 1
            if steps.passed == step + 1:
                do()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield steps
    finally:
        sys.settrace(before)


def stop_everywhere(call: Callable[[], object], *where: ModuleType | CodeType) -> int:
    """Have *call* stopped at each step of *where*, a step further each time.

    After each it is made once without being stopped, as others go on.

    Returns:
        At how many steps it was, before it came through.
    """
    for step in itertools.count():
        try:
            with at_step(step, stop, *where):
                call()
        except Stopped:
            call()
        else:
            return step
    raise AssertionError("it never came through")


def _leaves_a_block(frame: FrameType) -> bool:
    # A block is left by a line event of its head, at which nothing is raised but by a tracer.
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
