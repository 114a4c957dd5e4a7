"""The database an outbox is in, as its relay sees it: one connection, made again when it broke.

PostgreSQL is spoken to by psycopg and SQLite by `sqlite3`; every other URL is SQLAlchemy's. No
transaction is open while a broker is waited for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol
from urllib.parse import quote

from goose import within
from goose.brokers import redact
from goose.errors import BrokerError, BrokerUnavailable, ConfigError, MissingDriver
from goose.within import Running, Statement, driven

PATIENCE = 10
"""Seconds to wait for a connection, and for a lock."""


class _Kind(Protocol):
    """What one driver is asked for."""

    may_make: bool
    """Whether a file that is missing may be made."""

    @property
    def dialect(self) -> str: ...

    def connect(self) -> Any: ...

    def looking(self, connection: Any) -> AbstractContextManager[Running]: ...

    def changing(self, connection: Any) -> AbstractContextManager[Running]: ...

    def said(self, error: Exception) -> BrokerError: ...


class Database:
    """One database. For one thread at a time.

    Args:
        url: ``postgresql://…``, ``sqlite:///…``, or what SQLAlchemy calls a database.

    Raises:
        ConfigError: It is no URL, or of no database that an outbox can be in.
        MissingDriver: The package it needs is not installed.
    """

    def __init__(self, url: str) -> None:
        self.place = redact(url)
        scheme, separator, _ = url.partition("://")
        if not separator:
            raise ConfigError(f"outbox {self.place!r} is not a URL of a database")
        try:
            self._kind = _kind(scheme.lower(), url)
        except ModuleNotFoundError as error:
            raise MissingDriver(
                f"the outbox {self.place} needs a package that is missing ({error}): "
                f"pip install {_PACKAGES.get(scheme, 'sqlalchemy')}"
            ) from error
        self._open: Any = None

    @property
    def dialect(self) -> str:
        """Its kind, as in `goose.within.Caller.dialect`."""
        return self._kind.dialect

    def look(self, statement: Statement) -> within.Rows:
        """Return the rows of *statement*, which changes nothing.

        Raises:
            BrokerUnavailable: The database cannot be reached.
            BrokerError: It refused.
        """
        with self._used() as connection, self._kind.looking(connection) as caller:
            return caller.rows(statement)

    def change(self, plan: within.Plan[within.T]) -> within.T:
        """Carry *plan* out in one transaction and return its result.

        Raises:
            BrokerUnavailable: The database cannot be reached; whether it happened is unknown.
            BrokerError: It refused; nothing has happened.
        """
        with self._used() as connection, self._kind.changing(connection) as caller:
            return driven(caller, plan)

    def create(self, statements: list[str]) -> None:
        """Carry *statements* out; an SQLite file that is missing is made.

        Raises:
            BrokerError: As `change`.
        """
        self._kind.may_make = True

        def plan(_: within.Caller) -> Any:
            for statement in statements:
                yield Statement(statement)

        self.change(plan)

    def close(self) -> None:
        """Close the connection; a later call makes another."""
        connection, self._open = self._open, None
        if connection is not None:
            with suppress(Exception):
                connection.close()

    @contextmanager
    def _used(self) -> Iterator[Any]:
        try:
            if self._open is None:
                self._open = self._kind.connect()
            yield self._open
        except BrokerError:
            raise
        except Exception as error:
            self.close()
            raise self._kind.said(error) from error


class _Postgres:
    dialect = "postgresql"
    may_make = False

    def __init__(self, url: str) -> None:
        import psycopg

        self._url = url
        self._driver = psycopg

    def connect(self) -> Any:
        # A server that is gone without a word is noticed, though nobody else watches this thread.
        connection = self._driver.connect(
            self._url,
            connect_timeout=PATIENCE,
            tcp_user_timeout=PATIENCE * 1000,
            keepalives_idle=PATIENCE,
            # Behind a pooler the next statement may meet another server process.
            prepare_threshold=None,
        )
        connection.isolation_level = self._driver.IsolationLevel.READ_COMMITTED
        return connection

    @contextmanager
    def changing(self, connection: Any) -> Iterator[Running]:
        with connection.transaction():
            yield within.caller_of(connection)

    looking = changing

    def said(self, error: Exception) -> BrokerError:
        from goose.brokers.postgres.faults import translated

        return translated(error, redact(self._url))


class _SQLite:
    dialect = "sqlite"
    may_make = False

    def __init__(self, url: str) -> None:
        import sqlite3

        from goose.brokers.sqlite.options import read

        self._driver = sqlite3
        self._path = read(url, {}).path

    def connect(self) -> Any:
        mode = "rwc" if self.may_make else "rw"
        connection = self._driver.connect(
            f"file:{quote(os.fspath(self._path))}?mode={mode}",
            uri=True,
            timeout=PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
        # Two checkpoints at a time can harm a file before SQLite 3.51.3: that is the application's.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    @contextmanager
    def looking(self, connection: Any) -> Iterator[Running]:
        yield within.caller_of(connection)

    @contextmanager
    def changing(self, connection: Any) -> Iterator[Running]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield within.caller_of(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def said(self, error: Exception) -> BrokerError:
        from goose.brokers.sqlite.faults import translate

        if isinstance(error, self._driver.Error):
            return translate(error, self._path)
        return BrokerError(f"{self._path}: {error}")


class _Alchemy:
    may_make = False

    def __init__(self, url: str) -> None:
        import sqlalchemy.exc

        self._url = url
        try:
            # Without gaps locked: whoever inserts must not wait for a relay.
            self._engine = sqlalchemy.create_engine(
                url, isolation_level="READ COMMITTED", poolclass=sqlalchemy.pool.NullPool
            )
        except sqlalchemy.exc.ArgumentError as error:
            raise ConfigError(f"outbox {redact(url)!r}: {error}") from error
        self._errors = sqlalchemy.exc
        name = self._engine.dialect.name
        self.dialect: str = "mysql" if name == "mariadb" else name

    def connect(self) -> Any:
        return self._engine.connect()

    @contextmanager
    def changing(self, connection: Any) -> Iterator[Running]:
        with connection.begin():
            yield within.caller_of(connection)

    looking = changing

    def said(self, error: Exception) -> BrokerError:
        lost = (self._errors.OperationalError, self._errors.InterfaceError, OSError)
        said = " ".join(str(within.cause_of(error)).split())
        kind = BrokerUnavailable if isinstance(error, lost) else BrokerError
        return kind(f"the database at {redact(self._url)}: {said}")


_PACKAGES = {
    "postgresql": "'goose-jobs[postgres]'",
    "postgres": "'goose-jobs[postgres]'",
    "mysql": "sqlalchemy mysqlclient",
    "mysql+pymysql": "sqlalchemy pymysql",
    "mariadb+pymysql": "sqlalchemy pymysql",
}
_KINDS: dict[str, Callable[[str], _Kind]] = {
    "postgresql": _Postgres,
    "postgres": _Postgres,
    "sqlite": _SQLite,
}


def _kind(scheme: str, url: str) -> _Kind:
    kind = _KINDS.get(scheme) or (
        _Alchemy if scheme.partition("+")[0] in _THROUGH_ALCHEMY else None
    )
    if kind is None:
        raise ConfigError(
            f"outbox {redact(url)!r}: an outbox can be in PostgreSQL, SQLite, MySQL or MariaDB; write "
            "for example postgresql://host/db, sqlite:///app.db or mysql+pymysql://host/db"
        )
    return kind(url)


_THROUGH_ALCHEMY = {"mysql", "mariadb", "postgresql"}
