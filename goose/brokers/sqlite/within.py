"""Jobs inside a transaction of the caller's own, through the caller's own connection."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence

from goose.brokers.sqlite.faults import translate
from goose.brokers.sqlite.line import place_fresh
from goose.brokers.sqlite.options import Options
from goose.brokers.sqlite.rows import store
from goose.brokers.sqlite.schema import is_present
from goose.brokers.sqlite.statements import Statements
from goose.errors import BrokerError, ConfigError
from goose.jobs import Envelope
from goose.within import plain, writing


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
        cursor = plain(connection)
        _check_file(cursor, options.path)
        if not is_present(cursor, options.namespace):
            raise BrokerError(
                f"{options.path} has no tables of Goose yet: call "
                f"SQLiteBroker({options.path!r}).migrate() once before, outside the transaction"
            )
        with writing(connection) as cursor:
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
