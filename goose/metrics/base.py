"""The contract between Goose and whatever counts for you, and the names it counts by.

A backend is any object with the three methods of `Metrics`. Goose calls them from worker
threads, never while a job's own code runs, and survives whatever they raise: a broken
backend is logged once and costs jobs nothing (see `goose.metrics.fanout`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

Tags = Mapping[str, str]


@runtime_checkable
class Metrics(Protocol):
    """Receives numbers. Thread-safe; must not block; units are in the names below."""

    def increment(self, name: str, value: int, tags: Tags) -> None:
        """Count *value* more of *name*."""
        ...

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        """Say that *name* is *value* now."""
        ...

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        """Record one duration of *seconds* under *name*."""
        ...


# Counters, tagged with queue and function unless said otherwise.
PROCESSED = "jobs.processed"
"""Executions that ended, however they ended."""
SUCCEEDED = "jobs.succeeded"
FAILED = "jobs.failed"
"""Executions that ended in an error, a timeout included."""
RETRIED = "jobs.retried"
DEAD = "jobs.dead"
"""Also tagged with the reason."""
POSTPONED = "jobs.postponed"
SKIPPED = "jobs.skipped"
RECOVERED = "jobs.recovered"
"""Orphans taken over from dead sessions; tagged with queue only."""
CRASHED = "jobs.crashed"
"""Executions blamed for the death of their process; tagged with queue only."""
UNDECODABLE = "jobs.undecodable"
"""Bodies buried because they are not jobs; tagged with queue only."""
DEFERRED = "jobs.deferred"
"""Jobs left for a worker with newer code; tagged with queue and function."""
LOST_SETTLES = "jobs.lost_settles"
"""Settles refused because the delivery was no longer ours; tagged with queue only."""
STRAYS = "jobs.strays"
"""Loans found by the audit whose session never existed; must stay 0; tagged with queue only."""
SESSIONS_LOST = "sessions.lost"
"""Times a worker found itself declared dead; no tags."""

# Timings, in seconds, tagged with queue and function.
EXECUTION_TIME = "job.execution_time"
LATENCY = "job.latency"
"""From the moment a job was ready to its start."""

# Gauges.
QUEUE_SIZE = "queue.size"
"""Jobs, tagged with queue and state."""
QUEUE_OLDEST = "queue.oldest"
"""Seconds the longest waiting ready job has waited, tagged with queue."""
