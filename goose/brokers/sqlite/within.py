"""Jobs inside a transaction of the caller's own, through the caller's own connection."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence

from goose.brokers.sqlite.faults import translate
from goose.brokers.sqlite.options import Options
from goose.brokers.sqlite.rows import store
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
    try:
        cursor = connection.cursor(sqlite3.Cursor)
        cursor.row_factory = None
        _check_file(cursor, options.path)
        if not is_present(cursor, options.namespace):
            raise BrokerError(
                f"{options.path} has no tables of Goose yet: call "
                f"SQLiteBroker({options.path!r}).migrate() once before, outside the transaction"
            )
        if not connection.in_transaction:
            _begin(connection, cursor)
        store(cursor, statements, envelopes, now)
    except sqlite3.Error as error:
        raise translate(error, options.path) from error


def _check_file(cursor: sqlite3.Cursor, path: str) -> None:
    files = {name: file for _, name, file in cursor.execute("PRAGMA database_list").fetchall()}
    file = files.get("main") or ":memory:"
    try:
        same = os.path.samefile(file, path)
    except OSError:
        same = False
    if not same:
        raise ConfigError(
            f"the connection is of {file}, the broker of {path}: a job can join a transaction "
            "only of the broker's own file"
        )


def _begin(connection: sqlite3.Connection, cursor: sqlite3.Cursor) -> None:
    # From Python 3.12 on `autocommit` may be set instead of `isolation_level`.
    if connection.isolation_level is None or getattr(connection, "autocommit", -1) is True:
        raise ConfigError(
            "the connection is in autocommit mode with no transaction open, so nothing would "
            "commit the job: execute('BEGIN IMMEDIATE') first and COMMIT after"
        )
    # Not the deferred one Python would begin: that can fail at once where this waits.
    cursor.execute("BEGIN IMMEDIATE")
