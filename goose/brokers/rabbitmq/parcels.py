"""What a job looks like as a message.

The body is the body, the message id the job's id, and that is all for most jobs. The headers
below are added where there is something to say; those the server adds (``x-death`` and its
kin) end with the message that carried them, since whatever stores a job again writes its
headers anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from goose.brokers.rabbitmq.confirms import Parcel
from goose.brokers.rabbitmq.ladder import Climb
from goose.brokers.rabbitmq.words import HEADER
from goose.jobs import Envelope

GROUP = "goose-group"
ID = "goose-id"
"""The whole id, where it is longer than a message id may be."""
QUEUE = "goose-queue"
"""Where a delayed job goes whose delay is longer than the ladder."""
LEFT = "goose-left"
"""Seconds of its delay that are left when it comes down from there, as text."""
DIED = "goose-died"
"""For dead jobs: when they died, in epoch seconds, as text."""
_KEPT = (GROUP, ID, HEADER)
_LONGEST_ID = 255


def parcel(
    envelope: Envelope, exchange: str, key: str, words: str | None = None, **more: str
) -> Parcel:
    """Return *envelope* as a message to *exchange* with that routing *key*."""
    identity = envelope.id
    headers: dict[str, Any] | None = None
    if envelope.group is not None or words is not None or more or len(identity) > _LONGEST_ID // 4:
        headers = {name.replace("_", "-"): text for name, text in more.items()}
        if envelope.group is not None:
            headers[GROUP] = envelope.group
        if words is not None:
            headers[HEADER] = words
        raw = identity.encode()
        if len(raw) > _LONGEST_ID:
            headers[ID] = identity
            identity = raw[:_LONGEST_ID].decode(errors="ignore")
    return Parcel(exchange, key, identity, envelope.body, headers or None)


def delay_of(envelope: Envelope) -> float:
    """Return the seconds until *envelope* is due; an instant is by this machine's clock."""
    if envelope.delay is not None:
        return envelope.delay
    if envelope.due_at is not None:
        return envelope.due_at - time.time()
    return 0.0


def aloft(envelope: Envelope, way: Climb, exchange: str, words: str | None) -> Parcel:
    """Return *envelope* as a message on its way up the ladder."""
    more = {"goose_queue": envelope.queue, "goose_left": repr(way.left)} if way.left else {}
    return parcel(envelope, exchange, way.key(envelope.queue), words, **more)


def kept_headers(headers: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return those of a message's headers that belong to the job."""
    return {name: headers[name] for name in _KEPT if name in headers} or None


def id_of(properties: Any) -> str:
    """Return the job's id."""
    headers = properties.headers or {}
    return str(headers.get(ID) or properties.message_id or "")
