"""Looks at stored jobs and changes them, for operators, consoles and tests.

An `Inspection` reads a broker's `Inspector` page by page and shows each stored job
decoded, as a `StoredJob`. What cannot be decoded is shown too, with its raw body and the
reason: a listing never fails on one bad job. Filters (function, call, predicate) are
applied here, so every broker finds alike; a filter over a long queue reads all of it.

Changes are compare-and-set on the job's state: a job that was taken, replayed or deleted
by somebody else meanwhile is left alone and not reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from goose.brokers import sees_all
from goose.brokers.base import Inspector, QueueStats, Session, State, Stored
from goose.calls import Call, encode_arguments, name_of
from goose.errors import Undecodable, Unsupported
from goose.features.removals import Confirm, noted
from goose.features.traits import Ended, Ending, Traits
from goose.jobs import MAX_BYTES, Envelope, Job, decode, seal
from goose.values import seconds

_TRAITS = b'"traits"'
"""What is in the body of a job that bears some."""
PAGE = 200
"""Jobs read in one call to the broker."""
SLACK = 128 * 1024
"""Bytes a stored job may be over the size limit: what workers add to it, such as failures."""


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A stored job as people look at it."""

    id: str
    state: State
    queue: str
    group: str | None
    at: datetime
    """Since when it is ready, running or dead; when it is due if scheduled. Aware, in UTC."""
    job: Job[Any] | None
    """None if the body is not a job this Goose can read."""
    body: bytes
    """As stored."""
    problem: str = ""
    """Why `job` is None."""
    session: Session | None = None
    """Who holds it, if running."""


