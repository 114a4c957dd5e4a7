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
    """Have *call* stopped at each line and return of *modules* that it passes, a step further each time.

    Returns:
        At how many steps it was, before it came through.
    """
    files = {module.__file__ for module in modules}
    stopped = 0
    while _stopped_at(call, stopped, files):
        stopped += 1
    return stopped


def _stopped_at(call: Callable[[], object], step: int, files: set[str | None]) -> bool:
    left = step

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        if event in ("line", "return") and not _leaves_a_block(frame):
            left -= 1
            if left < 0:
                raise Stopped
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Stopped:
        return True
    finally:
        sys.settrace(before)
    return False


def _leaves_a_block(frame: FrameType) -> bool:
    # A block is left by a line event of its head, as which nothing is raised but by a tracer.
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
