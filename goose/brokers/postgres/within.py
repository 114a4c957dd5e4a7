"""Jobs inside a transaction of the caller's own, through the caller's own connection.

The connection may be psycopg's, SQLAlchemy's (a ``Connection`` or ``Session`` on any driver)
or Django's; of psycopg and SQLAlchemy also the kinds that are awaited. SQLAlchemy and Django
are asked by their own methods, so that they know of the transaction, and are not imported
here: who has such a connection has imported them.
"""

from __future__ import annotations

import asyncio
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import psycopg

from goose.brokers.postgres.access import Access
from goose.brokers.postgres.arrays import teach, texts
from goose.brokers.postgres.faults import CAUGHT
from goose.brokers.postgres.rows import micros, stored
from goose.brokers.postgres.statements import statement
from goose.errors import BrokerError, ConfigError
from goose.jobs import Envelope

_PARAMETER = re.compile(r"%\((\w+)\)s")
_NOT_BEGUN = (
    "the connection is in autocommit mode with no transaction open, so the job would be stored at "
    "once, whatever becomes of yours: "
)


class _Caller(Protocol):
    """A connection of one library."""

    def key(self) -> object:
        """Return the driver's connection."""
        ...

    def one(self, query: str) -> Any:
        """Return the first value of the first row."""
        ...

    def store(self, schema: str, envelopes: Sequence[Envelope], *, notify: bool) -> None:
        """Store *envelopes*."""
        ...


class Transacting(Access):
    """Implements `Transactional` and `AsyncTransactional`."""

    def __init__(self, place: str | None = None, **given: Any) -> None:
        super().__init__(place, **given)
        self._checked: weakref.WeakSet[Any] = weakref.WeakSet()

    def enqueue_within(self, connection: Any, envelopes: Sequence[Envelope]) -> None:
        """See `Transactional.enqueue_within`; workers see the jobs half a second after the commit.

        With ``notify=in_transaction`` in the broker's URL they are woken by the commit itself.

        Raises:
            ConfigError: *connection* is of another database, of no library that is known, in
                autocommit mode without a transaction, or one that must be awaited.
            BrokerError: The tables are missing there, or the database refused.
            BrokerUnavailable: It cannot be reached.
        """
        caller = _caller(connection)
        home = self._home_of_tables()
        try:
            if caller.key() not in self._checked:
                schema = self.options.schema
                present = caller.one(statement("present", schema).decode())
                there = caller.one(statement("home", schema).decode()) if present else None
                self._check_home(there, home)
                self._checked.add(caller.key())
            if envelopes:
                caller.store(self.options.schema, envelopes, notify=self._notifies)
        except (BrokerError, ConfigError):
            raise
        except Exception as error:
            raise self._said(_cause(error)) from error

    async def aenqueue_within(self, connection: Any, envelopes: Sequence[Envelope]) -> None:
        """See `enqueue_within`; for psycopg's ``AsyncConnection`` and SQLAlchemy's kinds too."""
        if not isinstance(connection, psycopg.AsyncConnection):
            run = getattr(connection, "run_sync", None)
            if run is None:
                self.enqueue_within(connection, envelopes)
            else:
                await run(lambda inner: self.enqueue_within(inner, envelopes))
            return
        home = self._home or await asyncio.to_thread(self._home_of_tables)
        _check_begun(connection)
        schema = self.options.schema
        try:
            if connection not in self._checked:
                there = None
                present = await (await connection.execute(statement("present", schema))).fetchone()
                if present == (1,):
                    row = await (await connection.execute(statement("home", schema))).fetchone()
                    there = row[0] if row else None
                self._check_home(there, home)
                self._checked.add(connection)
            if not envelopes:
                return
            async with psycopg.AsyncCursor(connection) as cursor:
                teach(cursor.adapters)
                await cursor.execute(statement("store", schema), stored(envelopes))
                if self._notifies:
                    await cursor.execute(statement("notify", schema), _queues(envelopes))
        except CAUGHT as error:
            raise self._said(error) from error

    @property
    def _notifies(self) -> bool:
        return self.options.notify == "in_transaction"

    def _check_home(self, there: object, home: str) -> None:
        if there is None:
            raise BrokerError(
                f"the connection's database has no tables in the schema {self.options.schema}; is "
                f"it another than the broker's, {self.options.where}?"
            )
        if there != home:
            raise ConfigError(
                f"the connection is of another database than the broker's, {self.options.where}: a "
                "job can join a transaction only of the broker's own database"
            )


