"""Moves scheduled and ready jobs to another broker, another queue, or both, under live workers.

A job must be on one side only for those who take jobs, and on at least one for good. Which way
that is reached depends on what the brokers can do.

**Hidden copy**, between two brokers that show their jobs::

    scheduled at the target, due in HIDDEN seconds  →  deleted at the source  →  promoted
                                                    ↘  gone there already  →  deleted at the target

Deleting is a compare-and-set on the job's state, so a job that a worker takes at the source in
between is not moved. An interruption before the deletion leaves a copy that the next call takes
over, by its id; one after it leaves a job that comes due by itself. Both sides have it only if the
next call does not come within HIDDEN seconds. A job that was to be due later is copied with its
own instant, and left alone for the time being if that is near.

**Loan**, between queues of one broker, or where one side does not show its jobs: the jobs are
taken as a worker takes them, and stored elsewhere before, or in the same step as, the loan ends.
After an interruption the loans are orphans and come back as those of any worker.

**Journal**, for scheduled jobs between queues of one broker, which nobody can borrow: each is
written to the store, deleted, scheduled in its new queue, and struck out. Whatever has been in the
journal for `TTL` is scheduled again by the next call; what is stored already is left out by its id.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from goose.brokers import connect, name_of, sees_all
from goose.brokers.base import (
    Broker,
    Capability,
    Inspector,
    Session,
    Sessions,
    Share,
    State,
    Stored,
    Upkeep,
)
from goose.errors import ConfigError, Undecodable, Unsupported
from goose.jobs import Envelope, check_queue, decode, seal
from goose.stores.base import Delete, Put, Store

BATCH = 100
"""Jobs in one round."""
HIDDEN = 600.0
"""Seconds a copy at the target stays out of sight of workers, if nobody shows it before."""
NEAR = 10.0
"""Seconds; a job due so soon is waited for instead of copied: a stall might have it run twice."""
TTL = 60.0
"""Seconds of silence after which loans of a mover are anybody's."""
UNBOUNDED = 1 << 62
JOURNAL = "control:moving:"
"""What the keys of the journal begin with."""


@dataclass(frozen=True, slots=True)
class Moved:
    """How far a move has come."""

    ready: int = 0
    scheduled: int = 0
    left: int = 0
    """Jobs that a worker took, or somebody deleted, before they could be moved."""

    @property
    def total(self) -> int:
        """Jobs moved."""
        return self.ready + self.scheduled


