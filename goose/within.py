"""Runs statements inside a transaction of the caller's own, whatever library the connection is of.

A connection may be psycopg 3's, `sqlite3`'s, SQLAlchemy's (a ``Connection`` or ``Session`` on any
driver) or Django's; of psycopg and SQLAlchemy also the kinds that are awaited. SQLAlchemy and
Django are asked by their own methods, so that they know of the transaction. No library is imported
here before a connection of it is given: who has one has imported it.

What is to be done is a *plan*: a generator that yields each `Statement` and is sent its rows.
`run` drives one on a connection that blocks, `arun` on one that is awaited, so each plan is
written once. Statements name their parameters as psycopg does, ``%(name)s``, and hold no other
``%``.

The transaction stays the caller's: nothing here commits, and a connection that would commit each
statement by itself is refused.
"""

from __future__ import annotations

import re
import sys
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

from goose.errors import ConfigError

if TYPE_CHECKING:
    import sqlite3

    import psycopg

T = TypeVar("T")
Values: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Sequence[tuple[Any, ...]]

_PARAMETER = re.compile(r"%\((\w+)\)s")
_NOT_BEGUN = (
    "the connection is in autocommit mode with no transaction open, so the job would be stored at "
    "once, whatever becomes of yours: "
)


class Statement(NamedTuple):
    """One thing to ask of the database."""

    query: str
    values: Values | Sequence[Values] = MappingProxyType({})
    """Of its parameters; a sequence has it run once for each, without rows."""
    writes: bool = False
    """Whether it changes anything, for SQLite, where a transaction begins before that."""


class Caller(Protocol):
    """A connection, as a plan sees it."""

    @property
    def dialect(self) -> str:
        """The database's kind: ``postgresql``, ``sqlite`` or ``mysql``, or what SQLAlchemy calls it."""
        ...

    @property
    def key(self) -> object:
        """The driver's own connection."""
        ...


class Running(Caller, Protocol):
    """One that does not have to be awaited."""

    def rows(self, statement: Statement) -> Rows:
        """Run *statement*; return its rows, if it has any."""
        ...


Plan: TypeAlias = Callable[[Caller], Generator[Statement, Rows, T]]
Adapt: TypeAlias = Callable[[Any], object]
"""Teaches the adapters of a psycopg cursor types of the plan's own."""


def run(connection: Any, plan: Plan[T], *, adapt: Adapt | None = None) -> T:
    """Carry *plan* out on *connection* and return its result.

    Raises:
        ConfigError: *connection* is of no library that is known, in autocommit mode without a
            transaction, or one that must be awaited.
        Exception: What the library raised.
    """
    return driven(caller_of(connection, adapt=adapt), plan)


def driven(caller: Running, plan: Plan[T]) -> T:
    """Carry *plan* out by *caller* and return its result."""
    steps = plan(caller)
    try:
        asked = next(steps)
        while True:
            asked = steps.send(caller.rows(asked))
    except StopIteration as done:
        result: T = done.value
        return result


async def arun(connection: Any, plan: Plan[T], *, adapt: Adapt | None = None) -> T:
    """Carry *plan* out as `run`, on a connection that is awaited, or on one that blocks."""
    if _is_of("psycopg", "AsyncConnection", connection):
        caller = _AsyncPsycopg(connection, adapt)
        steps = plan(caller)
        try:
            asked = next(steps)
            while True:
                asked = steps.send(await caller.rows(asked))
        except StopIteration as done:
            result: T = done.value
            return result
    bridge = getattr(connection, "run_sync", None)
    if bridge is None:
        return run(connection, plan, adapt=adapt)
    bridged: T = await bridge(lambda inner: run(inner, plan, adapt=adapt))
    return bridged


def caller_of(connection: Any, *, adapt: Adapt | None = None) -> Running:
    """Return *connection* as plans see it.

    Raises:
        ConfigError: As `run`.
    """
    if _is_of("sqlite3", "Connection", connection):
        return _SQLite(connection)
    library = {base.__module__.partition(".")[0] for base in type(connection).__mro__}
    if _is_of("psycopg", "AsyncConnection", connection) or hasattr(connection, "run_sync"):
        raise ConfigError(
            f"a {type(connection).__name__} must be awaited: use goose.aio.using(…) with it"
        )
    if _is_of("psycopg", "Connection", connection):
        return _Psycopg(connection, adapt)
    if "sqlalchemy" in library:
        inner = getattr(connection, "connection", None)
        # A session hands out its connection; a connection has its driver's there.
        return _Alchemy(inner() if callable(inner) else connection)
    if "django" in library and hasattr(connection, "vendor"):
        return _Django(connection)
    raise ConfigError(
        f"the connection is a {type(connection).__name__}; give one of psycopg 3, of sqlite3, of "
        "SQLAlchemy (a Connection or Session), or of Django"
    )


def _is_of(driver: str, kind: str, connection: object) -> bool:
    """Say whether *connection* is of that driver and kind; without its driver none can be."""
    loaded = sys.modules.get(driver)
    return loaded is not None and isinstance(connection, getattr(loaded, kind))


def cause_of(error: BaseException) -> BaseException:
    """Return the driver's error that SQLAlchemy or Django wrapped, or *error* itself."""
    inner = getattr(error, "orig", None)
    if inner is None and type(error).__module__.startswith("django."):
        inner = error.__cause__
    return inner if isinstance(inner, BaseException) else error


