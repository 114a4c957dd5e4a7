"""Counts what happened: into the worker's statistics, and into the metrics backends.

Everything is counted after the broker has carried it out, so that the sums are what was done.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

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
        if lost:
            self.lost += len(lost)
            refused = {delivery.envelope.id for delivery in lost}
            batch = [each for each in batch if each.delivery.envelope.id not in refused]
        endings = Counter([outcome.ending for outcome in batch])
        self.endings.update(endings)
        self.orphans += endings[Ending.RECOVERED]
        processed = len([outcome for outcome in batch if outcome.seconds is not None])
        self.processed += processed
        if self.metrics:
            for queue, count in Counter(each.envelope.queue for each in lost).items():
                self.metrics.increment(names.LOST_SETTLES, count, self._tags_of(queue, ""))
            # A batch of one function costs each backend a few calls, however many jobs are in it.
            for alike, outcomes in _grouped(batch).items():
                self._tell(*alike, outcomes)
            self.metrics.counted(processed)

    def _tell(
        self, ending: Ending, queue: str, function: str, reason: str, outcomes: Sequence[Outcome]
    ) -> None:
        """Tell the backends of *outcomes*, which ended alike."""
        metrics, tags = self.metrics, self._tags_of(queue, function)
        counter = _COUNTERS.get(ending)
        if counter is not None:
            dead = ending is Ending.DEAD and reason
            told = self._tags_of(queue, function, "reason", reason) if dead else tags
            metrics.increment(counter, len(outcomes), told)
        if reason == BLAMED:
            metrics.increment(names.CRASHED, len(outcomes), self._tags_of(queue, ""))
        ran = [one for one in outcomes if one.seconds is not None]
        if not ran:
            return
        metrics.increment(names.PROCESSED, len(ran), tags)
        metrics.timings(names.EXECUTION_TIME, [one.seconds or 0.0 for one in ran], tags)
        failed = sum(one.error is not None for one in ran)
        if failed:
            metrics.increment(names.FAILED, failed, tags)
        waits: dict[str, list[float]] = {}
        for one in ran:
            if one.job is not None and (latency := one.latency) is not None:
                waits.setdefault(origin_of(one.job), []).append(latency)
        for origin, latencies in waits.items():
            metrics.timings(
                names.LATENCY, latencies, self._tags_of(queue, function, "origin", origin)
            )

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


_Alike: TypeAlias = tuple[Ending, str, str, str]
"""How outcomes ended, their queue, function and reason."""


def _grouped(batch: Sequence[Outcome]) -> dict[_Alike, list[Outcome]]:
    """Return the outcomes of *batch* that are counted alike together."""
    groups: dict[_Alike, list[Outcome]] = {}
    for outcome in batch:
        job, why = outcome.job, outcome.reason and _reason_of(outcome)
        if job is None:
            key = (outcome.ending, outcome.delivery.envelope.queue, "", why)
        else:
            key = (outcome.ending, job.queue, job.fn, why)
        try:
            groups[key].append(outcome)
        except KeyError:
            groups[key] = [outcome]
    return groups


def _reason_of(outcome: Outcome) -> str:
    """Return what tells outcomes apart that ended alike: words of ours, never somebody's text."""
    if outcome.ending is Ending.DEAD:
        return outcome.reason.partition(":")[0]
    return BLAMED if outcome.reason == BLAMED else ""


def origin_of(job: Job[Any]) -> str:
    """Return what a job's wait was for: ``ready``, ``scheduled``, ``cron`` or ``retried``."""
    if job.attempt or job.crashes or job.suspicions:
        return "retried"
    # What travelled may be any text, and each would be a series.
    return job.origin if job.origin in _ORIGINS else "ready"
