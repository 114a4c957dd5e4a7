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
from goose.metrics.fanout import Fanout
from goose.worker.outcomes import BLAMED, Ending, Outcome
from goose.worker.recovery import Recovered

logger = logging.getLogger("goose.worker")

_COUNTERS = {
    Ending.DONE: names.SUCCEEDED,
    Ending.SKIPPED: names.SKIPPED,
    Ending.RETRIED: names.RETRIED,
    Ending.POSTPONED: names.POSTPONED,
    Ending.DEFERRED: names.DEFERRED,
    Ending.DEAD: names.DEAD,
    Ending.UNDECODABLE: names.UNDECODABLE,
    Ending.RECOVERED: names.RECOVERED,
}


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
        self._tags: dict[tuple[str, str], dict[str, str]] = {}

    def settled(self, batch: Sequence[Outcome], lost: Sequence[Delivery]) -> None:
        """Count a settled batch; what was *lost* was not done by us."""
        refused = {delivery.envelope.id for delivery in lost}
        for outcome in batch:
            if refused and outcome.delivery.envelope.id in refused:
                self.lost += 1
                queue = {"queue": outcome.delivery.envelope.queue}
                self.metrics.increment(names.LOST_SETTLES, 1, queue)
                continue
            self.endings[outcome.ending] += 1
            if outcome.ending is Ending.RECOVERED:
                self.orphans += 1
            if outcome.seconds is not None:
                self.processed += 1
            if self.metrics:
                self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        metrics, job = self.metrics, outcome.job
        tags = self._tags_of(job) if job else {"queue": outcome.delivery.envelope.queue}
        counter = _COUNTERS.get(outcome.ending)
        if counter is not None:
            extra = (
                {"reason": outcome.reason.partition(":")[0]}
                if outcome.ending is Ending.DEAD
                else {}
            )
            metrics.increment(counter, 1, {**tags, **extra} if extra else tags)
        if outcome.reason == BLAMED:
            metrics.increment(names.CRASHED, 1, {"queue": outcome.delivery.envelope.queue})
        if outcome.seconds is not None:
            metrics.increment(names.PROCESSED, 1, tags)
            metrics.timing(names.EXECUTION_TIME, outcome.seconds, tags)
            if outcome.failed:
                metrics.increment(names.FAILED, 1, tags)
        if outcome.latency is not None:
            metrics.timing(names.LATENCY, outcome.latency, tags)

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

    def _tags_of(self, job: Job[Any]) -> dict[str, str]:
        key = (job.queue, job.fn)
        tags = self._tags.get(key)
        if tags is None:
            if len(self._tags) > 10_000:  # names come from outside; never keep them without bound
                self._tags.clear()
            tags = self._tags[key] = {"queue": job.queue, "function": job.fn}
        return tags