class Known:
    """Remembers connections, for as long as they live. Thread-safe as a set is."""

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __contains__(self, key: object) -> bool:
        try:
            return key in self._seen
        except TypeError:
            return False

    def add(self, key: object) -> None:
        """Remember *key*, if it is of a kind that can be: those of sqlite3 cannot."""
        try:
            self._seen.add(key)
        except TypeError:
            return


# --- sqlite3 -----------------------------------------------------------------------------


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
    """Have the block write through *connection*, all of it or nothing; the caller commits.

    A transaction is begun if none is open.

    Raises:
        ConfigError: None is open, and in autocommit mode nothing would ever commit it.
    """
    cursor = plain(connection)
    begun = not connection.in_transaction
    if begun:
        _begin(connection, cursor)
    connection.execute("SAVEPOINT goose")
    try:
        yield cursor
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK" if begun else "ROLLBACK TO goose")
        raise
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE goose")


def plain(connection: sqlite3.Connection) -> sqlite3.Cursor:
    """Return a cursor of `sqlite3` itself: the caller's kinds of rows are the caller's."""
    import sqlite3

    cursor = connection.cursor(sqlite3.Cursor)
    cursor.row_factory = None
    return cursor


def _begin(connection: sqlite3.Connection, cursor: sqlite3.Cursor) -> None:
    # From Python 3.12 on `autocommit` may be set instead of `isolation_level`.
    if connection.isolation_level is None or getattr(connection, "autocommit", -1) is True:
        raise ConfigError(
            "the connection is in autocommit mode with no transaction open, so nothing would "
            "commit the job: execute('BEGIN IMMEDIATE') first and COMMIT after"
        )
    # Not the deferred one Python would begin: that can fail at once where this waits.
    cursor.execute("BEGIN IMMEDIATE")


class _SQLite:
    """A connection of `sqlite3`."""

    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.key = connection

    def rows(self, statement: Statement) -> Rows:
        assert isinstance(statement.values, Mapping)  # one row at a time is another library's need
        query, values = _PARAMETER.sub(r":\1", statement.query), dict(statement.values)
        if not statement.writes:
            return plain(self.key).execute(query, values).fetchall()
        with writing(self.key) as cursor:
            return cursor.execute(query, values).fetchall()


# --- psycopg -----------------------------------------------------------------------------


def _check_begun(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    if connection.autocommit and connection.info.transaction_status == 0:  # idle
        raise ConfigError(f"{_NOT_BEGUN}enqueue inside of connection.transaction()")


class _Psycopg:
    """A connection of psycopg 3."""

    dialect = "postgresql"

    def __init__(self, connection: psycopg.Connection[Any], adapt: Adapt | None) -> None:
        _check_begun(connection)
        self.key = connection
        self._adapt = adapt

    def rows(self, statement: Statement) -> Rows:
        import psycopg.rows

        # The caller's kinds of rows and cursors are the caller's.
        with psycopg.Cursor(self.key, row_factory=psycopg.rows.tuple_row) as cursor:
            if self._adapt is not None:
                self._adapt(cursor.adapters)
            cursor.execute(statement.query.encode(), statement.values)
            return cursor.fetchall() if cursor.description else []


class _AsyncPsycopg:
    """An ``AsyncConnection`` of psycopg 3."""

    dialect = "postgresql"

    def __init__(self, connection: psycopg.AsyncConnection[Any], adapt: Adapt | None) -> None:
        _check_begun(connection)
        self.key = connection
        self._adapt = adapt

    async def rows(self, statement: Statement) -> Rows:
        import psycopg.rows

        async with psycopg.AsyncCursor(self.key, row_factory=psycopg.rows.tuple_row) as cursor:
            if self._adapt is not None:
                self._adapt(cursor.adapters)
            await cursor.execute(statement.query.encode(), statement.values)
            return await cursor.fetchall() if cursor.description else []


# --- libraries on top --------------------------------------------------------------------


class _Alchemy:
    """A ``Connection`` of SQLAlchemy."""

    def __init__(self, connection: Any) -> None:
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            raise ConfigError(f"{_NOT_BEGUN}leave out isolation_level=AUTOCOMMIT")
        self._connection = connection
        name = connection.dialect.name
        self.dialect: str = "mysql" if name == "mariadb" else name

    @property
    def key(self) -> object:
        return self._connection.connection.driver_connection

    def rows(self, statement: Statement) -> Rows:
        from sqlalchemy import text

        query = text(_PARAMETER.sub(r":\1", statement.query))
        result = self._connection.execute(query, statement.values)
        return [tuple(row) for row in result] if result.returns_rows else []


class _Django:
    """A connection of Django's."""

    def __init__(self, connection: Any) -> None:
        if not connection.in_atomic_block:
            raise ConfigError(f"{_NOT_BEGUN}enqueue inside of transaction.atomic()")
        self._connection = connection
        self.dialect: str = connection.vendor

    @property
    def key(self) -> object:
        return self._connection.connection

    def rows(self, statement: Statement) -> Rows:
        with self._connection.cursor() as cursor:
            if isinstance(statement.values, Mapping):
                cursor.execute(statement.query, dict(statement.values))
                return [tuple(row) for row in cursor.fetchall()] if cursor.description else []
            cursor.executemany(statement.query, statement.values)
            return []
