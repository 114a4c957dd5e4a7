"""`PostgresStore`: values in two tables of the database, beside the jobs or in another one.

Every `apply` is one call of a function in the database (``sql/schema_2.sql``), so one statement
and one round trip, also behind a pooler; what only reads is a plain query, which waits for
nobody. The clock is the server's. What has expired is removed by the calls that come after, a
little in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from goose.brokers.postgres.access import Access
from goose.brokers.postgres.arrays import blobs, numbers, texts
from goose.brokers.postgres.connections import Connection
from goose.brokers.postgres.rows import micros
from goose.brokers.postgres.statements import statement
from goose.errors import StoreError
from goose.stores.base import (
    MAX_COUNT,
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
    wrong_kind,
)

_OTHER_KIND = "GO001"
"""How the function in the database says that a key holds something of another kind."""


class PostgresStore(Access, Verbs):
    """A store in a database, as durable as that is told to be. Thread-safe, through every fork.

    Nothing is connected before the first use.

    Args:
        place: As for `goose.brokers.postgres.PostgresBroker`, with the same options.
        given: Options, as in the query of the URL, and before it.

    Raises:
        ConfigError: The URL or an option is unknown or nonsense.
    """

    needs = 2

    def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
        """See `Store.apply`; one statement."""
        group = check(operations)
        if all(isinstance(operation, Get) for operation in operations):
            return self._read([operation.key for operation in operations])
        query = statement("keep", self.options.schema)
        values = _wire(group, operations)

        def call(connection: Connection) -> list[bytes | None]:
            cursor = connection.cursor(binary=True)
            try:
                cursor.execute(query, values)
            except psycopg.Error as error:
                if error.sqlstate == _OTHER_KIND:
                    raise _refusal(error) from None
                raise
            answers: list[bytes | None]
            [(answers,)] = cursor.fetchall()
            return answers

        answers = self._call(call)
        return [_result(*pair) for pair in zip(operations, answers, strict=True)]

    def _read(self, keys: Sequence[str]) -> list[bytes | None]:
        found: dict[str, bytes | None] = dict(self._rows("kept", {"keys": texts(keys)}, again=True))
        for key, value in found.items():
            if value is None:
                raise wrong_kind(key, "a set")
        return [found.get(key) for key in keys]

    def scan(
        self, prefix: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[tuple[str, bytes]]:
        """See `Store.scan`."""
        check_prefix(prefix, limit)
        # The tables compare texts by their bytes, and no character is above the last.
        end = prefix + chr(0x10FFFF)
        values = {"prefix": prefix, "end": end, "after": after, "limit": limit}
        return [(key, value) for key, value in self._rows("scan", values, again=True)]

    def now(self) -> float:
        """See `Store.now`: the server's clock."""
        [(now,)] = self._rows("clock", {}, again=True)
        return float(now / 1e6)


def _wire(group: str, operations: Sequence[Operation]) -> dict[str, Any]:
    """Return *operations* as the function in the database takes them."""
    ttls = [getattr(operation, "ttl", None) for operation in operations]
    return {
        "group": group,
        "kinds": texts([_kind(operation) for operation in operations]),
        "keys": texts([operation.key for operation in operations]),
        "olds": blobs([getattr(operation, "old", None) for operation in operations]),
        "news": blobs([_new(operation) for operation in operations]),
        "words": texts([_word(operation) for operation in operations]),
        "ttls": numbers([None if ttl is None else micros(ttl) for ttl in ttls]),
    }


def _kind(operation: Operation) -> str:
    absent = isinstance(operation, Put) and operation.only_if_absent
    return "put_if_absent" if absent else type(operation).__name__.lower()


def _new(operation: Operation) -> bytes | None:
    match operation:
        case Put(value=value):
            return value
        case Swap(new=new):
            return new
        case _:
            return None


def _word(operation: Operation) -> str | None:
    match operation:
        case Add(member=member):
            return member
        case Increment(amount=amount):
            return str(amount)
        case _:
            return None


def _result(operation: Operation, answer: bytes | None) -> Any:
    match operation:
        case Get():
            return answer
        case Add() | Increment():
            return int(answer or b"0")
        case Put() | Swap() | Delete():
            return bool(answer)


def _refusal(error: psycopg.Error) -> StoreError:
    key, there = error.diag.message_detail or "", error.diag.message_primary or ""
    if there == "too much":
        return StoreError(f"{key}: a counter goes no further than {MAX_COUNT:,} from 0")
    return wrong_kind(key, there)
