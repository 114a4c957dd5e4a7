"""Delays without a plugin and without anybody's memory: a ladder of queues with fixed times to live.

A delay is rounded up to tenths of a second and written in base 8: eight digits, for 19 days.
Each digit that is not 0 is a queue in which everything lives equally long, that digit times
its power of 8. A job waits in the queue of its highest digit; when its time there is over, the
server hands it down to the next, and the lowest hands it to the queue of ready jobs. As all in
one queue live equally long, the first one is always the first to go, which is what servers can
do well. Handing on is *at least once*: a step keeps its copy until the next has confirmed.

The way is in the routing key: the eight digits and the queue. The exchange of each level looks
at its own digit: 0 goes to the exchange below, another into its queue. Queues are made when a
delay needs them; an application that never delays for a week has none for weeks.

What is delayed for longer than the ladder is high waits its whole length and then goes to the
parked jobs, with what is left of its delay in a header; whoever looks after those sends it up
again. Source: docs/adr/0009-delays-on-rabbitmq.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

TICK = 0.1
"""Seconds: the lowest step."""
BASE = 8
LEVELS = 8
LONGEST = BASE**LEVELS - 1
"""Ticks that the ladder is high, 19.4 days."""
SLACK = 0.001 * LEVELS
"""Seconds added, because a server counts whole milliseconds at each step."""
PARKED = "/parked"
"""In the place of a queue in a routing key: the parked jobs."""


@dataclass(frozen=True, slots=True)
class Climb:
    """The way of one delay up the ladder."""

    ticks: int
    """On this climb; at least 1."""
    left: float
    """Seconds to wait after it, on another; 0 if none."""

    @property
    def top(self) -> int:
        """The level where it enters."""
        return (self.ticks.bit_length() - 1) // 3

    def steps(self) -> Iterator[tuple[int, int]]:
        """Yield level and digit of each queue on its way, the highest first."""
        for level in range(self.top, -1, -1):
            digit = (self.ticks >> 3 * level) % BASE
            if digit:
                yield level, digit

    def key(self, queue: str) -> str:
        """Return the routing key to the queue's ready jobs, or to the parked ones if time is left."""
        digits = ".".join(f"{self.ticks:0{LEVELS}o}")
        return f"{digits}.{PARKED if self.left else queue}"


def climb(seconds: float) -> Climb:
    """Return the way of a delay of *seconds*, above 0."""
    ticks = max(1, math.ceil((seconds + SLACK) / TICK))
    if ticks <= LONGEST:
        return Climb(ticks, 0.0)
    return Climb(LONGEST, seconds - LONGEST * TICK)


def milliseconds(level: int, digit: int) -> int:
    """Return how long a job waits in that queue."""
    return int(digit * BASE**level * TICK * 1000 + 0.5)


def binding(level: int, digit: int) -> str:
    """Return the pattern by which that level's exchange knows keys of that digit."""
    return "*." * (LEVELS - 1 - level) + f"{digit}.#"


def arrival(queue: str) -> str:
    """Return the pattern of keys that lead to *queue* in the end."""
    return "*." * LEVELS + queue
