"""`PostgresBroker`: jobs in a PostgreSQL database, shared by any number of machines.

Every verb is one statement (in ``sql/``), which is a transaction of its own, so that whatever
a job's next state is, it is stored in the step that ends the previous one. Time is the
server's. A loan is a row in the state *running* with a receipt, not a lock that is held while
the job runs: no transaction of the broker's is ever longer than its statement.

A `dequeue` that finds nothing waits for a notice, or until a scheduled job is due, and looks
by itself twice a second in any case: notices may fail, or be turned off (see `notices`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from goose.brokers.base import Capability, Delivery, Session, Share, order
from goose.brokers.postgres import checks
from goose.brokers.postgres.arrays import numbers, texts
from goose.brokers.postgres.completing import Completer
from goose.brokers.postgres.connections import Connection
from goose.brokers.postgres.inspector import Inspecting
from goose.brokers.postgres.rows import (
    bodies,
    delivered,
    loans,
    named,
    new_receipt,
    receipt_of,
    stored,
)
from goose.brokers.postgres.sessions import lost
from goose.brokers.postgres.statements import statement
from goose.brokers.postgres.upkeep import Upkept
from goose.brokers.postgres.waiting import Sleeper
from goose.brokers.postgres.within import Transacting
from goose.jobs import Envelope

if TYPE_CHECKING:
    from goose.brokers.examining import Examination
    from goose.stores.base import Store

POLL = 0.5
"""Seconds between an idle worker's own looks at most."""


