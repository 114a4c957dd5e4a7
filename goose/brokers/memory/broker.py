"""The contract of `goose.brokers.base`, on top of a `Store`.

Every verb is one critical section under the store's lock, so each is atomic and a settle,
a claim or a transfer of orphans needs no further care. A dequeue with nothing to lend waits
on the store's condition until a job is stored, a job is due, `wake` is called, its session
is declared dead or its time is over.

Time comes from one injected clock. Nothing happens by itself: jobs become due when somebody
calls, sessions die when somebody recovers their jobs. With a virtual clock and ``wait=0`` a
single thread sees the same thing every time.

A session that was silent for too long is not dead until another one says so in `recover`.
Until then it may go on, because nothing was taken from it: this is what lets a whole fleet
survive an hour in which nobody could beat.
"""

from __future__ import annotations

import os
import random as chance
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from goose.brokers.base import (
    Capability,
    Delivery,
    Promotion,
    Session,
    Share,
    order,
)
from goose.brokers.memory import options
from goose.brokers.memory.inspector import Inspection
from goose.brokers.memory.store import Entry, Lease, Store
from goose.errors import BrokerError, SessionLost
from goose.jobs import Envelope

if TYPE_CHECKING:
    from goose.stores.memory import MemoryStore

_stores: dict[tuple[int, str, str], Store] = {}


