"""Jobs that run once: what Goose itself enqueues in answer to something that happened once.

A callback of a batch or the next job of a flow has an id made from what it answers, and bears
the trait ``once``. Whoever enqueues it may do so twice: to be sure, after a crash or a lost reply.
While the first copy is stored most brokers refuse the second by its id; later, and on a broker
that cannot, this does: the end of the job is recorded before its ack, and a copy that comes after
is skipped. So it is never stuck, and runs twice only if a fault hits exactly between its end and
the record, or two copies were lent at the same time.

A job that died is not recorded: it can be replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from goose.features.traits import Admission, Ended, Finish, Tools
from goose.jobs import Job
from goose.stores.base import Delete, Get, Operation, Put, part

NAME = "once"
REMEMBERED = 7 * 86_400.0
"""Seconds for which an end is known: far longer than anybody goes on enqueueing a copy."""


def once(job: Job[Any]) -> Job[Any]:
    """Return *job*, whose id says what it answers, as one that runs once."""
    return job.evolve(traits={**job.traits, NAME: True})


class Once:
    """See `goose.features.traits.Trait`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def admit(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Admission]:
        """Skip those that have been done."""
        return {
            job.id: Finish("skipped", "once: it has been done", told=True)
            for job in jobs
            if self._one(Get(_key(job.id))) is not None
        }

    def ended(self, endings: Sequence[Ended]) -> None:
        """Remember them."""
        for end in endings:
            if end.ending == "renewed":
                self._one(Delete(_key(end.job.id)))
            elif end.ending != "dead":
                self._one(Put(_key(end.job.id), b"1", ttl=REMEMBERED))

    def _one(self, operation: Operation) -> Any:
        [result] = self._tools.store().apply([operation])
        return result


def _key(job_id: str) -> str:
    return f"once:{part(job_id)}"
