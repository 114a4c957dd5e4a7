"""The stored form of jobs, and deliveries made from replies.

A job is stored as ``[since]:[bytes of its group]:[group]body``; the usual one without group
as ``::body``. *since* stands only before a scheduled job, in microseconds, put there by the
server. A receipt is ``<lent at>.<number>:<ready at>``, instants in microseconds of 16 digits
and a number of 4, with a ``!`` after it if the job had been put first, or a ``~`` if it was lent in
its group's turn. The server sees to it
that no two calls lend at the same instant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from goose.brokers.base import Delivery, Session
from goose.jobs import Envelope


def pack(envelope: Envelope) -> bytes:
    """Return the stored form of *envelope*, without its due time."""
    if envelope.group is None:
        return b"::" + envelope.body
    group = envelope.group.encode("utf-8", "surrogatepass")
    return b":%d:%b%b" % (len(group), group, envelope.body)


def unpack(id: str, queue: str, value: bytes) -> Envelope:  # noqa: A002 - the field's name
    """Return the envelope that is stored as *value*."""
    if value[:2] == b"::":
        return Envelope(id, queue, value[2:])
    _, _, rest = value.partition(b":")
    length, _, rest = rest.partition(b":")
    if not length:
        return Envelope(id, queue, rest)
    end = int(length)
    return Envelope(id, queue, rest[end:], group=rest[:end].decode("utf-8", "surrogatepass"))


def when(envelope: Envelope) -> bytes:
    """Return when *envelope* is due, as the scripts understand it."""
    if envelope.delay is not None:
        return b"+%d" % micros(envelope.delay) if envelope.delay > 0 else b""
    return b"" if envelope.due_at is None else b"=%d" % micros(envelope.due_at)


def micros(seconds: float) -> int:
    """Return *seconds* in microseconds, rounded up so that nothing is early."""
    return -int(-seconds * 1e6 // 1)


def delivered(reply: Sequence[bytes], queues: Sequence[str], session: Session) -> list[Delivery]:
    """Return what dequeue.lua lent."""
    lent: list[Delivery] = []
    parts = iter(reply)
    next(parts)
    for number, name, receipt, value in zip(parts, parts, parts, parts, strict=True):
        envelope = unpack(text(name), queues[int(number) - 1], value)
        lent.append(Delivery(envelope, receipt, session, ready_at(receipt)))
    return lent


def text(name: bytes) -> str:
    """Return *name* as text; bytes that are none, from other programs, come back as they are."""
    return name.decode("utf-8", "surrogateescape")


def ready_at(receipt: bytes) -> float:
    """Return the epoch seconds at which the job of *receipt* became ready."""
    return int(receipt[22:38]) / 1e6


def loans(pairs: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str, bytes]]:
    """Return queue, id and receipt of each field and value of a session's held hash."""
    found: list[tuple[str, str, bytes]] = []
    for field, receipt in pairs:
        queue, _, name = text(field).partition("/")
        found.append((queue, name, receipt))
    return found
