"""Between the contract's values and the statements' parameters and rows."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, cast

from goose.brokers.base import Delivery, Session
from goose.brokers.postgres.arrays import Array, blobs, numbers, texts
from goose.jobs import Envelope


def micros(seconds: float) -> int:
    """Return *seconds* in whole microseconds."""
    return round(seconds * 1e6)


def new_receipt() -> int:
    """Return a number that no other loan of the same job has, also after a crash of the server."""
    return secrets.randbits(63)


def named(session: Session) -> dict[str, Any]:
    """Return the parameters that name *session*."""
    return {"session": session.id, "epoch": session.epoch}


def stored(envelopes: Sequence[Envelope]) -> dict[str, Array]:
    """Return the parameters that hold *envelopes* and when they are due."""
    return {
        **bodies(envelopes),
        "delays": numbers([None if e.delay is None else micros(e.delay) for e in envelopes]),
        "dues": numbers([None if e.due_at is None else micros(e.due_at) for e in envelopes]),
    }


def bodies(envelopes: Sequence[Envelope]) -> dict[str, Array]:
    """Return the parameters that hold *envelopes*, but for when they are due."""
    return {
        "ids": texts([envelope.id for envelope in envelopes]),
        "queues": texts([envelope.queue for envelope in envelopes]),
        "groups": texts([envelope.group for envelope in envelopes]),
        "bodies": blobs([envelope.body for envelope in envelopes]),
    }


def loans(deliveries: Sequence[Delivery]) -> dict[str, Any]:
    """Return the parameters that name loans."""
    return {
        "ids": texts([delivery.envelope.id for delivery in deliveries]),
        "receipts": numbers([receipt_of(delivery)[1] for delivery in deliveries]),
        "count": len(deliveries),
    }


def receipt_of(delivery: Delivery) -> tuple[str, int]:
    """Return the job and the number of a loan this broker made."""
    return cast("tuple[str, int]", delivery.receipt)


def delivered(
    rows: Iterable[tuple[Any, ...]], receipt: int, session: Session, *, orphans: bool = False
) -> list[Delivery]:
    """Return *rows* (id, queue, grp, body, at, rank, and of orphans who held them) as loans."""
    return [
        Delivery(
            Envelope(row[0], row[1], row[3], group=row[2]),
            (row[0], receipt),
            session,
            row[4] / 1e6,
            Session(row[6], row[7]) if orphans and row[6] is not None else None,
        )
        for row in rows
    ]
