"""One channel that publishes, and what the server has not confirmed on it yet.

A server works on each channel by itself, in order, so several channels publish more than one
where a server has processors to spare. The parcels of one batch go over one channel.

Messages are numbered as the server counts them, and a confirm names the highest number it is
for. A message that no queue took comes back before it is confirmed; then its batch fails.
"""

from __future__ import annotations

import itertools
import logging
import math
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from pika import BasicProperties, spec
from pika.frame import Header

from goose.brokers.rabbitmq.faults import CODES, Refused
from goose.errors import BrokerError, BrokerUnavailable

logger = logging.getLogger("goose.brokers.rabbitmq")

_METHOD = struct.Struct(">BHIHHH")  # frame type, channel, size; class, method, ticket
_FRAME = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HHQH")  # class, weight, body size, flags
_PUBLISH = (60, 40, 0)
MANDATORY = 1
RENEW = 0.5
"""Seconds: a channel that refuses something is replaced no more often, as a queue may just be full, and
is given no more for so long, so that what is on its way can be heard of before."""
_FLAGS = BasicProperties.FLAG_DELIVERY_MODE | BasicProperties.FLAG_MESSAGE_ID
_END = b"\xce"


class Parcel(NamedTuple):
    """A message on its way out."""

    exchange: str
    key: str
    id: str
    body: bytes
    headers: dict[str, Any] | None = None


class Waiting(Protocol):
    """Whoever waits for parcels."""

    doubtful: bool
    """Whether some of them were sent again."""

    def settle(self, error: BrokerError | None) -> None:
        """Note the fate of one of them."""
        ...


Item = tuple[Any, Parcel]
"""A parcel, behind whoever is `Waiting` for it."""