class PostgresBroker(Completer, Upkept, Inspecting, Transacting):
    """A durable broker in a database.

    Thread-safe, and safe to use on both sides of a fork. Nothing is connected before the
    first use.

    Args:
        place: A URL (see `goose.brokers.postgres.options`);
            ``postgresql://localhost:5432/postgres`` by default.
        options: As in the query of the URL, and before it: ``namespace``, ``notify``,
            ``pool`` (connections), ``timeout`` and ``connect_timeout`` (seconds), ``migrate``,
            ``dead_max_age`` and ``keep_done`` (seconds), ``dead_max_count`` and ``strict``.

    Raises:
        ConfigError: The URL or an option is unknown or nonsense.
    """

    capabilities = frozenset(
        {Capability.DEDUPES, Capability.DURABLE, Capability.SHARED, Capability.CLOCK}
    )

    needs = 4

    def __init__(self, place: str | None = None, **given: Any) -> None:
        super().__init__(place, **given)
        self._place, self._given = place, given
        query = statement("store_one", self.options.schema).decode()
        for number, name in enumerate(("id", "queue", "group", "body"), 1):
            query = query.replace(f"%({name})s", f"${number}").replace(f"%({name})b", f"${number}")
        self._store_one_query = query.encode()
        self._idle = False
        """Whether the last dequeue found nothing, so that looking first saves a write."""

    def examine(self) -> Examination:
        """See `Examined.examine`."""
        from goose.brokers.postgres import examination  # not every program's

        wanted = [list(examination.SETTINGS)]
        rows = self._call(lambda c: c.execute(checks.LOOK, wanted).fetchall(), again=True)
        before = time.time()
        [row] = self._rows("examine", {}, again=True)
        seen = examination.Seen(*row)
        ahead = seen.clock - (before + time.time()) / 2
        return examination.examine(seen, {str(name): str(value) for name, value in rows}, ahead)

    def open_store(self) -> Store:
        """See `Keeper.open_store`: in the same schema, over connections of its own."""
        from goose.stores.postgres import PostgresStore

        return PostgresStore(self._place, **self._given)

    def __repr__(self) -> str:
        return f"PostgresBroker({self.options.where!r})"

    # --- in ------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        """See `Broker.enqueue`; all in one step."""
        if len(envelopes) == 1:
            [job] = envelopes
            if job.delay is None and job.due_at is None:
                self._store_one(job)
                self._announce({job.queue}, in_front=False)
                return
        self.schedule(envelopes)

    def _store_one(self, job: Envelope) -> None:
        """Store a job that is ready: the usual call, which should cost little."""
        # A second try stores nothing twice, as an id that is stored already is left out.
        if self.options.notify == "off":  # nothing stays prepared
            values = {"id": job.id, "queue": job.queue, "group": job.group, "body": job.body}
            self._run("store_one", values, again=True, jobs=[job])
            return

        def call(connection: Connection) -> None:
            group = None if job.group is None else job.group.encode()
            given = (job.id.encode(), job.queue.encode(), group, job.body)
            connection.run_quickly("goose_store_one", self._store_one_query, given)

        self._call(call, again=True, jobs=[job])

    def schedule(self, envelopes: Sequence[Envelope]) -> None:
        """See `Broker.schedule`; due instants to the microsecond, by the server's clock."""
        if envelopes:
            self._run("store", stored(envelopes), again=True, jobs=envelopes)
            self._announce({envelope.queue for envelope in envelopes}, in_front=False)

    # --- out -----------------------------------------------------------------------------

    def dequeue(
        self, session: Session, queues: Sequence[Share], *, limit: int, wait: float
    ) -> Sequence[Delivery]:
        """See `Broker.dequeue`."""
        names = {share.queue for share in queues}
        with self._sleepers.join(names) as sleeper:
            if self._ear is not None and wait > 0:
                self._ear.start()
            deadline = time.monotonic() + wait
            looks_first, self._idle = self._idle, False
            if not looks_first:
                found = self._lend(session, queues, limit, whole=wait <= 0)
                if found or sleeper.woken or wait <= 0:
                    return found
            found = self._watch(session, queues, limit, sleeper, deadline)
            self._idle = not found
            return found

    def _watch(
        self,
        session: Session,
        queues: Sequence[Share],
        limit: int,
        sleeper: Sleeper,
        deadline: float,
    ) -> Sequence[Delivery]:
        """Lend as soon as there is something, until *deadline* (monotonic seconds) or a `wake`."""
        whole = True  # so that nothing is said to be empty that is not
        while True:
            ready, due_in = self._look(session, queues, whole=whole)
            if due_in is not None and due_in <= 0:
                ready |= self._promote(limit) > 0
            if ready and (found := self._lend(session, queues, limit, whole=whole)):
                return found
            whole = False
            left = deadline - time.monotonic()
            if sleeper.woken or self._closed or left <= 0:
                return []
            nap = self._random.uniform(POLL * 0.9, POLL)
            if due_in is not None:
                nap = min(nap, max(due_in, 0.001))
            # Roused by a notice of a job that is ready, most likely; else it looks.
            if sleeper.sleep(min(nap, left)) and (found := self._lend(session, queues, limit)):
                return found

    def _look(
        self, session: Session, queues: Sequence[Share], *, whole: bool
    ) -> tuple[bool, float | None]:
        """Return whether a job is ready, and the seconds until one of any queue is due."""
        names = [share.queue for share in queues]
        floors, _ = self._floors.of(names, whole=whole)
        values = {**named(session), "queues": texts(names), "floors": numbers(floors)}
        [(alive, ready, due_in)] = self._rows("look", values, again=True)
        if not alive:
            raise lost(session)
        return ready, None if due_in is None else due_in / 1e6

    def _lend(
        self, session: Session, queues: Sequence[Share], limit: int, *, whole: bool = False
    ) -> Sequence[Delivery]:
        """Lend what is ready; unless *whole*, what is ready at the very front may be left out."""
        names = order(queues, self._random)
        receipt = new_receipt()
        floors, is_whole = self._floors.of(names, whole=whole)
        begun = time.monotonic()
        values = {
            **named(session),
            "queues": texts(names),
            "floors": numbers(floors),
            "limit": limit,
            "receipt": receipt,
        }
        rows = self._rows("dequeue", values)
        if not rows:
            raise lost(session)
        if rows[0][0] is None:
            return []
        place = {name: number for number, name in enumerate(names)}
        rows.sort(key=lambda row: (place[row[1]], row[5]))
        last = {row[1]: row[5] for row in rows}
        self._floors.learn(last, time.monotonic() - begun, whole=is_whole)
        return delivered(rows, receipt, session)

    # --- settle --------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See `Broker.ack`."""
        return self._settle(self._ack_verb, sorted(deliveries, key=receipt_of))

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See `Broker.release`; each takes back the place it had."""
        unsettled = self._settle("release", sorted(deliveries, key=receipt_of))
        self._announce({delivery.envelope.queue for delivery in deliveries})
        return unsettled

    def requeue(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """See `Broker.requeue`; all in one step."""
        envelopes = [envelope for _, envelope in deliveries]
        found = self._settle("requeue", [d for d, _ in deliveries], stored(envelopes))
        self._announce({envelope.queue for envelope in envelopes}, in_front=False)
        return found

    def bury(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """See `Broker.bury`; all in one step."""
        values = bodies([envelope for _, envelope in deliveries])
        return self._settle("bury", [delivery for delivery, _ in deliveries], values)

    def _settle(
        self, verb: str, deliveries: Sequence[Delivery], states: Mapping[str, Any] | None = None
    ) -> Sequence[Delivery]:
        """Settle *deliveries*, with their next *states*; return those that were not ours.

        Never repeated here: a second answer would not tell a zombie from a lost first one.
        """
        if not deliveries:
            return []
        [(count, ids, receipts)] = self._rows(verb, {**(states or {}), **loans(deliveries)})
        self._settled += count
        if count == len(deliveries):
            return []
        if not count:
            return list(deliveries)
        settled = set(zip(ids, receipts, strict=True))
        return [delivery for delivery in deliveries if receipt_of(delivery) not in settled]

    # --- life ----------------------------------------------------------------------------

    def wake(self) -> None:
        """See `Broker.wake`; every `dequeue` that blocks at this moment ends."""
        self._sleepers.wake()
