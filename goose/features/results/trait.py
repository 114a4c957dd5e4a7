"""The trait ``result``: ``{"ttl": seconds}`` on a job whose end is kept.

How it can break, and what holds:

* A job may end twice (see `goose.features.traits`), the second time with another ending. What it
  returned is never replaced by something else: `done` goes over everything, the others only over
  each other, except that a dead job that is replayed has its record removed first.
* What a function returns may not be JSON, not come back equal, or be too large. The job has done
  its work all the same and stays done; its record says what became of the result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from goose._returns import encode_result
from goose.calls import Call
from goose.errors import CallError
from goose.features.results.records import Record, failure_fields, key_of, read, write
from goose.features.traits import Admission, Ended, Tools
from goose.jobs import JSON, Job
from goose.options import RESULT_SECONDS, Options
from goose.stores.base import Delete, Get, Put, Store, Swap

logger = logging.getLogger("goose.features")

NAME = "result"


def asked(chosen: Options) -> Callable[[Job[Any], Call[Any]], Job[Any]] | None:
    """Return what has new jobs keep their result, if *chosen* asks for that."""
    if not chosen.result:
        return None
    trait: JSON = {"ttl": chosen.result}

    def prepare(job: Job[Any], call: Call[Any]) -> Job[Any]:
        return job.evolve(traits={**job.traits, NAME: trait})

    return prepare


class Results:
    """See `goose.features.traits.Trait`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def admit(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Admission]:
        """Let all of them start."""
        return {}

    def ended(self, endings: Sequence[Ended]) -> None:
        """Keep how they ended."""
        store = self._tools.store()
        for end in endings:
            key = key_of(end.job.id)
            if end.ending == "renewed":
                store.apply([Delete(key)])
                continue
            body = write(self.record(end, store.now()))
            if end.ending == "done":
                store.apply([Put(key, body, ttl=ttl_of(end.job))])
            else:
                _put_unless_done(store, key, body, ttl_of(end.job))

    def record(self, end: Ended, now: float) -> Record:
        """Return what is kept of *end*."""
        value: JSON = None
        lost = ""
        if end.ending == "done" and end.result is not None:
            try:
                value = encode_result(self._tools.resolve(end.job.fn), end.result)
            except CallError as error:
                lost = str(error)
                logger.error("job %s: what it returned is not kept: %s", end.job.id, error)
        failure = failure_fields(end.failure)
        return Record(end.ending, now, value, lost, failure, end.reason)


def ttl_of(job: Job[Any]) -> float:
    """Return the seconds for which the end of *job* is kept."""
    trait = job.traits.get(NAME)
    ttl = trait.get("ttl") if isinstance(trait, dict) else None
    # What travelled may be anything.
    if isinstance(ttl, (int, float)) and not isinstance(ttl, bool) and 0 < ttl <= 1e9:
        return float(ttl)
    return RESULT_SECONDS


def _put_unless_done(store: Store, key: str, body: bytes, ttl: float) -> None:
    while True:
        [old] = store.apply([Get(key)])
        if old is not None and read(old).ending == "done":
            return
        [written] = store.apply([Swap(key, old, body, ttl=ttl)])
        if written:
            return
