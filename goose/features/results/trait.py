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
from typing import TYPE_CHECKING, Any, cast

from goose._returns import encode_result
from goose.calls import Call
from goose.errors import CallError, StoreError
from goose.features.results.records import KEPT, Final, Record, failure_fields, key_of, read, write
from goose.features.traits import Admission, Ended, Ending, Tools
from goose.jobs import JSON, Job
from goose.metrics import base as names
from goose.options import RESULT_SECONDS, Options
from goose.stores.base import Delete, Get, Swap

if TYPE_CHECKING:
    from goose.features.flows.book import Flows

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
        self._flows: Flows | None = None

    def admit(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Admission]:
        """Let all of them start."""
        return {}

    def ended(self, endings: Sequence[Ended]) -> None:
        """Keep how they ended, then tell the jobs that depend on them."""
        for end in endings:
            ending, depended = self._keep(end)
            if depended:
                self._dependents().parent_ended(end.job.id, ending)

    def _keep(self, end: Ended) -> tuple[Ending, bool]:
        """Return how the job ended, now that this is known, and whether others depend on it."""
        store, key = self._tools.store(), key_of(end.job.id)
        marker = Get(f"{key}:depended")
        if end.ending == "renewed":
            _, depended = store.apply([Delete(key), marker])
            return "renewed", depended is not None
        body, ttl = write(self._record(end, store.now())), ttl_of(end.job)
        # Nearly always nothing is there yet and nobody waits: one step.
        old, until = None, ttl
        while True:
            written, depended, now = store.apply(
                [Swap(key, old, body, ttl=until), marker, Get(key)]
            )
            if written and (depended is None or until == KEPT):
                return end.ending, depended is not None
            known = _ending(now)
            if known == "done" and end.ending != "done":
                return known, depended is not None
            # While others depend on it, it waits for them.
            old, until = now, ttl if depended is None else KEPT

    def _record(self, end: Ended, now: float) -> Record:
        value: JSON = None
        lost = ""
        if end.ending == "done" and end.result is not None:
            try:
                value = encode_result(self._tools.resolve(end.job.fn), end.result)
            except CallError as error:
                lost = str(error)
                logger.error(
                    "job %s of %s: its result is not kept: %s", end.job.id, end.job.fn, error
                )
                tags = {"queue": end.job.queue, "function": end.job.fn}
                self._tools.metrics.increment(names.RESULTS_LOST, 1, tags)
        failure = failure_fields(end.failure)
        ending = cast("Final", end.ending)  # one that is renewed leaves no record
        return Record(ending, now, value, lost, failure, end.reason, ttl_of(end.job))

    def _dependents(self) -> Flows:
        from goose.features.flows.book import Flows  # not every worker's

        if self._flows is None:
            tools = self._tools
            self._flows = Flows(tools.store(), tools.broker, tools.ended, tools.metrics)
        return self._flows


def ttl_of(job: Job[Any]) -> float:
    """Return the seconds for which the end of *job* is kept."""
    trait = job.traits.get(NAME)
    ttl = trait.get("ttl") if isinstance(trait, dict) else None
    # What travelled may be anything.
    if isinstance(ttl, (int, float)) and not isinstance(ttl, bool) and 0 < ttl <= 1e9:
        return float(ttl)
    return RESULT_SECONDS


def _ending(body: bytes | None) -> Ending | None:
    try:
        return None if body is None else read(body).ending
    except StoreError:  # of another Goose, or not a record: it is replaced
        return None