class Mover:
    """Moves the jobs of one queue. For one thread.

    Args:
        source: Where they are.
        target: URL or broker where they go; None is *source*.
        queue: Theirs.
        to_queue: Where they go; None keeps the name.
        store: Returns the store of *source*.
        clock: Returns epoch seconds by the clock of *source*; its store's, or this host's, if left out.
        sleep: Waits for seconds.

    Raises:
        ConfigError: They are there already, or a name cannot be a queue.
        Unsupported: *source* does not show its jobs.
    """

    def __init__(
        self,
        source: Broker,
        target: str | Broker | None,
        *,
        queue: str,
        to_queue: str | None,
        store: Callable[[], Store],
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._queue, self._to_queue = check_queue(queue), check_queue(to_queue or queue)
        self._source = source
        self._owned = isinstance(target, str)
        self._target = source if target is None else connect(target)
        self._store = store
        self._clock = clock or _clock(store)
        self._sleep = sleep
        self._moved = Moved()
        self._near = 0.0
        """Seconds until the last of those jobs is due that are waited for; 0 if there are none."""
        self._session = Session(str(uuid.uuid4()))
        if self._same and self._queue == self._to_queue:
            raise ConfigError(
                f"the jobs of {queue!r} are there already: give --to or another queue"
            )

    @property
    def _same(self) -> bool:
        return self._target is self._source

    def run(self, on_progress: Callable[[Moved], object] = lambda _: None) -> Moved:
        """Move until nothing is left to move; tell *on_progress* after each round.

        Raises:
            Unsupported: A broker cannot do its part.
            BrokerError: A broker failed. Nothing is lost; run it again.
        """
        try:
            for moved in self._rounds():
                self._moved = moved
                on_progress(moved)
        finally:
            if self._owned:
                self._target.close()
        return self._moved

    def _rounds(self) -> Iterator[Moved]:
        if self._same:
            yield from self._strike_out()
        while True:
            self._near = 0.0
            if isinstance(self._source, Inspector):
                yield from self._scheduled(self._source)
            yield from self._ready()
            if not self._near:
                return
            # They become ready, and are moved as such.
            self._sleep(min(self._near, 1.0))
            if isinstance(self._source, Upkeep):
                self._source.promote_due(limit=1000)

    def _add(self, *, ready: int = 0, scheduled: int = 0, left: int = 0) -> Moved:
        moved = self._moved
        return replace(
            moved,
            ready=moved.ready + ready,
            scheduled=moved.scheduled + scheduled,
            left=moved.left + left,
        )

    # --- ready jobs ------------------------------------------------------------------------

    def _ready(self) -> Iterator[Moved]:
        source, target = self._source, self._target
        if self._same or not (_shows(source) and _shows(target)):
            yield from self._lent()
            return
        assert isinstance(source, Inspector)
        assert isinstance(target, Inspector)
        while items := source.page(State.READY, self._queue, limit=BATCH).items:
            copies = [self._renamed(item.envelope).evolve(delay=HIDDEN) for item in items]
            target.schedule(copies)
            ids = [item.envelope.id for item in items]
            removed = set(source.delete(ids, state=State.READY))
            target.promote([id_ for id_ in ids if id_ in removed])
            self._take_back([id_ for id_ in ids if id_ not in removed])
            yield self._add(ready=len(removed), left=len(ids) - len(removed))

    def _take_back(self, ids: Sequence[str]) -> None:
        """Remove copies of jobs that did not wait to be moved."""
        if ids and _shows(self._target):
            assert isinstance(self._target, Inspector)
            self._target.delete(ids, state=State.SCHEDULED)

    def _lent(self) -> Iterator[Moved]:
        source, session = self._source, self._session
        if isinstance(source, Sessions):
            source.open(session, ttl=TTL)
        try:
            while deliveries := source.dequeue(session, [Share(self._queue)], limit=BATCH, wait=0):
                pairs = [(delivery, self._renamed(delivery.envelope)) for delivery in deliveries]
                if self._same:
                    lost = source.requeue(pairs)
                else:
                    self._target.enqueue([envelope for _, envelope in pairs])
                    lost = source.ack([delivery for delivery, _ in pairs])
                yield self._add(ready=len(pairs) - len(lost), left=len(lost))
                if isinstance(source, Sessions):
                    source.heartbeat(session, ttl=TTL)
        finally:
            if isinstance(source, Sessions):
                source.end(session)

    # --- scheduled jobs ----------------------------------------------------------------------

    def _scheduled(self, source: Inspector) -> Iterator[Moved]:
        """Move those that are not due soon, and note in how many seconds the others are.

        What is due already is not ready only because nobody has promoted it.
        """
        after: str | None = None
        while True:
            try:
                page = source.page(State.SCHEDULED, self._queue, limit=BATCH, after=after)
            except Unsupported:  # it does not show them
                return
            now = self._clock()
            far = [item for item in page.items if item.at > now + NEAR]
            if len(far) < len(page.items):
                near = max(item.at - now for item in page.items if item.at <= now + NEAR)
                self._near = max(self._near, near + 0.1, 0.1)
            if far:
                removed = self._reschedule(source, far)
                yield self._add(scheduled=removed, left=len(far) - removed)
            # What is moved makes room for what comes after it; where nothing was, look further.
            after = None if far else page.next
            if not far and after is None:
                return

    def _reschedule(self, source: Inspector, items: Sequence[Stored]) -> int:
        copies = [self._renamed(item.envelope).evolve(due_at=item.at) for item in items]
        ids = [copy.id for copy in copies]
        if self._same:
            return self._journaled(source, copies)
        self._target.schedule(copies)
        removed = set(source.delete(ids, state=State.SCHEDULED))
        self._take_back([id_ for id_ in ids if id_ not in removed])
        return len(removed)

    def _journaled(self, source: Inspector, copies: Sequence[Envelope]) -> int:
        if Capability.DEDUPES not in self._source.capabilities:
            raise Unsupported(
                f"{name_of(self._source)} cannot move scheduled jobs between its queues"
            )
        store = self._store()
        entries = {_entry(copy, store.now()): copy for copy in copies}
        for key, copy in entries.items():
            store.apply([Put(key, copy.body)])
        removed = set(source.delete([copy.id for copy in copies], state=State.SCHEDULED))
        moved = [copy for copy in copies if copy.id in removed]
        if moved:
            self._source.schedule(moved)
        for key in entries:
            store.apply([Delete(key)])
        return len(moved)

    def _strike_out(self) -> Iterator[Moved]:
        """Finish what an interrupted move has left in the journal."""
        try:
            store = self._store()
        except Unsupported:
            return
        while page := store.scan(JOURNAL, limit=BATCH):
            for key, body in page:
                written_at, queue, due_at, id_ = key.removeprefix(JOURNAL).split("/", 3)
                age = store.now() - float(written_at)
                if age < TTL:
                    # Another mover may be between its entry and its deletion.
                    self._sleep(TTL - age)
                # Where it has not been deleted yet, this is left out, by its id.
                self._source.schedule([Envelope(id_, queue, body, due_at=float(due_at))])
                store.apply([Delete(key)])
            yield self._add(scheduled=len(page))

    def _renamed(self, envelope: Envelope) -> Envelope:
        """Return *envelope* as it is stored in the other queue, ready."""
        plain = Envelope(envelope.id, self._to_queue, envelope.body, group=envelope.group)
        if self._to_queue == envelope.queue:
            return plain
        try:
            job = decode(envelope, max_bytes=UNBOUNDED)
        except Undecodable:
            return plain
        return seal(job.evolve(queue=self._to_queue), max_bytes=UNBOUNDED)


def _clock(store: Callable[[], Store]) -> Callable[[], float]:
    try:
        return store().now
    except Unsupported:
        return time.time


def _entry(envelope: Envelope, now: float) -> str:
    return f"{JOURNAL}{now:.3f}/{envelope.queue}/{envelope.due_at!r}/{envelope.id}"


def _shows(broker: Broker) -> bool:
    """Say whether *broker* can hide a copy, and show or remove it by its id."""
    shown = isinstance(broker, Inspector) and sees_all(broker)
    return shown and Capability.DEDUPES in broker.capabilities
