"""`SQLiteStore`: two tables in the file of the jobs, written through the same writer.

A value is a row of ``store``; a set is a row without a value, which knows its size, and a row of
``members`` for each member. They are made when they are first written to. Every `apply` is
one transaction, and removes a few rows that are over.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from goose.brokers.sqlite.access import Access
from goose.brokers.sqlite.rows import micros
from goose.brokers.sqlite.schema import prefix as table_prefix
from goose.stores.base import (
    Add,
    Delete,
    Get,
    Increment,
    Operation,
    Put,
    Swap,
    Verbs,
    check,
    check_prefix,
    count_of,
    wrong_kind,
)

T = TypeVar("T")

SWEEP = 20
"""Rows that are over and removed by one `apply` at most."""

_TABLES = """
CREATE TABLE IF NOT EXISTS {p}store (
    key TEXT PRIMARY KEY,
    value BLOB,
    size INTEGER NOT NULL DEFAULT 0,
    expires INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {p}store_expires ON {p}store (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS {p}store_members (
    key TEXT NOT NULL,
    member TEXT NOT NULL,
    PRIMARY KEY (key, member)
) WITHOUT ROWID
"""


class SQLiteStore(Access, Verbs):
    """A durable store in a file, without a server. Thread-safe, through every fork.

    Args:
        place: As for `goose.brokers.sqlite.SQLiteBroker`, with the same options.
        wall: The clock of what expires, epoch seconds.
        options: As in the query of the URL, and before it.

    Raises:
        ConfigError: The URL names no file, or an option is unknown or nonsense.
    """

    def __init__(
        self,
        place: str | os.PathLike[str],
        *,
        wall: Callable[[], float] = time.time,
        **options: Any,
    ) -> None:
        super().__init__(place, wall=wall, **options)
        self._p = table_prefix(self.options.namespace)

    def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
        """See `Store.apply`; one transaction, or a look without one for a lone `Get`."""
        check(operations)
        if len(operations) == 1 and isinstance(operations[0], Get):
            return self._read(lambda connection: self._answer(connection, operations[0]))

        def work(connection: sqlite3.Connection) -> list[Any]:
            step = _Step(connection.cursor(), self._p, self._now())
            step.sweep()
            return [step.carry_out(operation) for operation in operations]

        return self._write(lambda connection: self._with_tables(connection, work))

    def scan(
        self, prefix: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[tuple[str, bytes]]:
        """See `Store.scan`."""
        check_prefix(prefix, limit)
        query = (
            f"SELECT key, value FROM {self._p}store WHERE key >= ? AND key > ? AND key < ? "
            "AND value IS NOT NULL AND (expires IS NULL OR expires > ?) ORDER BY key LIMIT ?"
        )
        # SQLite compares texts by their bytes, and no character is above the last.
        values = (prefix, after, prefix + chr(0x10FFFF), self._now(), limit)

        def look(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            try:
                return connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if not _is_missing(error):
                    raise
                return []

        return self._read(look)

    def now(self) -> float:
        """See `Store.now`: the clock of this host, which all who use the file are on."""
        return self._wall()

    def _answer(self, connection: sqlite3.Connection, operation: Operation) -> list[Any]:
        try:
            return [_Step(connection.cursor(), self._p, self._now()).carry_out(operation)]
        except sqlite3.OperationalError as error:
            if not _is_missing(error):
                raise
            return [None]

    def _with_tables(
        self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]
    ) -> T:
        try:
            return work(connection)
        except sqlite3.OperationalError as error:
            # The first statement already found no table, so nothing was done.
            if not _is_missing(error):
                raise
        for statement in _TABLES.format(p=self._p).split(";"):
            connection.execute(statement)
        return work(connection)


def _is_missing(error: sqlite3.OperationalError) -> bool:
    return str(error).startswith("no such table")


class _Step:
    """Carries out operations inside one transaction."""

    def __init__(self, cursor: sqlite3.Cursor, prefix: str, now: int) -> None:
        self._cursor = cursor
        self._p = prefix
        self._now = now

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._cursor.execute(statement.replace("~", self._p), values)

    def sweep(self) -> None:
        """Remove a few rows that are over."""
        over = self._run(
            "SELECT key FROM ~store WHERE expires <= ? LIMIT ?", self._now, SWEEP
        ).fetchall()
        for (key,) in over:
            self._remove(key)

    def carry_out(self, operation: Operation) -> Any:
        """Return the result of *operation*."""
        key = operation.key
        row = self._run(
            "SELECT value, size, expires FROM ~store WHERE key = ? "
            "AND (expires IS NULL OR expires > ?)", key, self._now
        ).fetchone()  # fmt: skip
        ttl = getattr(operation, "ttl", None)
        expires = None if ttl is None else self._now + micros(ttl)
        match operation:
            case Delete():
                self._remove(key)
                return row is not None
            case Add(member=member):
                return self._add(key, row, member, expires)
            case Get():
                return _value(key, row)
            case Put(value=value, only_if_absent=only_if_absent):
                _value(key, row)
                if only_if_absent and row is not None:
                    return False
                self._write(key, value, expires)
                return True
            case Swap(old=old, new=new):
                if _value(key, row) != old:
                    return False
                if new is None:
                    self._remove(key)
                else:
                    self._write(key, new, expires)
                return True
            case Increment(amount=amount):
                count = count_of(key, _value(key, row), amount)
                kept = row[2] if row is not None and expires is None else expires
                self._write(key, str(count).encode(), kept)
                return count

    def _add(self, key: str, row: Any, member: str, expires: int | None) -> int:
        if row is None:
            self._remove(key)  # what is over and not swept yet
            size, kept = 0, None
        elif row[0] is not None:
            raise wrong_kind(key, "a value")
        else:
            _, size, kept = row
        added = self._run(
            "INSERT INTO ~store_members VALUES (?, ?) ON CONFLICT DO NOTHING", key, member
        ).rowcount
        size += added
        self._run(
            "INSERT OR REPLACE INTO ~store VALUES (?, NULL, ?, ?)", key, size, expires or kept
        )
        return size

    def _write(self, key: str, value: bytes, expires: int | None) -> None:
        self._run("DELETE FROM ~store_members WHERE key = ?", key)
        self._run("INSERT OR REPLACE INTO ~store VALUES (?, ?, 0, ?)", key, value, expires)

    def _remove(self, key: str) -> None:
        self._run("DELETE FROM ~store_members WHERE key = ?", key)
        self._run("DELETE FROM ~store WHERE key = ?", key)


def _value(key: str, row: Any) -> bytes | None:
    if row is None:
        return None
    value: bytes | None = row[0]
    if value is None:
        raise wrong_kind(key, "a set")
    return value
