"""Transactions in which jobs run, each on a connection of its own beside the broker's.

The connection is a plain one of psycopg's, as the URL says: none of the settings that suit the
broker's own statements, and no bound on how long it waits. While a job runs, psycopg's
``transaction()`` is around it, so that ``commit()`` by the function is refused and ``transaction()``
blocks of its own are savepoints. The ack is the broker's usual statement, sent as the last one:
only there is the job's row locked, and the commit follows at once.

A connection whose transaction was committed is emptied (``DISCARD ALL``) and kept for the next
job; any other is closed, which rolls back.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Mapping
from typing import Any, Generic, NoReturn, TypeVar, cast

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from goose.brokers.base import Delivery
from goose.brokers.postgres.archive import Archived
from goose.brokers.postgres.arrays import teach
from goose.brokers.postgres.connections import forsake, is_stale, timeouts
from goose.brokers.postgres.faults import CAUGHT, Remedy, judge
from goose.brokers.postgres.rows import loans, receipt_of
from goose.brokers.postgres.statements import statement
from goose.errors import BrokerError
from goose.jobs import Envelope

Plain = psycopg.Connection[Any]
AsyncPlain = psycopg.AsyncConnection[Any]
Either = Plain | AsyncPlain
C = TypeVar("C", Plain, AsyncPlain)

_CANCEL = 1.0
"""Seconds that a statement which was left running has to be cancelled."""


class Spares(Generic[C]):
    """Connections that are free for the next job. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: list[C] = []

    def take(self) -> C | None:
        """Return one that works; the last that came back, whose caches are warm."""
        with self._lock:
            while self._free:
                connection = self._free.pop()
                if not is_stale(connection):
                    return connection
                connection.pgconn.finish()
        return None

    def give(self, connection: C) -> None:
        """Keep *connection*, which was emptied."""
        with self._lock:
            self._free.append(connection)

    def close(self) -> None:
        """Close them all, without their event loop, which may be over."""
        with self._lock:
            for connection in self._free:
                connection.pgconn.finish()
            self._free.clear()

    def forsake(self) -> None:
        """Let go of a parent's connections, in a forked child, without a word to the server."""
        while self._free:
            forsake(self._free.pop())

    def __del__(self) -> None:
        self.close()


class Completer(Archived):
    """Implements `Completing` and `AsyncCompleting`."""

    def __init__(self, place: str | None = None, **given: Any) -> None:
        super().__init__(place, **given)
        self._forget_spares()

    def _forget_spares(self) -> None:
        self._spares: Spares[Plain] = Spares()
        # An event loop's connections are of no use to another.
        self._async_spares: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, Spares[AsyncPlain]
        ] = weakref.WeakKeyDictionary()

    def _start_afresh(self) -> None:
        super()._start_afresh()
        self._spares.forsake()
        for spares in self._async_spares.values():
            spares.forsake()
        self._forget_spares()

    def close(self) -> None:
        """See `Broker.close`; jobs that run keep their connections to their end."""
        super().close()
        self._spares.close()
        for spares in list(self._async_spares.values()):
            spares.close()

    def begin(self, delivery: Delivery) -> PostgresCompletion:
        """See `Completing.begin`."""
        self._make_ready()
        try:
            connection = self._spares.take() or psycopg.Connection.connect(**self._parameters())
        except CAUGHT as error:
            raise self._said(error) from error
        completion = PostgresCompletion(self, delivery, connection, self._spares)
        completion.enter()
        return completion

    async def abegin(self, delivery: Delivery) -> AsyncPostgresCompletion:
        """See `AsyncCompleting.abegin`."""
        await asyncio.to_thread(self._make_ready)
        spares = self._async_spares.setdefault(asyncio.get_running_loop(), Spares())
        try:
            connection = spares.take()
            if connection is None:
                connection = await psycopg.AsyncConnection.connect(**self._parameters())
        except CAUGHT as error:
            raise self._said(error) from error
        completion = AsyncPostgresCompletion(self, delivery, connection, spares)
        await completion.enter()
        return completion

    def _parameters(self) -> dict[str, Any]:
        # Nothing is prepared, as psycopg does not notice that DISCARD ALL has thrown it away.
        ours = {"autocommit": True, "prepare_threshold": None}
        return {**timeouts(self.options), **self.options.server, **ours}

    def is_done(self, delivery: Delivery, note: Envelope | None) -> bool:
        """Say whether the loan of *delivery* has ended, or has this *note*.

        Waits for a transaction that may be doing so.

        Raises:
            BrokerError: It cannot be found out now.
        """
        id_, receipt = receipt_of(delivery)
        rows = self._rows("loan", {"id": id_, "receipt": receipt}, again=True)
        return not rows or (note is not None and rows[0][0] == note.body)

    def last(self, delivery: Delivery, note: Envelope | None) -> tuple[bytes, Mapping[str, Any]]:
        """Return the last statement of a job's transaction, and its parameters."""
        schema = self.options.schema
        if note is None:
            return statement(self._ack_verb, schema), loans([delivery])
        id_, receipt = receipt_of(delivery)
        return statement("note", schema), {"id": id_, "receipt": receipt, "body": note.body}

    def said(self, error: BaseException) -> BrokerError:
        """Return *error* in the broker's words."""
        return self._said(error)


