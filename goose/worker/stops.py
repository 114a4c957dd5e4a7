"""The orders that hold in one process: queues that are paused, jobs that are to end.

They are laid over what was fetched (`Fetcher`), what is held and what runs (`Engine.sift`). Where
there are none, as nearly always, that costs a fetch one look at two empty collections.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from goose._words import several
from goose.brokers.base import Delivery
from goose.jobs import Job
from goose.worker.outcomes import Ending, Outcome, Verb, fields
from goose.worker.work import Work

logger = logging.getLogger("goose.worker")

TOLD = 20
"""Jobs at most that are named when they are interrupted."""


class Stops:
    """What holds now. Both parts are replaced whole, by one thread; any other may read them."""

    def __init__(self) -> None:
        self.paused: frozenset[str] = frozenset()
        """Queues nothing is started from."""
        self.marked: Mapping[str, float | None] = {}
        """Jobs to end, by id, with the instant they were enqueued; None is any."""
        self.over: set[str] = set()
        """Those of them that have ended here, so that their marks can go."""

    def __bool__(self) -> bool:
        return bool(self.paused or self.marked)

    def ends(self, job: Job[Any]) -> bool:
        """Say whether *job* is to end."""
        if job.id not in self.marked:
            return False
        enqueued_at = self.marked[job.id]
        return enqueued_at is None or enqueued_at == job.enqueued_at

    def settled(self, batch: Sequence[Outcome], lost: Sequence[Delivery]) -> None:
        """Note which marked jobs are over, now that *batch* is settled but for what is *lost*."""
        refused = {delivery.envelope.id for delivery in lost}
        self.over.update(
            outcome.job.id
            for outcome in batch
            if outcome.verb in (Verb.ACK, Verb.BURY)
            and outcome.job is not None
            and outcome.job.id not in refused
            and self.ends(outcome.job)
        )

    def holds_up(self, work: Work) -> bool:
        """Say whether *work* must not start here now."""
        return work.delivery.envelope.queue in self.paused or self.ends(work.job)

    def outcome(self, work: Work) -> Outcome:
        """Return what becomes of *work*, which is held up."""
        if self.ends(work.job):
            return cancelled(work)
        return given_back(work)

    def sift(self, works: Sequence[Work]) -> tuple[list[Work], list[Outcome]]:
        """Return those of *works* that may start, and what becomes of the others."""
        kept = [work for work in works if not self.holds_up(work)]
        return kept, [self.outcome(work) for work in works if self.holds_up(work)]


def given_back(work: Work) -> Outcome:
    """Return the outcome of a job that was held and not started: others may have it at once."""
    return Outcome(Ending.RELEASED, Verb.RELEASE, work.delivery, None, work.job)


def cancelled(work: Work, seconds: float | None = None, ended_at: float | None = None) -> Outcome:
    """Return the outcome of a job that was cancelled, after it ran for *seconds* or before."""
    job = work.job
    when = "before it was started" if seconds is None else f"after {seconds:.1f} s"
    logger.info("job %s of %s is cancelled, %s", job.id, job.fn, when, extra=fields(job))
    return Outcome(
        Ending.CANCELLED,
        Verb.ACK,
        work.delivery,
        None,
        job,
        None,
        "cancelled",
        0.0,
        seconds,
        ended_at,
    )


def interrupt(running: Sequence[Work]) -> None:
    """Mark *running*, which outlived the grace of a shutdown, to be given back, and tell of each."""
    for work in running:
        work.interrupted = True
    for work in running[:TOLD]:
        logger.warning(
            "job %s of %s outlived the grace: it is interrupted and given back, and runs again",
            work.job.id,
            work.job.fn,
            extra=fields(work.job),
        )
    if len(running) > TOLD:
        logger.warning("%s more outlived the grace", several(len(running) - TOLD))
