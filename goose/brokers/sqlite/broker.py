"""`SQLiteBroker`: jobs in one SQLite file, shared by any number of processes of one host.

Every verb is one short transaction through `Writer.run`. Whatever a job's next state is,
it is stored in the same transaction that ends the previous one, so a process may be killed
anywhere and the power may fail anywhere (``synchronous=full``): each job is in one place.

An idle `dequeue` watches the file's change counter (``PRAGMA data_version``), which every
commit of every process moves: each millisecond after a job, each ten half a second later,
which costs about one percent of a CPU; a commit of the same process wakes it at once, and it wakes by
itself when a scheduled job of its queues comes due.

A shared memory-mapped log keeps processes of one host together, so the file must be on a
local disk. A program that forks may go on using its brokers on both sides.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from goose.brokers.base import Capability, Delivery, Session, Share, order
from goose.brokers.sqlite import host
from goose.brokers.sqlite.completing import Completer
from goose.brokers.sqlite.inspector import Inspecting
from goose.brokers.sqlite.line import Line, give_back, has_fresh, promote_due
from goose.brokers.sqlite.rows import (
    deliver,
    due,
    loans,
    numbers,
    receipt_of,
    store,
    store_fresh,
)
from goose.brokers.sqlite.schema import DEAD, READY, SCHEDULED
from goose.brokers.sqlite.sessions import Sessioned, check_session
from goose.brokers.sqlite.upkeep import Upkept
from goose.brokers.sqlite.within import store_within
from goose.jobs import Envelope

if TYPE_CHECKING:
    from goose.brokers.examining import Examination
    from goose.stores.base import Store

_WATCH_FIRST = 0.001
"""Seconds between the first looks at the change counter; each is a fiftieth longer …"""
_WATCH_LAST = 0.010
"""… up to this, half a second after the last job."""
_PLACE_EVERY = 500
"""Lone enqueues of which one puts the others in line, so that never too many wait for that."""
_WATCH_BLINDLY = 1.0
"""Seconds after which it looks at the jobs in any case: the file may be another by now."""


class SQLiteBroker(Sessioned, Upkept, Inspecting, Completer):
    """A durable broker in a file, without a server.

    Thread-safe. Nothing is opened before the first use. Brokers of one process on the same
    file share its connections.

    Args:
        place: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a path. The query may
            hold ``synchronous`` (``full`` or ``normal``), ``namespace``, ``dead_max_age``
            (seconds, or as ``180d``), ``dead_max_count`` (jobs per queue) and ``timeout``
            (seconds to wait for other writers).
        wall: The clock of due instants, epoch seconds.
        uptime: The clock of sessions, seconds.
        options: As in the query, and before it.

    Raises:
        ConfigError: The URL names no file, or an option is unknown or nonsense.
    """

    capabilities = frozenset(
        {Capability.DEDUPES, Capability.DURABLE, Capability.SHARED, Capability.CLOCK}
    )

    def __init__(
        self,
        place: str | os.PathLike[str],
        *,
        wall: Callable[[], float] = time.time,
        uptime: Callable[[], float] = host.uptime,
        **options: object,
    ) -> None:
        super().__init__(place, wall=wall, uptime=uptime, **options)
        self._wake_next = False
        self._pause = _WATCH_FIRST
        self._lone = -1
        self._more = False
        """Whether the last claim took as many as it was allowed."""

    def examine(self) -> Examination:
        """See `Examined.examine`: the file, and the disk it is on."""
        from goose.brokers.sqlite.examination import examine  # not every program's

        return examine(self.options)

    def __repr__(self) -> str:
        return f"SQLiteBroker({self.options.path!r})"

    # --- in ------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        """See `Broker.enqueue`; all in one transaction."""
        job = envelopes[0] if len(envelopes) == 1 else None
        self._lone += 1
        if job and job.delay is None and job.due_at is None and self._lone % _PLACE_EVERY:
            self._write(lambda c: store_fresh(c, self._statements, job, self._now()), single=True)
        else:
            self.schedule(envelopes)

    def schedule(self, envelopes: Sequence[Envelope]) -> None:
        """See `Broker.schedule`; due instants to the microsecond."""
        if envelopes:
            self._change(lambda c: store(c.cursor(), self._statements, envelopes, self._now()))

    def enqueue_within(self, connection: sqlite3.Connection, envelopes: Sequence[Envelope]) -> None:
        """See `Transactional.enqueue_within`; *connection* is one of `sqlite3`.

        A transaction is begun if none is open; the caller commits. In autocommit mode
        (``isolation_level=None``) the caller must have begun one, as nothing would ever
        commit it otherwise. Before SQLite 3.51.3, set ``PRAGMA wal_autocheckpoint = 0`` on
        *connection*: see `writer`.

        Raises:
            ConfigError: *connection* is of another file, or in autocommit mode without a
                transaction.
            BrokerError: The tables are missing there.
            BrokerUnavailable: Another connection held the write lock for longer than
                *connection* waits.
        """
        self._check_open()
        store_within(connection, self.options, self._statements, envelopes, self._now())

    # --- out -----------------------------------------------------------------------------

    def dequeue(
        self, session: Session, queues: Sequence[Share], *, limit: int, wait: float
    ) -> Sequence[Delivery]:
        """See `Broker.dequeue`. Jobs that came due take their place by their due instant."""
        woken, self._wake_next = self._wake_next, False
        deadline = time.monotonic() + wait
        while True:
            found: list[Delivery] = []
            # Looking first needs no lock, which another program may hold for long; but it costs
            # a tenth of a claim, and where the last one was full there is more, most likely.
            more, self._more = self._more, False
            next_due = 0 if more else self._next_due(queues, session)
            if next_due is not None and next_due <= self._now():
                # After a power cut no loan is good, so this one need not survive it.
                found = self._change(lambda c: self._lend(c, session, queues, limit), durable=False)
                self._pause, self._more = _WATCH_FIRST, len(found) == limit
            if found or woken or wait <= 0 or not self._watch(queues, session, deadline):
                return found

    def _lend(
        self, connection: sqlite3.Connection, session: Session, queues: Sequence[Share], limit: int
    ) -> list[Delivery]:
        cursor = connection.cursor()
        holder = check_session(cursor, self._statements, session)
        statements, now = self._statements, self._now()
        rows: list[tuple[Any, ...]] = []
        for queue in order(queues, self._random):
            left = limit - len(rows)
            if left <= 0:
                break
            promote_due(cursor, statements, queue, now, left)
            rows += cursor.execute(statements.first_ready, (queue, left)).fetchall()
        if not rows:
            return []
        receipt = self._next_receipt(cursor)
        cursor.execute(statements.lend, (holder, receipt, now, numbers(rows)))
        return deliver(rows, receipt, session)

    def _watch(self, queues: Sequence[Share], session: Session, deadline: float) -> bool:
        """Block while nothing is ready; return whether to try again, False at *deadline* or `wake`.

        Args:
            queues: Where to look.
            session: For whom; when it is declared dead, `SessionLost` ends the watch.
            deadline: Monotonic seconds.
        """
        writer = self._writer
        with writer.sleepers.join(self) as sleeper:
            while not self._closed:
                version = writer.version()
                next_due = self._next_due(queues, session)
                look_anyway = time.monotonic() + _WATCH_BLINDLY
                while True:
                    now = time.monotonic()
                    if sleeper.woken or self._wake_next or self._closed or now >= deadline:
                        self._wake_next = False
                        return False
                    due_in = _WATCH_LAST if next_due is None else (next_due - self._now()) / 1e6
                    if due_in <= 0:
                        return True
                    # Also after a change, so that a busy file does not keep us busy too.
                    sleeper.sleep(min(self._pause, due_in, deadline - now))
                    self._pause = min(self._pause * 1.02, _WATCH_LAST)
                    if now >= look_anyway or writer.version() != version:
                        break
        return False

    def _next_due(self, queues: Sequence[Share], session: Session) -> int | None:
        """Return when the next job of *queues* is due, in microseconds; 0 if one is or may be ready.

        Raises:
            SessionLost: *session* is dead.
        """

        def look(connection: sqlite3.Connection) -> int | None:
            cursor, next_due = connection.cursor(), None
            check_session(cursor, self._statements, session)
            if has_fresh(cursor, self._statements):
                return 0  # of whatever queue: lending puts it in line first
            for share_ in queues:
                if cursor.execute(self._statements.has_ready, (share_.queue,)).fetchone():
                    return 0
                (rank,) = cursor.execute(self._statements.next_due, (share_.queue,)).fetchone()
                if rank is not None and (next_due is None or rank < next_due):
                    next_due = rank
            return next_due

        return self._read(look)

    # --- settle --------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See `Broker.ack`."""
        return self._settle_all(
            lambda cursor, pairs: cursor.execute(self._statements.ack, (pairs,)),
            deliveries,
            durable=True,
        )

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See `Broker.release`; each takes back the place it had, or is in the turn that goes now."""
        return self._settle_all(
            lambda cursor, pairs: give_back(cursor, self._statements, pairs),
            deliveries,
            durable=False,
        )

    def requeue(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """See `Broker.requeue`; all in one transaction."""

        def next_state(line: Line, envelope: Envelope, now: int) -> tuple[int, int, int]:
            at = due(envelope, now)
            if at > now:
                return SCHEDULED, at, now
            return READY, line.new_back(envelope.queue, envelope.group), now

        return self._settle_each(deliveries, next_state)

    def bury(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """See `Broker.bury`; all in one transaction."""
        return self._settle_each(deliveries, lambda _line, _envelope, now: (DEAD, now, now))

    def _settle_all(
        self,
        settle: Callable[[sqlite3.Cursor, str], object],
        deliveries: Sequence[Delivery],
        *,
        durable: bool,
    ) -> Sequence[Delivery]:
        if not deliveries:
            return []
        pairs = loans(deliveries)

        def work(connection: sqlite3.Connection) -> list[tuple[int, int]]:
            cursor = connection.cursor()
            lost = cursor.execute(self._statements.not_ours, (pairs,)).fetchall()
            if len(lost) < len(deliveries):
                settle(cursor, pairs)
            return lost

        lost = set(self._change(work, durable=durable))
        return [delivery for delivery in deliveries if receipt_of(delivery) in lost] if lost else []

    def _settle_each(
        self,
        deliveries: Sequence[tuple[Delivery, Envelope]],
        next_state: Callable[[Line, Envelope, int], tuple[int, int, int]],
    ) -> Sequence[Delivery]:
        if not deliveries:
            return []

        def work(connection: sqlite3.Connection) -> list[Delivery]:
            cursor, now = connection.cursor(), self._now()
            line = Line(cursor, self._statements, now)
            lost = []
            for delivery, envelope in deliveries:
                state, rank, at = next_state(line, envelope, now)
                values = (envelope.queue, state, rank, at, envelope.group, envelope.body)
                cursor.execute(self._statements.settle, (*values, *receipt_of(delivery)))
                if not cursor.rowcount:
                    lost.append(delivery)
            return lost

        return self._change(work)

    # --- life ----------------------------------------------------------------------------

    def wake(self) -> None:
        """See `Broker.wake`; every `dequeue` that blocks at this moment ends."""
        if not self._writer.sleepers.wake(self):
            self._wake_next = True

    def open_store(self) -> Store:
        """See `Keeper.open_store`: in the same file."""
        from goose.stores.sqlite import SQLiteStore

        options = self.options
        return SQLiteStore(
            options.path,
            wall=self._wall,
            namespace=options.namespace,
            synchronous=options.synchronous,
            timeout=options.timeout,
        )