class PostgresCompletion:
    """See `goose.brokers.completion.Completion`."""

    def __init__(
        self, broker: Completer, delivery: Delivery, connection: Plain, spares: Spares[Plain]
    ) -> None:
        self.connection = connection
        self._broker = broker
        self._delivery = delivery
        self._spares = spares
        self._transaction = psycopg.Transaction(connection)
        self._note: Envelope | None = None

    def enter(self) -> None:
        """Begin the transaction."""
        try:
            self._transaction.__enter__()
        except CAUGHT as error:
            self.connection.close()
            raise self._broker.said(error) from error

    def commit(self, note: Envelope | None = None) -> bool:
        """See `Completion.commit`."""
        self._note = note
        _check(self.connection)
        query, values = self._broker.last(self._delivery, note)
        # The function's kinds of rows and cursors are the function's.
        with psycopg.Cursor(self.connection, row_factory=tuple_row) as cursor:
            teach(cursor.adapters)
            row = cursor.execute(query, values).fetchone()
        if row is None or row[0] != 1:
            return False
        try:
            self._transaction.__exit__(None, None, None)
        except CAUGHT as error:
            _tell(self._broker, error)
        return _committed(self._transaction)

    def is_done(self) -> bool:
        """See `Completion.is_done`."""
        return self._broker.is_done(self._delivery, self._note)

    def close(self) -> None:
        """See `Completion.close`."""
        connection = self.connection
        with contextlib.suppress(*CAUGHT):
            if _is_clean(self._transaction, connection):
                connection.execute(b"DISCARD ALL", prepare=False)
                _restore(connection, psycopg.Cursor)
                self._spares.give(connection)
                return
            if connection.info.transaction_status is TransactionStatus.ACTIVE:
                connection.cancel_safe(timeout=_CANCEL)
        connection.close()


class AsyncPostgresCompletion:
    """See `goose.brokers.completion.AsyncCompletion`."""

    def __init__(
        self,
        broker: Completer,
        delivery: Delivery,
        connection: AsyncPlain,
        spares: Spares[AsyncPlain],
    ) -> None:
        self.connection = connection
        self._broker = broker
        self._delivery = delivery
        self._spares = spares
        self._transaction = psycopg.AsyncTransaction(connection)
        self._note: Envelope | None = None

    async def enter(self) -> None:
        """Begin the transaction."""
        try:
            await self._transaction.__aenter__()
        except CAUGHT as error:
            await self.connection.close()
            raise self._broker.said(error) from error

    async def commit(self, note: Envelope | None = None) -> bool:
        """See `Completion.commit`."""
        self._note = note
        _check(self.connection)
        query, values = self._broker.last(self._delivery, note)
        async with psycopg.AsyncCursor(self.connection, row_factory=tuple_row) as cursor:
            teach(cursor.adapters)
            row = await (await cursor.execute(query, values)).fetchone()
        if row is None or row[0] != 1:
            return False
        try:
            await self._transaction.__aexit__(None, None, None)
        except CAUGHT as error:
            _tell(self._broker, error)
        return _committed(self._transaction)

    async def is_done(self) -> bool:
        """See `Completion.is_done`."""
        return await asyncio.to_thread(self._broker.is_done, self._delivery, self._note)

    async def close(self) -> None:
        """See `Completion.close`."""
        connection = self.connection
        with contextlib.suppress(*CAUGHT):
            if _is_clean(self._transaction, connection):
                await connection.execute(b"DISCARD ALL", prepare=False)
                _restore(connection, psycopg.AsyncCursor)
                self._spares.give(connection)
                return
            if connection.info.transaction_status is TransactionStatus.ACTIVE:
                await connection.cancel_safe(timeout=_CANCEL)
        await connection.close()


# --- what both look at ---------------------------------------------------------------------


def _check(connection: Either) -> None:
    """Raise unless the function left its transaction as one that can be committed.

    Raises:
        psycopg.Error: It did not, or the connection is lost; nothing was committed.
    """
    match connection.info.transaction_status:
        case TransactionStatus.INTRANS:
            return
        case TransactionStatus.INERROR:
            raise psycopg.errors.InFailedSqlTransaction(
                "a statement of the function failed, which aborted its transaction, and the function "
                "went on: let the error out, or try such a statement inside connection.transaction()"
            )
        case TransactionStatus.IDLE:
            raise psycopg.ProgrammingError(
                "the function ended its transaction by itself, so what it wrote cannot be one step "
                "with the job's end any more: leave COMMIT and ROLLBACK to Goose"
            )
        case TransactionStatus.ACTIVE:
            raise psycopg.ProgrammingError("the function left a statement unfinished")
        case _:
            raise psycopg.OperationalError("the connection was lost before the commit")


def _committed(transaction: psycopg.Transaction | psycopg.AsyncTransaction) -> bool:
    # psycopg sends nothing, and says nothing, where it sees that the connection is broken.
    if transaction.status is not transaction.Status.COMMITTED:
        raise psycopg.OperationalError("the connection was lost before the commit")
    return True


def _tell(broker: Completer, error: BaseException) -> NoReturn:
    """Raise *error* of a commit; as `BrokerUnavailable` if it may have been carried out."""
    if judge(error).remedy is Remedy.LOST:
        raise broker.said(error) from error
    raise error


def _is_clean(
    transaction: psycopg.Transaction | psycopg.AsyncTransaction, connection: Either
) -> bool:
    return (
        transaction.status is transaction.Status.COMMITTED
        and connection.info.transaction_status is TransactionStatus.IDLE
    )


def _restore(connection: Either, cursor: type[Any]) -> None:
    """Take back what the function may have changed of the driver's object."""
    changed = cast("Any", connection)
    changed.row_factory = tuple_row
    changed.cursor_factory = cursor
    changed.prepare_threshold = None
