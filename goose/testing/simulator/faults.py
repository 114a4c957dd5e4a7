"""What goes wrong in a call to the broker, by chance.

A fault comes before the call, when nothing has happened yet, or after it, when the broker
has done it and the caller does not know.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum
from typing import Protocol


class Fault(Enum):
    """What happens to the caller of a broker."""

    CRASH = "crash"
    """Its process ends."""
    ERROR = "error"
    """It is told that the broker cannot be reached."""
    PAUSE = "pause"
    """Its whole process stands still for longer than the ttl."""
    SLOW = "slow"
    """Its thread stands still for a while; the others of its process go on."""


class Chance(Protocol):
    """Decides about one call: what goes wrong, and whether before it (else after it)."""

    def __call__(self, verb: str, *, busy: bool) -> tuple[Fault, bool] | None:
        """Return the fault of this call, if there is one."""
        ...


_RARE = {
    "open": 24.0,
    "held": 4.0,
    "end": 3.0,
    "ack": 1.5,
    "release": 4.0,
    "requeue": 1.5,
    "bury": 3.0,
}
"""Calls that are made seldom, and how much more often something goes wrong in them."""
_OFTEN = [Fault.CRASH] * 2 + [Fault.ERROR] * 3 + [Fault.PAUSE] + [Fault.SLOW] * 3


def by_chance(random: random.Random, rate: float, calm: Callable[[], bool]) -> Chance:
    """Return what strikes every call of a busy process with chance *rate*, others less often."""

    def draw(verb: str, *, busy: bool) -> tuple[Fault, bool] | None:
        # One draw for most calls: they are many.
        if random.random() >= (rate if busy else rate / 8) * _RARE.get(verb, 1.0) or calm():
            return None
        return random.choice(_OFTEN), random.random() < 0.4

    return draw


def once(number: int, before: bool) -> Chance:
    """Return what makes the *number*-th call, counted from 0, a crash."""
    calls = 0

    def count(verb: str, *, busy: bool) -> tuple[Fault, bool] | None:
        nonlocal calls
        calls += 1
        return (Fault.CRASH, before) if calls == number + 1 else None

    return count
