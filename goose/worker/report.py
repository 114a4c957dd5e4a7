"""Counts what happened: into the worker's statistics, and into the metrics backends.

Everything is counted after the broker has carried it out, so that the sums are what was done.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from goose.brokers.base import Delivery
from goose.jobs import Job
from goose.metrics import base as names
from goose.metrics.base import Metrics
from goose.metrics.bounds import MAX_SERIES, OTHER
from goose.metrics.fanout import Fanout
from goose.worker.outcomes import BLAMED, Ending, Outcome
from goose.worker.recovery import Recovered

logger = logging.getLogger("goose.worker")

_COUNTERS = {
    Ending.DONE: names.SUCCEEDED,
    Ending.SKIPPED: names.SKIPPED,
    Ending.CANCELLED: names.CANCELLED,
    Ending.WAITING: names.WAITED,
    Ending.RETRIED: names.RETRIED,
    Ending.POSTPONED: names.POSTPONED,
    Ending.DEFERRED: names.DEFERRED,
    Ending.DEAD: names.DEAD,
    Ending.UNDECODABLE: names.UNDECODABLE,
    Ending.RECOVERED: names.RECOVERED,
}
_ORIGINS = ("scheduled", "cron")


class Report:
    """Counts. Thread-safe as its backends are; its own numbers are for one settling thread.

    Attributes:
        metrics: All backends as one, guarded: false if there are none.
        processed: Executions that ended.
        endings: Settled outcomes by how they ended.
        lost: Settles that were refused.
        orphans: Jobs recovered from dead sessions.
    """

    def __init__(self, metrics: Sequence[Metrics]) -> None:
        self.metrics = Fanout(metrics)
        self.processed = 0
        self.endings: Counter[Ending] = Counter()
        self.lost = 0
        self.orphans = 0
        self._tags: dict[tuple[str, str, str, str], dict[str, str]] = {}

    def settled(self, batch: Sequence[Outcome], lost: Sequence[Delivery]) -> None:
        """Count a settled batch; what was *lost* was not done by us."""
        counts: Counter[tuple[str, str, str, str]] = Counter()
        times: dict[tuple[str, str, str, str], list[float]] = {}
        if lost:
            self.lost += len(lost)
            counts.update((names.LOST_SETTLES, each.envelope.queue, "", "") for each in lost)
            refused = {delivery.envelope.id for delivery in lost}
            batch = [each for each in batch if each.delivery.envelope.id not in refused]
        endings = Counter([outcome.ending for outcome in batch])
        self.endings.update(endings)
        self.orphans += endings[Ending.RECOVERED]
        self.processed += len([outcome for outcome in batch if outcome.seconds is not None])
        if self.metrics:
            for outcome in batch:
                self._count(outcome, counts, times)
        # A batch of one function costs each backend a few calls, however many jobs are in it.
        for (name, queue, function, reason), count in counts.items():
            self.metrics.increment(name, count, self._tags_of(queue, function, "reason", reason))
        for (name, queue, function, origin), seconds in times.items():
            self.metrics.timings(name, seconds, self._tags_of(queue, function, "origin", origin))

    def _count(
        self,
        outcome: Outcome,
        counts: Counter[tuple[str, str, str, str]],
        times: dict[tuple[str, str, str, str], list[float]],
    ) -> None:
        job = outcome.job
        queue, function = (job.queue, job.fn) if job else (outcome.delivery.envelope.queue, "")
        counter = _COUNTERS.get(outcome.ending)
        if counter is not None:
            dead = outcome.ending is Ending.DEAD
            counts[counter, queue, function, outcome.reason.partition(":")[0] if dead else ""] += 1
        if outcome.reason == BLAMED:
            counts[names.CRASHED, outcome.delivery.envelope.queue, "", ""] += 1
        if outcome.seconds is not None:
            counts[names.PROCESSED, queue, function, ""] += 1
            times.setdefault((names.EXECUTION_TIME, queue, function, ""), []).append(
                outcome.seconds
            )
            if outcome.failed:
                counts[names.FAILED, queue, function, ""] += 1
        latency = outcome.latency
        if latency is not None and job is not None:
            times.setdefault((names.LATENCY, queue, function, origin_of(job)), []).append(latency)

    def recovered(
        self, orphans: Sequence[Delivery], recovered: Recovered, *, by_audit: bool
    ) -> None:
        """Count jobs taken over from dead sessions."""
        self.orphans += len(orphans)
        name = names.STRAYS if by_audit else names.RECOVERED
        for queue, count in Counter(orphan.envelope.queue for orphan in orphans).items():
            self.metrics.increment(name, count, {"queue": queue})
        for queue, count in Counter(job.queue for job in recovered.blamed).items():
            self.metrics.increment(names.CRASHED, count, {"queue": queue})

    def session_lost(self) -> None:
        """Count a session of our own that the broker gave up."""
        self.metrics.increment(names.SESSIONS_LOST, 1, {})

    def broker_failed(self, step: str) -> None:
        """Count a call of the engine's own that the broker failed."""
        self.metrics.increment(names.BROKER_ERRORS, 1, {"step": step})

    def broker_works_again(self, step: str) -> None:
        """Count the end of an outage, as one step saw it."""
        self.metrics.increment(names.BROKER_RECONNECTS, 1, {"step": step})

    def _tags_of(
        self, queue: str, function: str, more: str = "", value: str = ""
    ) -> dict[str, str]:
        key = (queue, function, more, value)
        tags = self._tags.get(key)
        if tags is None:
            # Names come from outside: neither this nor a backend may grow without bound.
            if len(self._tags) >= MAX_SERIES:
                function = function and OTHER
                key = (queue, function, more, value)
            tags = {"queue": queue}
            if function:
                tags["function"] = function
            if value:
                tags[more] = value
            tags = self._tags.setdefault(key, tags)
        return tags


def origin_of(job: Job[Any]) -> str:
    """Return what a job's wait was for: ``ready``, ``scheduled``, ``cron`` or ``retried``."""
    if job.attempt or job.crashes or job.suspicions:
        return "retried"
    # What travelled may be any text, and each would be a series.
    return job.origin if job.origin in _ORIGINS else "ready"
