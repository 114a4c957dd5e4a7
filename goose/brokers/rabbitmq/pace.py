"""How far ahead a lane should be of those who take its jobs.

What was acked makes room for as many jobs more, which the server pushes when it hears of it; until
they are here, a lane that has pushed no more than is asked for has nothing to give. So it is
filled with what is taken in `AHEAD` seconds: for tiny jobs that is hundreds, for jobs that take
a second it is none, and those are left to others.
"""

from __future__ import annotations

AHEAD = 0.05
"""Seconds: several times what an ack and the next push take."""
SPAN = 0.1
"""Seconds over which the pace is measured."""
MOST = 1000
"""Jobs; beyond it more are of no use."""


class Pace:
    """Counts what one lane hands on. Guarded by the intake's condition."""

    def __init__(self) -> None:
        self._taken = 0
        self._since = 0.0

    def take(self) -> None:
        """Note that a job is handed on."""
        self._taken += 1

    def ahead(self, now: float) -> int:
        """Return how many jobs are taken in `AHEAD` seconds; 0 if that is not known at *now*."""
        elapsed = now - self._since
        if elapsed < SPAN:
            return 0
        taken, self._taken, self._since = self._taken, 0, now
        # Who comes after a long time says nothing of how fast it will be.
        return min(int(taken * AHEAD / elapsed), MOST) if elapsed < 2 * SPAN else 0