class MemoryBroker(Inspection):
    """A broker in this process's memory. Thread-safe; every call is quick.

    Brokers made from the same URL in one process share one store, so that a client and an
    embedded worker configured by ``memory://`` meet; ``memory://name`` is another store, and
    ``MemoryBroker()`` one of its own. A store made from a URL lives as long as the process.

    Args:
        url: ``memory://`` or ``memory://name``; options may stand in its query string. None
            for a store that nobody else has.
        clock: Returns epoch seconds, also for sessions. By default that is the machine's
            time, and for sessions its monotonic clock, which nobody can turn.
        dead_max_age: Seconds a dead job is kept; 180 days by default.
        dead_max_count: Dead jobs kept for each queue, the latest; 100,000 by default.
        namespace: Sets apart the jobs of several users of one URL.
        random: Draws the order of weighted queues.

    Raises:
        ConfigError: The URL is wrong.
    """

    capabilities = frozenset({Capability.DEDUPES, Capability.CLOCK})

    def __init__(
        self,
        url: str | None = None,
        *,
        clock: Callable[[], float] | None = None,
        dead_max_age: float | None = None,
        dead_max_count: int | None = None,
        namespace: str | None = None,
        random: chance.Random | None = None,
    ) -> None:
        said = options.read(url or "memory://")
        space = namespace or said.namespace or ""
        self._process = os.getpid()
        key = (self._process, said.name, space)
        self._store = Store() if url is None else _stores.setdefault(key, Store())
        self._clock = clock or time.time
        self._steady = clock or time.monotonic
        self._random = random or chance.Random()
        self._kept_for = said.dead_max_age if dead_max_age is None else dead_max_age
        self._kept = said.dead_max_count if dead_max_count is None else dead_max_count
        self._closed = False
        self._wakes = 0
        self._blocked = 0
        self._wake_pending = False

    # --- the nine verbs ------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        """Store *envelopes*, ready now, as `Broker.enqueue`."""
        store = self._open_store()
        with store.lock:
            now = self._clock()
            store.promote(now)
            store.append(envelopes, now)
            store.changed.notify_all()

    def schedule(self, envelopes: Sequence[Envelope]) -> None:
        """Store *envelopes*, due as they say, as `Broker.schedule`."""
        store = self._open_store()
        with store.lock:
            now = self._clock()
            store.promote(now)
            for envelope in envelopes:
                if envelope.id not in store.jobs:
                    store.place(Entry(_bare(envelope)), now, _due(envelope, now))
            # Also when none is ready: a blocked dequeue has to learn of an earlier instant.
            store.changed.notify_all()

    def dequeue(
        self, session: Session, queues: Sequence[Share], *, limit: int, wait: float
    ) -> Sequence[Delivery]:
        """Lend up to *limit* ready jobs to *session*, as `Broker.dequeue`."""
        store = self._open_store()
        names = order(queues, self._random)
        gives_up_mono = time.monotonic() + wait if wait > 0 else 0.0
        with store.lock:
            wakes, self._wake_pending, pending = self._wakes, False, self._wake_pending
            while True:
                lease = self._living(session)
                now = self._clock()
                store.promote(now)
                taken = store.lend(lease, names, limit, now)
                left = gives_up_mono - time.monotonic() if wait > 0 else 0.0
                if taken or pending or left <= 0 or wakes != self._wakes:
                    return taken
                self._block(left, now)

    def _block(self, seconds: float, now: float) -> None:
        due = self._store.next_due()
        self._blocked += 1
        try:
            self._store.changed.wait(seconds if due is None else min(seconds, due - now))
        finally:
            self._blocked -= 1

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Forget these jobs, as `Broker.ack`."""
        store = self._open_store()
        lost: list[Delivery] = []
        with store.lock:
            for delivery in deliveries:
                entry = store.settle(delivery)
                if entry is None:
                    lost.append(delivery)
                else:
                    del store.jobs[entry.envelope.id]
        return lost

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give back jobs that were not run: to the front, as `Broker.release`."""
        store = self._open_store()
        lost: list[Delivery] = []
        with store.lock:
            back: list[Entry] = []
            for delivery in deliveries:
                entry = store.settle(delivery)
                if entry is None:
                    lost.append(delivery)
                else:
                    back.append(entry)
            # Receipts count up, so this is the order in which they were lent.
            for entry in sorted(back, key=lambda entry: entry.receipt, reverse=True):
                store.give_back(entry)
            store.changed.notify_all()
        return lost

    def requeue(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """Replace each job by its next state, as `Broker.requeue`."""
        store = self._open_store()
        lost: list[Delivery] = []
        with store.lock:
            now = self._clock()
            store.promote(now)
            for delivery, envelope in deliveries:
                entry = store.settle(delivery)
                if entry is None:
                    lost.append(delivery)
                else:
                    entry.envelope = _bare(envelope)
                    store.place(entry, now, _due(envelope, now))
            store.changed.notify_all()
        return lost

    def bury(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """Move each job to the dead jobs, as `Broker.bury`."""
        store = self._open_store()
        lost: list[Delivery] = []
        with store.lock:
            now = self._clock()
            for delivery, envelope in deliveries:
                entry = store.settle(delivery)
                if entry is None:
                    lost.append(delivery)
                else:
                    entry.envelope = _bare(envelope)
                    store.make_dead(entry, now)
        return lost

    def wake(self) -> None:
        """End the dequeues that block on this object, or else the next one, as `Broker.wake`."""
        with self._store.lock:
            self._wakes += 1
            self._wake_pending = self._blocked == 0
            self._store.changed.notify_all()

    def close(self) -> None:
        """Refuse further calls on this object; what is stored stays for others of its URL."""
        self._closed = True
        if self._process == os.getpid():
            self.wake()

    # --- sessions ------------------------------------------------------------------------

    def open(self, session: Session, *, ttl: float) -> None:
        """Begin *session*, as `Sessions.open`; its epoch must be above any its id had."""
        store = self._open_store()
        with store.lock:
            if session.epoch <= store.opened.get(session.id, 0):
                raise BrokerError(f"session {session.key} exists or existed; open a later epoch")
            store.opened[session.id] = session.epoch
            store.living[session] = Lease(session, self._steady() + ttl)

    def heartbeat(self, session: Session, *, ttl: float) -> None:
        """Prove that *session* lives, as `Sessions.heartbeat`."""
        store = self._open_store()
        with store.lock:
            self._living(session).deadline = self._steady() + ttl

    def end(self, session: Session) -> bool:
        """End *session* if it holds no loans, as `Sessions.end`."""
        store = self._open_store()
        with store.lock:
            lease = store.living.get(session)
            if lease is None:
                return session not in store.dead
            if lease.loans:
                return False
            del store.living[session]
            return True

    def recover(
        self,
        session: Session,
        *,
        limit: int,
        proven: bool = False,
        dead: Session | None = None,
    ) -> Sequence[Delivery]:
        """Transfer up to *limit* orphans to *session*, as `Sessions.recover`.

        With *proven* only those of sessions that were declared dead before: whoever uses this
        broker shares one process, so the death of no other session is ever certain.
        """
        store = self._open_store()
        with store.lock:
            heir = self._living(session)
            now, mono = self._clock(), self._steady()
            for lease in list(store.living.values()):
                # Who is late itself heard as little of the others as they of it.
                judges = dead is None and not proven and heir.deadline > mono
                silent = judges and lease.deadline <= mono
                if lease is not heir and (silent or lease.session == dead):
                    store.declare_dead(lease)
            taken: list[Delivery] = []
            for lease in list(store.dead.values()):
                if len(taken) < limit and dead in (None, lease.session):
                    taken += store.transfer(lease, heir, limit - len(taken), now)
            # A session that was just declared dead may be blocked in a dequeue.
            store.changed.notify_all()
        return taken

    def held(self, session: Session) -> Sequence[Delivery]:
        """Return the loans of *session*, as `Sessions.held`."""
        with self._open_store().lock:
            loans = self._living(session).loans
            return [
                Delivery(entry.envelope, receipt, session, entry.ready_at)
                for receipt, entry in loans.items()
            ]

    def audit(self, session: Session, *, limit: int) -> Sequence[Delivery]:
        """Transfer loans of sessions that do not exist, as `Sessions.audit`: there are none.

        A loan here hangs from its session, so it cannot outlive it.
        """
        with self._open_store().lock:
            self._living(session)
        return []

    # --- upkeep --------------------------------------------------------------------------

    def promote_due(self, *, limit: int) -> Promotion:
        """Make due jobs ready and drop old dead ones, as `Upkeep.promote_due`.

        Every other verb makes due jobs ready too, so few are left to promote here.
        """
        store = self._open_store()
        with store.lock:
            now = self._clock()
            promoted = store.promote(now, limit)
            if promoted:
                store.changed.notify_all()
            due = store.next_due()
            left = None if due is None else max(0.0, due - now)
            return Promotion(promoted, left, store.trim(now - self._kept_for, self._kept, limit))

    # --- what is not a job ---------------------------------------------------------------

    def open_store(self) -> MemoryStore:
        """See `Keeper.open_store`: in the same memory."""
        from goose.stores.memory import MemoryStore

        return MemoryStore(self)

    @contextmanager
    def shelf(self) -> Iterator[dict[str, Any]]:
        """Lend what `MemoryStore` keeps here, to one caller at a time."""
        store = self._open_store()
        with store.lock:
            yield store.shelf

    def now(self) -> float:
        """Return epoch seconds by this broker's clock."""
        return self._clock()

    # --- the inside ----------------------------------------------------------------------

    def _open_store(self) -> Store:
        if self._closed:
            raise BrokerError("this memory broker was closed; make another one")
        if self._process != os.getpid():
            # A copy of the store came along, maybe with its lock held. What is put into
            # it is seen by nobody.
            raise BrokerError(
                f"this memory broker belongs to process {self._process}, which forked this one; "
                "use a broker that processes can share, such as sqlite:///goose.db"
            )
        return self._store

    def _living(self, session: Session) -> Lease:
        lease = self._store.living.get(session)
        if lease is None:
            raise SessionLost(f"session {session.key} is dead or was never opened")
        return lease


def _bare(envelope: Envelope) -> Envelope:
    """Return *envelope* without its due time, which the store keeps from here on."""
    if envelope.delay is None and envelope.due_at is None:
        return envelope
    return Envelope(envelope.id, envelope.queue, envelope.body, group=envelope.group)


def _due(envelope: Envelope, now: float) -> float:
    if envelope.delay is not None:
        return now + envelope.delay
    return now if envelope.due_at is None else envelope.due_at