class Inspection:
    """The stored jobs of one broker. Thread-safe.

    Args:
        inspector: The broker.
        max_bytes: Size limit of a job, in bytes; larger ones are shown undecoded.
        clock: Returns epoch seconds; compared with the broker's instants for ages.
        traits: Told of what is removed or replayed, where a job bears traits.
    """

    def __init__(
        self,
        inspector: Inspector,
        *,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
        traits: Traits | None = None,
    ) -> None:
        self._inspector = inspector
        self._max_bytes = max_bytes + SLACK
        self._clock = clock
        self._traits = traits

    @property
    def sees_all(self) -> bool:
        """Whether jobs in every state can be found; else those that run, at least, cannot."""
        return sees_all(self._inspector)

    # --- looking -------------------------------------------------------------------------

    def queues(self) -> Sequence[QueueStats]:
        """Return every queue that holds a job, by name."""
        return self._inspector.queues()

    def count(self, state: State, queue: str | None = None) -> int:
        """Return how many jobs are in *state*, in *queue* or in all."""
        return self._inspector.count(state, queue)

    def get(self, id: str) -> StoredJob | None:  # noqa: A002 - the field's own name
        """Return the stored job of that id, None if there is none (or no longer)."""
        stored = self._inspector.find(id)
        return None if stored is None else self._shown(stored)

    def find(
        self,
        state: State | None = None,
        queue: str | None = None,
        *,
        fn: Callable[..., Any] | str | None = None,
        call: Call[Any] | None = None,
        where: Callable[[Job[Any]], bool] | None = None,
        older_than: float | timedelta = 0.0,
        limit: int | None = None,
    ) -> Iterator[StoredJob]:
        """Yield stored jobs that fit all that is given, reading as far as the caller goes.

        Jobs come by state, and within one next due, first ready or oldest dead first. Jobs
        that move while the caller reads may be missed or seen twice.

        Args:
            state: Only this one; None is all that the broker can show.
            queue: Only this one; None is all.
            fn: Only jobs of this function, or of this ``module:name``.
            call: Only jobs of this function with exactly these arguments.
            where: Only jobs for which it returns true.
            older_than: Only jobs in their state for at least so many seconds (or `timedelta`);
                scheduled ones always fit.
            limit: At most so many jobs; None is all.

        Raises:
            CallError: *fn* or *call* could not be a job at all.
        """
        fits = _filter(fn, call, where)
        latest = self._clock() - seconds(older_than, "older_than")
        everywhere = state is None
        states = list(State) if state is None else [state]
        found = 0
        for stored in self._stored(states, queue, everywhere=everywhere):
            if limit is not None and found >= limit:
                return
            if stored.at > latest and stored.state is not State.SCHEDULED and older_than:
                continue
            shown = self._shown(stored)
            if fits is None or (shown.job is not None and fits(shown.job)):
                found += 1
                yield shown

    # --- changing ------------------------------------------------------------------------

    def delete(self, jobs: Iterable[StoredJob | str], *, state: State) -> list[str]:
        """Remove those of *jobs* (or ids) that are in *state* (not `RUNNING`); return their ids.

        Raises:
            BrokerError: Some may be removed; workers tell features of those within minutes, unless it
                is the broker that failed and does not show jobs in every state.
        """
        return self.remove(jobs, state=state, ending="deleted")

    def remove(self, jobs: Iterable[StoredJob | str], *, state: State, ending: Ending) -> list[str]:
        """Remove them as `delete`, and tell features of that *ending*."""
        named = [jobs] if isinstance(jobs, (str, StoredJob)) else list(jobs)
        bearing = {each.id: each.job for each in self._bearing(named)}
        with self._noted(ending, bearing.values()) as confirm:
            removed = [*self._inspector.delete(_ids(named), state=state)]
            confirm(removed)
            self._tell(ending, [bearing[id_] for id_ in removed if id_ in bearing])
        return removed

    def purge(
        self, state: State, queue: str | None = None, *, older_than: float | timedelta = 0.0
    ) -> int:
        """Remove all jobs that are in *state* (not `RUNNING`) for *older_than* seconds; return how many.

        Raises:
            BrokerError: As `delete`.
        """
        age = seconds(older_than, "older_than")
        bearing = {each.id: each.job for each in self._bearing(self._old_enough(state, queue, age))}
        removed: list[str] = []
        # All are read before the first is removed, for removing would shift the pages; and told
        # after the last, for what follows from an end, such as a callback, is not to be purged.
        ids = list(bearing)
        with self._noted("deleted", bearing.values()) as confirm:
            for at in range(0, len(ids), PAGE):
                page = self._inspector.delete(ids[at : at + PAGE], state=state)
                confirm(page)
                removed += page
            count = len(removed) + self._inspector.purge(state, queue, older_than=age)
            self._tell("deleted", [bearing[id_] for id_ in removed])
        return count

    def promote(self, jobs: Iterable[StoredJob | str]) -> list[str]:
        """Make scheduled jobs (or ids) ready now; return the ids of those that were."""
        return [*self._inspector.promote(_ids(jobs))]

    def prioritise(self, jobs: Iterable[StoredJob | str]) -> list[str]:
        """Move ready jobs (or ids) to the front of their queue, in this order; return their ids."""
        return [*self._inspector.prioritise(_ids(jobs))]

    # --- dead jobs -----------------------------------------------------------------------

    def pop(
        self,
        queue: str | None = None,
        *,
        limit: int = 1,
        older_than: float | timedelta = 0.0,
        fn: Callable[..., Any] | str | None = None,
        call: Call[Any] | None = None,
        where: Callable[[Job[Any]], bool] | None = None,
    ) -> list[StoredJob]:
        """Remove the oldest dead jobs and return them.

        Args:
            queue: Only this one; None is all.
            limit: At most so many jobs.
            older_than: Only those dead for so many seconds (or `timedelta`).
            fn: Only jobs of this function, as in `find`.
            call: Only jobs of exactly this call, as in `find`.
            where: Only jobs for which it returns true.
        """
        filters: dict[str, Any] = {"fn": fn, "call": call, "where": where}
        dead = list(self.find(State.DEAD, queue, **filters, limit=limit, older_than=older_than))
        removed = set(self.delete(dead, state=State.DEAD))
        return [stored for stored in dead if stored.id in removed]

    def replay(
        self,
        jobs: Iterable[StoredJob | str] | None = None,
        *,
        queue: str | None = None,
        limit: int | None = None,
        older_than: float | timedelta = 0.0,
        fn: Callable[..., Any] | str | None = None,
        call: Call[Any] | None = None,
        where: Callable[[Job[Any]], bool] | None = None,
    ) -> list[str]:
        """Make dead jobs ready again, as if they had never failed; return their ids.

        Counts of attempts, crashes and suspicions start at 0 again, while the history of
        failures stays with the job. A body that cannot be decoded is replayed as it is, for
        workers that can.

        Args:
            jobs: These (or ids); None is all that fit what follows.
            queue: Only this one; None is all.
            limit: At most so many jobs, oldest dead first; None is all.
            older_than: Only those dead for so many seconds (or `timedelta`).
            fn: Only jobs of this function, as in `find`.
            call: Only jobs of exactly this call, as in `find`.
            where: Only jobs for which it returns true.
        """
        filters: dict[str, Any] = {"fn": fn, "call": call, "where": where}
        dead = (
            self.find(State.DEAD, queue, **filters, limit=limit, older_than=older_than)
            if jobs is None
            else self._named(jobs)
        )
        # All are read before the first is moved, for moving them would shift the pages; only
        # ids are kept, for there may be many.
        ids = [stored.id for stored in dead]
        replayed: list[str] = []
        for at in range(0, len(ids), PAGE):
            page = list(self._named(ids[at : at + PAGE]))
            # Before they run again: their next end must not be told first.
            self._tell("renewed", [each.job for each in page if each.job and each.job.traits])
            replayed += self._inspector.replay([_revived(stored) for stored in page])
        return replayed

    # --- inside --------------------------------------------------------------------------

    def _stored(
        self, states: Iterable[State], queue: str | None, *, everywhere: bool = False
    ) -> Iterator[Stored]:
        """Yield what is in *states*; who looks *everywhere* does not ask for what cannot be seen."""
        for state in states:
            after: str | None = None
            while True:
                try:
                    page = self._inspector.page(state, queue, limit=PAGE, after=after)
                except Unsupported:
                    if not everywhere:
                        raise
                    break
                yield from page.items
                after = page.next
                if after is None:
                    break

    def _old_enough(self, state: State, queue: str | None, age: float) -> Iterator[StoredJob]:
        latest = self._clock() - age
        if self._traits is not None:
            for stored in self._stored([state], queue):
                if _TRAITS in stored.envelope.body and (
                    stored.at <= latest or state is State.SCHEDULED
                ):
                    yield self._shown(stored)

    def _bearing(self, jobs: Iterable[StoredJob | str]) -> list[StoredJob]:
        """Return those of *jobs* whose end somebody has to be told of."""
        if self._traits is None:
            return []
        found = (self.get(each) if isinstance(each, str) else each for each in jobs)
        return [each for each in found if each and each.job and each.job.traits]

    def _noted(
        self, ending: Ending, jobs: Iterable[Job[Any] | None]
    ) -> AbstractContextManager[Confirm]:
        """Have workers tell of *jobs* that are removed in the block, should this process die in it."""
        known = [job for job in jobs if job]
        if not known or self._traits is None:
            return nullcontext(_unnoted)
        shown = self.sees_all
        try:
            store = self._traits.tools.store()
        except Unsupported:  # then no worker of this broker's has one, either
            if shown:
                raise
            return nullcontext(_unnoted)
        return noted(store, ending, known, shown=shown)

    def _tell(self, ending: Ending, jobs: Sequence[Job[Any] | None]) -> None:
        if jobs and self._traits is not None:
            for error in self._traits.ended([Ended(job, ending) for job in jobs if job]).values():
                raise error

    def _named(self, jobs: Iterable[StoredJob | str]) -> Iterator[StoredJob]:
        """Yield those of *jobs* that are dead now, as they are now."""
        for id in _ids(jobs):  # noqa: A001 - the field's own name
            stored = self._inspector.find(id)
            if stored is not None and stored.state is State.DEAD:
                yield self._shown(stored)

    def _shown(self, stored: Stored) -> StoredJob:
        envelope = stored.envelope
        job: Job[Any] | None = None
        problem = ""
        try:
            job = decode(envelope, max_bytes=self._max_bytes)
        except Undecodable as error:
            problem = str(error)
        return StoredJob(
            id=envelope.id,
            state=stored.state,
            queue=envelope.queue,
            group=envelope.group,
            at=_moment(stored.at),
            job=job,
            body=envelope.body,
            problem=problem,
            session=stored.session,
        )


