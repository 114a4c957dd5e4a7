"""Between rows and the contract's values; the writing of jobs, shared by every way in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, cast

from goose.brokers.base import Delivery, Session
from goose.brokers.sqlite.line import Line
from goose.brokers.sqlite.schema import READY, SCHEDULED
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


def store(
    cursor: sqlite3.Cursor, statements: Statements, envelopes: Sequence[Envelope], now: int
) -> None:
    """Insert *envelopes*, leaving out those whose id is stored; *now* in microseconds."""
    line = Line(cursor, statements, now)
    values: list[Any] = []
    for envelope in envelopes:
        id_, queue, body, delay, due_at, group = envelope
        at = now if delay is None and due_at is None else due(envelope, now)
        if at > now:
            state, rank = SCHEDULED, at
        else:
            state, rank = READY, line.back(queue, group)
        values += (id_, queue, state, rank, now, group, body)
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
