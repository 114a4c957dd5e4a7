"""Jobs inside a transaction of the caller's own, through the caller's own connection."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from goose.brokers.sqlite.faults import translate
from goose.brokers.sqlite.options import Options
from goose.brokers.sqlite.rows import place_fresh, store
from goose.brokers.sqlite.schema import is_present
from goose.brokers.sqlite.statements import Statements
from goose.errors import BrokerError, ConfigError
from goose.jobs import Envelope


def store_within(
    connection: sqlite3.Connection,
    options: Options,
    statements: Statements,
    envelopes: Sequence[Envelope],
    now: int,
) -> None:
    """Store *envelopes* through *connection*; see `SQLiteBroker.enqueue_within`."""
    if not isinstance(connection, sqlite3.Connection):
        raise ConfigError(
            f"the connection is a {type(connection).__name__}; give the sqlite3.Connection itself, "
            "which libraries on top of sqlite3 hold somewhere inside"
        )
    try:
        cursor = connection.cursor(sqlite3.Cursor)
        cursor.row_factory = None  # the caller's kinds of rows and texts are the caller's
        _check_file(cursor, options.path)
        if not is_present(cursor, options.namespace):
            raise BrokerError(
                f"{options.path} has no tables of Goose yet: call "
                f"SQLiteBroker({options.path!r}).migrate() once before, outside the transaction"
            )
        begun = not connection.in_transaction
        if begun:
            _begin(connection, cursor)
        with _all_or_nothing(connection, begun):
            place_fresh(cursor, statements)
            store(cursor, statements, envelopes, now)
    except sqlite3.Error as error:
        raise translate(error, options.path) from error


def _check_file(cursor: sqlite3.Cursor, path: str) -> None:
    main = next(file for number, _, file in cursor.execute("PRAGMA database_list") if number == 0)
    file = os.fsdecode(main or "") or ":memory:"
    try:
        same = os.path.samefile(file, path)
    except OSError:
        same = False
    if not same:
        raise ConfigError(
            f"the connection is of {file}, the broker of {path}: a job can join a transaction "
            "only of the broker's own file"
        )


@contextmanager
def _all_or_nothing(connection: sqlite3.Connection, begun: bool) -> Iterator[None]:
    """Undo what the block did if it fails, and the transaction too if it was *begun* for it."""
    connection.execute("SAVEPOINT goose")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK" if begun else "ROLLBACK TO goose")
        raise
    finally:
        if connection.in_transaction:
            connection.execute("RELEASE goose")


def _begin(connection: sqlite3.Connection, cursor: sqlite3.Cursor) -> None:
    # From Python 3.12 on `autocommit` may be set instead of `isolation_level`.
    if connection.isolation_level is None or getattr(connection, "autocommit", -1) is True:
        raise ConfigError(
            "the connection is in autocommit mode with no transaction open, so nothing would "
            "commit the job: execute('BEGIN IMMEDIATE') first and COMMIT after"
        )
    # Not the deferred one Python would begin: that can fail at once where this waits.
    cursor.execute("BEGIN IMMEDIATE")
