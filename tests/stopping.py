"""Stops a call at every step of chosen code, one after the other, as a timeout or a signal handler may."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any


class Stopped(BaseException):
    """What is raised in the midst of the call."""


def stop_everywhere(call: Callable[[], object], *modules: ModuleType) -> int:
    """Have *call* stopped at each entry, line and return of *modules* that it passes, a step further each time.

    After each it is made once without being stopped, as others go on.

    Returns:
        At how many steps it was, before it came through.
    """
    files = {module.__file__ for module in modules}
    stopped = 0
    while _stopped_at(call, stopped, files):
        stopped += 1
        call()
    return stopped


def _stopped_at(call: Callable[[], object], step: int, files: set[str | None]) -> bool:
    def stop() -> None:
        raise Stopped

    try:
        _run(call, step, stop, files)
    except Stopped:
        return True
    return False


def enter_at(
    step: int, call: Callable[[], object], other: Callable[[], object], *modules: ModuleType
) -> int:
    """Make *call*, and *other* at that step of it, on the same thread, as a signal handler may.

    Returns:
        How many steps of *modules* the call passed.
    """
    return _run(call, step, other, {module.__file__ for module in modules})


def _run(
    call: Callable[[], object], step: int, do: Callable[[], object], files: set[str | None]
) -> int:
    passed = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if frame.f_code.co_filename not in files:
            return None
        if event in ("call", "line", "return") and not _leaves_a_block(frame):
            passed += 1
            if passed == step + 1:
                do()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return passed


def _leaves_a_block(frame: FrameType) -> bool:
    # A block is left by a line event of its head, at which nothing is raised but by a tracer.
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
