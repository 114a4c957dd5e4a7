"""Decides whether a child process deserves a heartbeat.

The supervisor sends the heartbeats of its children, so that a job that holds Python's lock
for minutes does not cost its process the session. In exchange it must not vouch for a
process that only exists. A child lives when its engine ticked lately. Without a tick it is
still believed for as long as its CPU time rises (C code that holds the lock), up to a
limit, and unless it is stopped by a signal. Otherwise it is silent: no beat goes out, and
before the session could lapse, `Sign.LOST` asks for its end, so that its jobs are taken
over from a process that is certainly dead and not from one that may wake up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum


class Sign(Enum):
    """What a look at a child said."""

    LIVES = "lives"
    SILENT = "silent"
    LOST = "lost"


@dataclass(slots=True)
class Pulse:
    """One child's signs of life over time. Instants are monotonic, in seconds.

    Look at least every ``ttl / 6`` seconds.
    """

    ttl: float
    """Seconds after the last heartbeat at which the session would lapse."""
    stall_limit: float
    """Seconds that rising CPU time is believed without a tick."""
    _fresh_at: float = -math.inf
    _silent_since: float = math.inf
    _looked_at: float = math.inf
    _cpu: float = 0.0

    def look(self, now: float, *, tick: float, cpu: float | None, stopped: bool) -> Sign:
        """Return what these observations, made at *now*, say.

        Args:
            now: The instant.
            tick: When the child's engine was last alive.
            cpu: CPU seconds the child has used so far; None where that cannot be known.
            stopped: Whether a signal has stopped the process.
        """
        # Whoever stopped the supervisor most likely stopped the child too: silence counts from
        # when somebody listens again.
        blind = now - self._looked_at > self.ttl / 3
        fresh = now - tick <= self.ttl / 3
        working = cpu is None or cpu > self._cpu
        self._looked_at = now
        self._cpu = self._cpu if cpu is None else cpu
        if fresh:
            self._fresh_at = now
        stalled = now - max(self._fresh_at, tick) > self.stall_limit
        if not stopped and (fresh or (working and not stalled)):
            self._silent_since = math.inf
            return Sign.LIVES
        self._silent_since = now if blind else min(self._silent_since, now)
        return Sign.LOST if now - self._silent_since >= self.ttl / 2 else Sign.SILENT