class Outlet:
    """A channel. For the wire's thread.

    Args:
        where: What the server is called.
        on_ready: Called when the channel can be used.
        on_room: Called when something was confirmed.
        on_closed: Told of the channel's end, with the error.
        on_return: Told the key and id of every message that no queue took.
    """

    def __init__(
        self,
        where: str,
        *,
        on_ready: Callable[[], object],
        on_room: Callable[[], object],
        on_closed: Callable[[Outlet, BaseException], object],
        on_return: Callable[[str, str], object],
    ) -> None:
        self._where = where
        self._on_ready = on_ready
        self._on_room = on_room
        self._on_closed = on_closed
        self._on_return = on_return
        self._unconfirmed: dict[int, Item] = {}
        self._returned: dict[str, BrokerError] = {}
        self._channel: Any = None
        self._opening = False
        self._number = 0
        self._refusing = False
        self._renewed_mono = -math.inf

    @property
    def ready(self) -> bool:
        """Whether messages can be given to it."""
        # What is on its way is heard of first, but who says nothing must not hold up the rest.
        resting = self._refusing and time.monotonic() - self._renewed_mono < RENEW
        return self._channel is not None and not resting

    def open(self, connection: Any) -> None:
        """Open the channel, if it is not open or about to be."""
        if self._channel is None and not self._opening:
            self._opening = True
            connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._closed)
        channel.add_on_return_callback(self._was_returned)
        channel.confirm_delivery(self._answered, callback=lambda _: self._begin(channel))

    def _begin(self, channel: Any) -> None:
        self._opening = False
        self._channel = channel
        self._number = 0
        channel.connection.await_confirms(channel.channel_number, self._stored)
        self._on_ready()

    def _closed(self, _channel: Any, error: BaseException) -> None:
        self.lose()
        self._on_closed(self, error)

    def lose(self) -> None:
        """Note that there is no channel any more."""
        self._channel = None
        self._opening = self._refusing = False

    def take_back(self) -> list[Item]:
        """Return, and no longer know, what was not confirmed, in its order."""
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        self._returned.clear()
        return list(unconfirmed.values())

    def carry(self, item: Item, body_limit: int) -> bytes:
        """Return the frames of a parcel that is to be confirmed."""
        frames = marshal(self._channel.channel_number, item[1], body_limit, MANDATORY)
        self._number += 1
        self._unconfirmed[self._number] = item
        return frames

    def whisper(self, parcel: Parcel, body_limit: int) -> bytes:
        """Return the frames of a parcel for which nobody waits."""
        self._number += 1  # it is confirmed like the others
        return marshal(self._channel.channel_number, parcel, body_limit, 0)

    @property
    def unconfirmed(self) -> int:
        """How many parcels are under way."""
        return len(self._unconfirmed)

    def _answered(self, frame: Any) -> None:
        # Confirms are read by the connection; what comes this way is a refusal, or a rarity.
        error = None
        if isinstance(frame.method, spec.Basic.Nack):
            error = Refused(
                f"RabbitMQ at {self._where} did not take the job: its queue is full, or has no leader"
            )
            now = time.monotonic()
            if now - self._renewed_mono >= RENEW:
                self._renewed_mono, self._refusing = now, True
        self._settle(frame.method.delivery_tag, frame.method.multiple, error)

    def _renew(self) -> None:
        """Go on over another channel: one that first met a queue while it had no leader refuses for ever.

        Source: ``pick_server`` in rabbit_fifo_client.erl, by which a channel keeps to the member that is dead.
        """
        channel = self._channel
        self.lose()
        if channel is not None and channel.is_open:
            channel.close()  # and when it is, another one is opened

    def _stored(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple, None)

    def _settle(self, tag: int, multiple: bool, error: BrokerError | None) -> None:
        numbers = [tag]
        if multiple:
            # In their order.
            numbers = list(itertools.takewhile(lambda number: number <= tag, self._unconfirmed))
        for number in numbers:
            item = self._unconfirmed.pop(number, None)
            if item is not None:
                batch, parcel = item
                told = error
                if self._returned:
                    told = error or self._returned.pop(parcel.id, None)
                if told is not None and batch.doubtful:
                    told = in_doubt(told)
                batch.settle(told)
        if self._refusing and not self._unconfirmed:
            self._renew()
        self._on_room()

    def _was_returned(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        known = CODES.get(method.reply_code)
        advice = known.advice if known else "no queue took the job"
        self._returned[properties.message_id] = Refused(
            f"RabbitMQ at {self._where}: {advice} "
            f"({method.reply_code} {method.reply_text}, {method.routing_key!r})"
        )
        logger.error("no queue took job %s for %r", properties.message_id, method.routing_key)
        self._on_return(method.routing_key, properties.message_id)


def in_doubt(error: BrokerError) -> BrokerUnavailable:
    """Return what to tell of a parcel that was sent again and refused with *error*: a copy may be stored."""
    if isinstance(error, BrokerUnavailable):
        return error
    return BrokerUnavailable(f"jobs were sent again, and then this came: {error}")


def marshal(channel: int, parcel: Parcel, body_limit: int, mandatory: int) -> bytes:
    """Return the frames of a persistent message.

    The driver would make three objects and a dictionary of each; this is the one place that is
    passed for every job.
    """
    exchange, key = parcel.exchange.encode(), parcel.key.encode()
    identity, body = parcel.id.encode(), parcel.body
    size = 9 + len(exchange) + len(key)
    head = _METHOD.pack(1, channel, size, *_PUBLISH)
    method = b"%b%c%b%c%b%c%b" % (head, len(exchange), exchange, len(key), key, mandatory, _END)
    if parcel.headers is None:
        content = b"%b\x02%c%b" % (
            _CONTENT.pack(60, 0, len(body), _FLAGS),
            len(identity),
            identity,
        )
        header = b"%b%b%b" % (_FRAME.pack(2, channel, len(content)), content, _END)
    else:
        properties = BasicProperties(
            delivery_mode=2, message_id=parcel.id, headers=dict(parcel.headers)
        )
        header = Header(channel, len(body), properties).marshal()
    if len(body) <= body_limit:
        if not body:
            return method + header
        return b"%b%b%b%b%b" % (method, header, _FRAME.pack(3, channel, len(body)), body, _END)
    parts = [method, header]
    for start in range(0, len(body), body_limit):
        part = body[start : start + body_limit]
        parts += (_FRAME.pack(3, channel, len(part)), part, _END)
    return b"".join(parts)
