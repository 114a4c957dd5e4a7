"""Between rows and the contract's values; the writing of jobs, shared by every way in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, cast

from goose.brokers.base import Delivery, Session
from goose.brokers.sqlite.schema import FRESH, READY, SCHEDULED
from goose.brokers.sqlite.statements import Statements
from goose.jobs import Envelope

_CHUNKS = (128, 32, 8, 1)
"""Rows in one INSERT. Few sizes, so that each stays compiled; few steps, see `statements`."""


def micros(seconds: float) -> int:
    """Return *seconds* in whole microseconds."""
    return round(seconds * 1e6)


def due(envelope: Envelope, now: int) -> int:
    """Return when *envelope* is due, in microseconds; *now* or before means ready."""
    if envelope.delay is not None:
        return now + micros(envelope.delay)
    return now if envelope.due_at is None else micros(envelope.due_at)


class Line:
    """Gives out places at the back of queues, within one transaction."""

    def __init__(self, cursor: sqlite3.Cursor, statements: Statements, now: int) -> None:
        self._cursor = cursor
        self._statement = statements.last_rank
        self._now = now
        self._last: dict[str, int] = {}

    def back(self, queue: str) -> int:
        """Return a rank behind every ready job of *queue*; equal for jobs new in this transaction."""
        rank = self._last.get(queue)
        if rank is None:
            (last,) = self._cursor.execute(self._statement, (queue,)).fetchone()
            # The wall clock may have gone back since the last job came.
            rank = self._last[queue] = self._now if last is None else max(self._now, last + 1)
        return rank

    def new_back(self, queue: str) -> int:
        """Return a rank behind all that `back` gave out so far for *queue*.

        For rows that exist already: their ``seq`` says nothing of when they came.
        """
        rank = self.back(queue)
        self._last[queue] = rank + 1
        return rank


def store(
    cursor: sqlite3.Cursor, statements: Statements, envelopes: Sequence[Envelope], now: int
) -> None:
    """Insert *envelopes*, leaving out those whose id is stored; *now* in microseconds."""
    line = Line(cursor, statements, now)
    values: list[Any] = []
    for envelope in envelopes:
        at = due(envelope, now)
        if at > now:
            state, rank = SCHEDULED, at
        else:
            state, rank = READY, line.back(envelope.queue)
        values += (envelope.id, envelope.queue, state, rank, now, envelope.group, envelope.body)
    position, left = 0, len(envelopes)
    for size in _CHUNKS:
        if left < size:
            continue
        rows = ",".join(["(?,?,?,?,?,?,?)"] * size)
        statement = f"{statements.store}{rows} ON CONFLICT (id) WHERE state < 4 DO NOTHING"
        while left >= size:
            cursor.execute(statement, values[position : position + 7 * size])
            position += 7 * size
            left -= size


def store_fresh(
    connection: sqlite3.Connection, statements: Statements, job: Envelope, now: int
) -> None:
    """Insert one job that is ready, for the next one to put in line: the usual call by far."""
    connection.execute(statements.store_fresh, (job.id, job.queue, now, job.group, job.body))


def has_fresh(cursor: sqlite3.Cursor, statements: Statements) -> bool:
    """Say whether there are jobs that are not in line yet."""
    newest = cursor.execute(statements.newest).fetchone()
    return newest is not None and newest[0] == FRESH


def place_fresh(cursor: sqlite3.Cursor, statements: Statements) -> None:
    """Put fresh jobs in line, each at the back of its queue, but drop those stored already.

    Every transaction that adds, takes or removes jobs does so first. Else a job could be taken
    before those that came earlier; one stored again while its first copy runs would be found
    out too late; and other rows would come after fresh ones, where nobody looks for them.
    """
    if not has_fresh(cursor, statements):
        return
    last = cursor.execute(statements.last_placed).fetchone() or (0,)
    cursor.execute(statements.place, last)
    cursor.execute(statements.drop_doubles, last)


def deliver(
    rows: Iterable[tuple[Any, ...]], receipt: int, session: Session, orphans: bool = False
) -> list[Delivery]:
    """Return *rows* (seq, id, queue, grp, body, at, old receipt …) as loans to *session*."""
    return [
        Delivery(
            Envelope(row[1], row[2], row[4], None, None, row[3]),
            (row[0], receipt),
            session,
            row[5] / 1e6,
            Session(row[7], row[8]) if orphans and row[7] is not None else None,
        )
        for row in rows
    ]


def receipt_of(delivery: Delivery) -> tuple[int, int]:
    """Return the row and the number of a loan this broker made."""
    return cast("tuple[int, int]", delivery.receipt)


def loans(deliveries: Iterable[Delivery]) -> str:
    """Return the receipts of *deliveries* as the JSON the settling statements take."""
    pairs = ",".join([f'"{seq}":{receipt}' for seq, receipt in map(receipt_of, deliveries)])
    return "{" + pairs + "}"


def numbers(rows: Iterable[tuple[Any, ...]]) -> str:
    """Return the first column of *rows*, whole numbers, as a JSON array."""
    return "[" + ",".join([str(row[0]) for row in rows]) + "]"