def _unnoted(_removed: Sequence[str]) -> None:
    """Confirm nothing: nobody has to be told."""


def _moment(epoch: float) -> datetime:
    try:
        return datetime.fromtimestamp(epoch, UTC)
    except (OverflowError, OSError, ValueError):  # beyond the year 9999: not written by a client
        return datetime.max.replace(tzinfo=UTC)


def _ids(jobs: Iterable[StoredJob | str]) -> list[str]:
    if isinstance(jobs, (str, StoredJob)):
        jobs = [jobs]
    return [job if isinstance(job, str) else job.id for job in jobs]


def _filter(
    fn: Callable[..., Any] | str | None,
    call: Call[Any] | None,
    where: Callable[[Job[Any]], bool] | None,
) -> Callable[[Job[Any]], bool] | None:
    """Return one predicate for all that is asked, or None if nothing is."""
    tests: list[Callable[[Job[Any]], bool]] = []
    if fn is not None:
        wanted = fn if isinstance(fn, str) else name_of(fn)
        tests.append(lambda job: job.fn == wanted)
    if call is not None:
        name = name_of(call.fn)
        args, kwargs = encode_arguments(call.fn, call.args, call.kwargs)
        tests.append(lambda job: (job.fn, job.args, job.kwargs) == (name, args, kwargs))
    if where is not None:
        tests.append(where)
    return (lambda job: all(test(job) for test in tests)) if tests else None


def _revived(stored: StoredJob) -> Envelope:
    """Return the envelope of a dead job that starts again."""
    job = stored.job
    if job is None:
        return Envelope(stored.id, stored.queue, stored.body, group=stored.group)
    fresh = job.evolve(attempt=0, crashes=0, suspicions=0, deferred_since=None)
    # It was within the limits when stored, and gets no larger.
    return seal(fresh, max_bytes=len(stored.body) + SLACK)


__all__ = ["Inspection", "StoredJob"]
