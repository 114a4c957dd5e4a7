"""Time and chance as the worker's steps see them, so that a simulator can own both."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time, in seconds."""

    def mono(self) -> float:
        """Seconds since some start; never goes back. For durations and deadlines."""
        ...

    def wall(self) -> float:
        """Epoch seconds; may jump. Only for what is written down."""
        ...


class SystemClock:
    """The machine's own clocks."""

    mono = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
