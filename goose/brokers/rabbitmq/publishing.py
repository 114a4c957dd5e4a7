"""Puts messages on the server and waits until they are stored there.

Callers of any thread hand over batches of parcels; the wire's thread writes them to one channel
in the order they came, at most a window of them unconfirmed at once, and the server's confirms
come back many at a time: so concurrent callers share them, and a lone one waits for nobody.
A caller waits for its own batch, never beyond its deadline, whatever the server does.

Every message is *mandatory*: one that no queue took is returned before it is confirmed, and its
batch fails. When the connection is lost, what was not confirmed is published again under the
same id on the next one, while somebody waits for it: that may leave one copy too many, and
nothing too few. What nobody waits for any more is not published again.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pika import BasicProperties, spec
from pika.frame import Header

from goose.brokers.rabbitmq.desk import Desk
from goose.brokers.rabbitmq.faults import CODES, Refused, Remedy, judge, translated
from goose.brokers.rabbitmq.options import Options
from goose.brokers.rabbitmq.wire import Wire
from goose.errors import BrokerError, BrokerUnavailable

logger = logging.getLogger("goose.brokers.rabbitmq")

_METHOD = struct.Struct(">BHIHHH")  # frame type, channel, size; class, method, ticket
_FRAME = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HHQH")  # class, weight, body size, flags
_PUBLISH = (60, 40, 0)
_MANDATORY = 1
_FLAGS = BasicProperties.FLAG_DELIVERY_MODE | BasicProperties.FLAG_MESSAGE_ID
_END = b"\xce"


class Parcel(NamedTuple):
    """A message on its way out."""

    exchange: str
    key: str
    id: str
    body: bytes
    headers: dict[str, Any] | None = None


class Batch:
    """What one caller waits for.

    Args:
        parcels: At least one.
        deadline: Monotonic instant after which nobody waits any more.
        on_done: Called on the wire's thread once all is decided.
    """

    __slots__ = ("began", "deadline", "done", "errors", "left", "on_done", "parcels", "stored")

    def __init__(
        self,
        parcels: Sequence[Parcel],
        deadline: float,
        on_done: Callable[[Batch], None] | None = None,
    ) -> None:
        self.parcels = parcels
        self.deadline = deadline
        self.began = time.monotonic()
        self.left = len(parcels)
        self.stored = 0
        self.errors: list[BrokerError] = []
        self.done = threading.Event()
        self.on_done = on_done

    def settle(self, error: BrokerError | None) -> None:
        """Note the fate of one parcel."""
        if error is None:
            self.stored += 1
        else:
            self.errors.append(error)
        self.left -= 1
        if self.left <= 0 and not self.done.is_set():
            self.done.set()
            if self.on_done is not None:
                self.on_done(self)

    def fail(self, error: BrokerError) -> None:
        """Give up whatever is left of it."""
        self.errors.append(error)
        self.left = 1
        self.settle(error)

    def check(self) -> None:
        """Raise if not all of it is stored."""
        if self.errors:
            error = self.errors[0]
            if self.stored and not isinstance(error, BrokerUnavailable):
                # "Refused" would mean that nothing was stored.
                raise BrokerUnavailable(f"a part of the jobs was refused: {error}") from error
            raise error


class Publisher:
    """The freight of a connection that publishes. `send`, `post` and `whisper` are thread-safe.

    Args:
        options: Deadlines and the window.
        on_return: Told the key and id of every message that no queue took.
        on_lost: Told of every lost connection.

    Attributes:
        desk: Asks and declares, on a channel of its own.
        kept: Says whether the connection is needed though nothing is on its way.
    """

    def __init__(
        self,
        options: Options,
        role: str,
        *,
        on_return: Callable[[str, str], None],
        on_lost: Callable[[BaseException], None],
    ) -> None:
        self._options = options
        self._on_return = on_return
        self.wire = Wire(options, role, self, on_lost)
        self.desk = Desk(options, self.wire)
        self.kept: Callable[[], bool] = lambda: False
        self._queue: deque[tuple[Batch, Parcel]] = deque()
        self._unconfirmed: dict[int, tuple[Batch, Parcel]] = {}
        self._returned: dict[str, BrokerError] = {}
        self._channel: Any = None
        self._number = 0
        self._connection: Any = None
        self._body_limit = 1 << 16
        self._opening = False

    # --- any thread ----------------------------------------------------------------------

    def send(self, parcels: Sequence[Parcel], deadline: float | None = None) -> None:
        """Return once all *parcels* are stored.

        Raises:
            BrokerUnavailable: Not before the deadline; what was stored is unknown.
            BrokerError: Refused, or no queue took them; nothing was stored.
        """
        if not parcels:
            return
        deadline = deadline or time.monotonic() + self._options.timeout
        batch = Batch(parcels, deadline)
        self.wire.call(lambda: self._accept(batch))
        if not batch.done.wait(max(0.0, deadline - time.monotonic())):
            batch.deadline = 0.0  # nobody waits any more
            raise BrokerUnavailable(
                f"RabbitMQ at {self._options.where} did not confirm {len(parcels)} jobs within "
                f"{self._options.timeout:g} s{self._reason()}"
            )
        batch.check()

    def _reason(self) -> str:
        if self.wire.blocked:
            return ": it is short of memory or disk space, and takes nothing for now"
        return f" ({self.wire.error})" if self.wire.error is not None else ""

    def post(self, parcels: Sequence[Parcel], on_done: Callable[[Batch], None]) -> None:
        """Publish *parcels* and have *on_done* called on the wire's thread once that is decided."""
        batch = Batch(parcels, time.monotonic() + self._options.timeout, on_done)
        self.wire.call(lambda: self._accept(batch))

    def whisper(self, parcel: Parcel) -> None:
        """Publish *parcel* to whoever listens, if there is a connection; nobody waits for it."""
        self.wire.call(lambda: self._whisper(parcel))

    # --- the wire's thread ---------------------------------------------------------------

    def waiting(self) -> bool:
        """See `Freight.waiting`."""
        return bool(self._queue or self._unconfirmed) or self.desk.waiting() or self.kept()

    def up(self, connection: Any) -> None:
        """See `Freight.up`."""
        self._connection = connection
        # What is negotiated, less the frame around it.
        self._body_limit = (connection.params.frame_max or (1 << 17)) - 8
        self._open()
        self.desk.up(connection)

    def _open(self) -> None:
        if self._connection is not None and not self._opening:
            self._opening = True
            self._connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._closed)
        channel.add_on_return_callback(self._was_returned)
        channel.confirm_delivery(self._confirmed, callback=lambda _: self._ready(channel))

    def _ready(self, channel: Any) -> None:
        self._opening = False
        self._channel = channel
        self._number = 0
        self._pump()

    def _closed(self, channel: Any, error: BaseException) -> None:
        """Go on over another channel; a message that the server chokes on fails its batch."""
        self._opening = False
        self._channel = None
        fault = judge(error)
        if fault.remedy is Remedy.REFUSED:
            refused = translated(error, self._options.where)
            unconfirmed, self._unconfirmed = self._unconfirmed, {}
            for batch, _ in unconfirmed.values():
                batch.settle(refused)
        self._take_back()
        if self._connection is not None and self._connection.is_open:
            self._open()

    def down(self, error: BaseException) -> None:
        """See `Freight.down`."""
        self._connection = self._channel = None
        self._opening = False
        self._take_back()
        # A server that is away may be back before anybody's deadline; not one that refuses.
        patience = self._options.connect_timeout
        if judge(error).remedy is Remedy.REFUSED:
            patience = 0.0
        now = time.monotonic()
        known = translated(error, self._options.where)
        kept = deque(item for item in self._queue if now - item[0].began < patience)
        for batch in {id(b): b for b, _ in self._queue if now - b.began >= patience}.values():
            batch.fail(known)
        self._queue = kept
        self.desk.down(error, patience)

    def unblocked(self) -> None:
        """See `Freight.unblocked`."""
        self._pump()

    def _take_back(self) -> None:
        """Put what was not confirmed at the head of the line again, in its order."""
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        self._returned.clear()
        for batch, parcel in unconfirmed.values():
            if not batch.done.is_set():
                # One copy too many, should the server have had it; the log is the only witness.
                logger.info(
                    "job %s was on its way and is published again",
                    parcel.id,
                    extra={"job_id": parcel.id, "published_again": True},
                )
        self._queue.extendleft(reversed(list(unconfirmed.values())))

    def _accept(self, batch: Batch) -> None:
        self._queue.extend([(batch, parcel) for parcel in batch.parcels])
        self._pump()

    def _pump(self) -> None:
        """Write what there is, as far as the window goes."""
        # Nothing is written that the server would not read: so it can still be taken back.
        if self._channel is None or self.wire.blocked:
            return
        queue, unconfirmed = self._queue, self._unconfirmed
        room = self._options.window - len(unconfirmed)
        out: list[bytes] = []
        now = time.monotonic()
        while queue and room > 0:
            item = queue.popleft()
            batch, parcel = item
            if batch.done.is_set():
                continue
            if batch.deadline < now:
                batch.fail(BrokerUnavailable("nothing was confirmed before the deadline"))
                continue
            self._number += 1
            unconfirmed[self._number] = item
            out.append(marshal(self._channel.channel_number, parcel, self._body_limit, _MANDATORY))
            room -= 1
        if out:
            self._write(out)

    def _write(self, frames: list[bytes]) -> None:
        # The one way to hand the driver bytes; confirms are counted here, not there.
        self._connection._output_marshaled_frames(frames)  # noqa: SLF001

    def _whisper(self, parcel: Parcel) -> None:
        if self._channel is not None and not self.wire.blocked:
            self._number += 1  # it is confirmed like the others
            self._write([marshal(self._channel.channel_number, parcel, self._body_limit, 0)])

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        tag = method.delivery_tag
        error = None
        if isinstance(method, spec.Basic.Nack):
            error = Refused(
                f"RabbitMQ at {self._options.where} did not take the job: its queue is full, or "
                "has no leader"
            )
        if method.multiple:
            numbers = []
            for number in self._unconfirmed:  # in their order
                if number > tag:
                    break
                numbers.append(number)
        else:
            numbers = [tag]
        for number in numbers:
            item = self._unconfirmed.pop(number, None)
            if item is not None:
                batch, parcel = item
                returned = self._returned.pop(parcel.id, None) if self._returned else None
                batch.settle(error or returned)
        if self._queue:
            self._pump()

    def _was_returned(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        known = CODES.get(method.reply_code)
        advice = known.advice if known else "no queue took the job"
        self._returned[properties.message_id] = Refused(
            f"RabbitMQ at {self._options.where}: {advice} "
            f"({method.reply_code} {method.reply_text}, {method.routing_key!r})"
        )
        logger.error("no queue took job %s for %r", properties.message_id, method.routing_key)
        self._on_return(method.routing_key, properties.message_id)


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
