"""`BatchTrait`: what workers do for members, see `goose.features.traits.Trait`.

Members of a batch that is cancelled end as cancelled instead of starting. Whether it is, is asked
at most once a second for each batch. Members whose client was not sure that they were stored are
skipped if they have ended: then they are a copy.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from goose.errors import BrokerError
from goose.features import removals
from goose.features.batches import members
from goose.features.batches.book import SWEEP_SECONDS, Batches
from goose.features.batches.records import NAME, Progress, Record
from goose.features.flows import stops
from goose.features.traits import Admission, Ended, Finish, Tools
from goose.jobs import Job, seal
from goose.metrics.base import BATCH_COMPLETION_TIME, BATCH_MEMBERS, BATCH_STATUS

logger = logging.getLogger("goose.features")

KNOWN_SECONDS = 1.0
"""For which it is believed that a batch is not cancelled."""
KNOWN_BATCHES = 1000
_KINDS = {
    "done": members.DONE,
    "skipped": members.SKIPPED,
    "dead": members.DEAD,
    "cancelled": members.CANCELLED,
    "deleted": members.DELETED,
    "renewed": members.RENEWED,
}


class BatchTrait:
    """Counts members. Thread-safe.

    Args:
        tools: What it works with.
    """

    def __init__(self, tools: Tools) -> None:
        self._batches = batches_with(tools)
        self._mono = tools.mono
        self._running: dict[str, float] = {}

    def admit(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Admission]:
        """End members of cancelled batches, and copies of members that have ended."""
        found: dict[str, Admission] = {}
        by_batch: dict[str, list[tuple[Job[Any], int, bool]]] = defaultdict(list)
        for job in jobs:
            member = membership(job)
            if member is not None:
                by_batch[member[0]].append((job, *member[1:]))
        for id_, there in by_batch.items():
            if self._is_cancelled(id_):
                reason = "batch: it is cancelled"
                found.update({job.id: Finish("cancelled", reason) for job, _, _ in there})
                continue
            for job, number, again in there:
                if again and self._batches.kinds(id_, number, 1)[0] >= members.DELETED:
                    found[job.id] = Finish("skipped", "batch: it has ended before", told=True)
        return found

    def ended(self, endings: Sequence[Ended]) -> None:
        """Count them; the last one ends its batch."""
        self._report((end.job, _KINDS[end.ending]) for end in endings)

    def retried(self, jobs: Sequence[Job[Any]]) -> None:
        """Count them as to be run again."""
        self._report((job, members.RETRYING) for job in jobs)

    def _report(self, kinds: Iterable[tuple[Job[Any], int]]) -> None:
        by_batch: dict[str, dict[int, int]] = defaultdict(dict)
        for job, kind in kinds:
            member = membership(job)
            if member is not None:
                by_batch[member[0]][member[1]] = kind
        for id_, reports in by_batch.items():
            self._batches.report(id_, reports)

    def _is_cancelled(self, id_: str) -> bool:
        now = self._mono()
        if self._running.get(id_, 0.0) > now:
            return False
        record = self._batches.get(id_)
        if record is not None and record.cancelled_at is not None:
            return True
        if len(self._running) >= KNOWN_BATCHES:
            self._running.clear()
        self._running[id_] = now + KNOWN_SECONDS
        return False


def membership(job: Job[Any]) -> tuple[str, int, bool] | None:
    """Return the batch of *job*, its number in it, and whether it may be a copy; None if it is none."""
    match job.traits.get(NAME):
        case {"id": str(id_), "n": int(number), **rest} if number >= 0:
            return id_, number, bool(rest.get("again"))
        case _:
            return None


def batches_with(tools: Tools) -> Batches:
    """Return the batches of a worker's store, whose callbacks go to its broker."""

    def send(jobs: Sequence[Job[Any]]) -> None:
        if jobs:
            tools.broker.enqueue([seal(job) for job in jobs])

    def tell(before: Record, after: Record, progress: Progress) -> None:
        tags = {"status": str(after.status)}
        tools.metrics.increment(BATCH_STATUS, 1, tags)
        again = "" if before.status is None else f" (was {before.status})"
        logger.info("batch %s has ended: %s%s", after.label, after.status, again)
        if before.status is not None or after.ended_at is None:
            return
        tools.metrics.timing(BATCH_COMPLETION_TIME, after.ended_at - after.opened_at, tags)
        for ending in ("done", "skipped", "dead", "cancelled", "deleted"):
            count = getattr(progress, ending)
            if count:
                tools.metrics.increment(BATCH_MEMBERS, count, {"ending": ending})

    return Batches(tools.store(), send, tell)


class Sweeper:
    """Brings to its end what somebody died over. `step` is called by one thread.

    Args:
        tools: What it works with.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._batches = batches_with(tools)
        self._troubles = removals.Troubles()

    def step(self, _now: float) -> float:
        """See `removals`, `stops` and `Batches.sweep`; return the seconds until the next time.

        Raises:
            BrokerError: One of them failed; the others were done all the same.
        """
        failed: BrokerError | None = None
        parts: list[Callable[[], None]] = [
            partial(removals.finish, self._tools, self._troubles),
            partial(stops.finish, self._tools, self._troubles),
            self._batches.sweep,
        ]
        for part in parts:
            try:
                part()
            except BrokerError as error:
                failed = error
        if failed is not None:
            raise failed
        return SWEEP_SECONDS