class _Psycopg:
    """A connection of psycopg 3."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        _check_begun(connection)
        self._connection = connection

    def key(self) -> object:
        return self._connection

    def one(self, query: str) -> Any:
        # The caller's kinds of rows and cursors are the caller's.
        with psycopg.Cursor(self._connection) as cursor:
            row = cursor.execute(query.encode()).fetchone()
            return row[0] if row else None

    def store(self, schema: str, envelopes: Sequence[Envelope], *, notify: bool) -> None:
        with psycopg.Cursor(self._connection) as cursor:
            teach(cursor.adapters)
            cursor.execute(statement("store", schema), stored(envelopes))
            if notify:
                cursor.execute(statement("notify", schema), _queues(envelopes))


class _Alchemy:
    """A ``Connection`` of SQLAlchemy."""

    def __init__(self, connection: Any) -> None:
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            raise ConfigError(f"{_NOT_BEGUN}leave out isolation_level=AUTOCOMMIT")
        self._connection = connection

    def key(self) -> object:
        return self._connection.connection.driver_connection

    def one(self, query: str) -> Any:
        return self._connection.execute(_text(query)).scalar()

    def store(self, schema: str, envelopes: Sequence[Envelope], *, notify: bool) -> None:
        query = statement("store_row", schema).decode()
        self._connection.execute(_text(query), [_row(envelope) for envelope in envelopes])
        if notify:
            query = statement("notify_one", schema).decode()
            for queue in {envelope.queue for envelope in envelopes}:
                self._connection.execute(_text(query), {"queue": queue})


class _Django:
    """A connection of Django."""

    def __init__(self, connection: Any) -> None:
        if not connection.in_atomic_block:
            raise ConfigError(f"{_NOT_BEGUN}enqueue inside of transaction.atomic()")
        self._connection = connection

    def key(self) -> object:
        return self._connection.connection

    def one(self, query: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            row = cursor.fetchone()
            return row[0] if row else None

    def store(self, schema: str, envelopes: Sequence[Envelope], *, notify: bool) -> None:
        with self._connection.cursor() as cursor:
            query = statement("store_row", schema).decode()
            cursor.executemany(query, [_row(envelope) for envelope in envelopes])
            if notify:
                query = statement("notify_one", schema).decode()
                for queue in {envelope.queue for envelope in envelopes}:
                    cursor.execute(query, {"queue": queue})


def _caller(connection: Any) -> _Caller:
    if isinstance(connection, psycopg.Connection):
        return _Psycopg(connection)
    if isinstance(connection, psycopg.AsyncConnection) or hasattr(connection, "run_sync"):
        raise ConfigError(
            f"a {type(connection).__name__} must be awaited: use goose.aio.using(connection=…)"
        )
    library = {base.__module__.partition(".")[0] for base in type(connection).__mro__}
    if "sqlalchemy" in library:
        inner = getattr(connection, "connection", None)
        # A session hands out its connection; a connection has its driver's there.
        return _Alchemy(inner() if callable(inner) else connection)
    if "django" in library and getattr(connection, "vendor", None) == "postgresql":
        return _Django(connection)
    raise ConfigError(
        f"the connection is a {type(connection).__name__}; give one of psycopg 3, of SQLAlchemy "
        "(a Connection or Session), or of Django"
    )


def _check_begun(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    if connection.autocommit and idle:
        raise ConfigError(f"{_NOT_BEGUN}enqueue inside of connection.transaction()")


def _text(query: str) -> Any:
    from sqlalchemy import text  # whoever calls has it

    return text(_PARAMETER.sub(r":\1", query))


def _row(envelope: Envelope) -> Mapping[str, Any]:
    return {
        "id": envelope.id,
        "queue": envelope.queue,
        "group": envelope.group,
        "body": envelope.body,
        "delay": None if envelope.delay is None else micros(envelope.delay),
        "due_at": None if envelope.due_at is None else micros(envelope.due_at),
    }


def _queues(envelopes: Sequence[Envelope]) -> Mapping[str, Any]:
    return {"queues": texts(sorted({envelope.queue for envelope in envelopes}))}


def _cause(error: BaseException) -> BaseException:
    """Return the driver's error that a library wrapped."""
    inner = getattr(error, "orig", None) or error.__cause__
    return inner if isinstance(inner, psycopg.Error) else error
