"""Looks into a queue, for people: takes jobs out, shows them, and puts back what is not wanted.

AMQP has no other way. While somebody looks, nobody else has these jobs, so queues that workers do
not consume are looked at by one at a time, whose sign is a queue that a single connection may have
(an exclusive one). He knows how many are there, waits until he has them all, for a quorum queue that
was on disk is slower than its own answers, and in the end until all are back. A connection of its
own, closed afterwards, makes sure that everything goes back, at the front and in its order, whatever
happens.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from goose.brokers.rabbitmq.faults import translated
from goose.brokers.rabbitmq.names import Names
from goose.brokers.rabbitmq.options import Options
from goose.brokers.rabbitmq.parcels import id_of
from goose.brokers.rabbitmq.words import UNSTARTED, short, spoken

QUIET = 1.0
"""Seconds without another job after which a queue is taken to have no more."""
QUIET_SHARED = 0.2
"""The same where workers may have taken the rest."""
AGAIN = 0.02
"""Seconds before somebody else's look is asked for again."""
_HEARTBEAT = 4
"""Seconds: the server says something at least every two, also while there is nothing to say."""
_TAKEN, _GONE = 405, 404


class Seen(NamedTuple):
    """A message that is being looked at."""

    tag: int
    id: str
    headers: dict[str, Any]
    body: bytes


class Browser:
    """A connection to look with; a context manager."""

    def __init__(self, options: Options, names: Names) -> None:
        self._options = options
        self._names = names
        self._connection: Any = None

    def __enter__(self) -> Self:
        options = self._options
        attempts = [
            pika.ConnectionParameters(
                host,
                port,
                options.vhost,
                pika.PlainCredentials(options.username, options.password),
                heartbeat=_HEARTBEAT,
                blocked_connection_timeout=options.timeout,
                socket_timeout=options.connect_timeout,
                stack_timeout=options.connect_timeout,
                connection_attempts=1,
                ssl_options=pika.SSLOptions(options.context(), host) if options.tls else None,
            )
            for host, port in options.hosts
        ]
        try:
            self._connection = pika.BlockingConnection(attempts)
        except (AMQPError, OSError) as error:
            raise translated(error, options.where) from error
        self._watch(-1, -1)
        return self

    def _watch(self, before: int, last: int) -> None:
        """Give up a server that is silent for ``timeout``, 2 s at least, or up to half as long again.

        The driver would wait for heartbeats, and for longer than their name says. Silence counts while
        somebody listens: of two looks in a row the connection is read in between.
        """
        driver = self._connection._impl  # noqa: SLF001 - which has no public way
        # Longer than a queue may rightly be quiet.
        now, seconds = driver.bytes_received, max(self._options.timeout, 2 * QUIET)
        if now == last == before:
            driver._terminate_stream(TimeoutError(f"no answer for {seconds:g} s"))  # noqa: SLF001
        else:
            driver._adapter_call_later(seconds / 2, lambda: self._watch(last, now))  # noqa: SLF001

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection.is_open:
            # Whatever comes of it: the server gives everything back when the connection is gone.
            with contextlib.suppress(AMQPError, OSError):
                self._connection.close()
        self._connection = None
        if isinstance(error, AMQPError | OSError):
            raise translated(error, self._options.where) from error

    def look(
        self,
        name: str,
        choose: Callable[[Sequence[Seen]], Sequence[Seen]],
        *,
        limit: int,
        shared: bool = False,
    ) -> Sequence[Seen]:
        """Show up to *limit* of the queue's messages to *choose*, and remove those it returns.

        Args:
            name: Of a queue; one that does not exist is empty.
            choose: Called once, while nobody else has them.
            limit: Messages, at least 1.
            shared: Whether workers take from it meanwhile.

        Returns:
            All that was seen.
        """
        assert self._connection is not None
        seen: list[Seen] = []
        channel, stored = self._begin(name, seen, limit, shared)
        if channel is None:
            return []
        heard, quiet = time.monotonic(), QUIET_SHARED if shared else QUIET
        while len(seen) < min(stored, limit) and time.monotonic() - heard < quiet:
            before = len(seen)
            self._connection.process_data_events(time_limit=0.05)
            if len(seen) > before:
                heard = time.monotonic()
        seen = seen[:limit]
        chosen = choose(seen)
        for message in chosen:
            channel.basic_ack(message.tag)
        if shared:
            self._excuse(channel, seen)
        else:
            self._put_back(channel, name, len(chosen) < len(seen), stored - len(chosen))
            channel.queue_delete(self._names.sign(name))
        channel.close()
        return seen

    def _put_back(self, channel: Any, name: str, some: bool, wanted: int) -> None:
        """Give back what was only looked at, and wait until the queue has it.

        A quorum queue puts back what a closed channel had one by one, later: who looks next would see
        a part of it, or nothing.
        """
        for consumer in channel.consumer_tags:
            channel.basic_cancel(consumer)
        if some:
            channel.basic_nack(0, multiple=True, requeue=True)
        deadline = time.monotonic() + QUIET
        while (
            channel.queue_declare(name, passive=True).method.message_count < wanted
            and time.monotonic() < deadline
        ):
            time.sleep(AGAIN / 4)

    def _begin(self, name: str, seen: list[Seen], limit: int, shared: bool) -> tuple[Any, int]:
        """Return a channel that consumes, and how many messages there were before; None if no queue."""
        assert self._connection is not None

        def take(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            headers = properties.headers or {}
            seen.append(Seen(method.delivery_tag, id_of(properties), headers, body))

        deadline = time.monotonic() + self._options.timeout
        while True:
            channel = self._connection.channel()
            try:
                channel.queue_declare(name, passive=True)
                if not shared:
                    kind = {"x-queue-type": "classic"}
                    channel.queue_declare(self._names.sign(name), exclusive=True, arguments=kind)
                stored = channel.queue_declare(name, passive=True).method.message_count
                channel.basic_qos(prefetch_count=min(limit, 0xFFFF))
                channel.basic_consume(name, take)
                return channel, stored
            except ChannelClosedByBroker as error:
                if error.reply_code == _GONE:
                    return None, 0
                if error.reply_code != _TAKEN or time.monotonic() > deadline:
                    raise translated(error, self._options.where) from error
                time.sleep(AGAIN)

    def _excuse(self, channel: Any, seen: Sequence[Seen]) -> None:
        """Tell workers that these come back though nothing happened to them."""
        channel.exchange_declare(self._names.words, "fanout", durable=True)
        said = spoken("", {short(message.id): UNSTARTED for message in seen})
        properties = pika.BasicProperties(message_id=str(uuid.uuid4()))
        channel.basic_publish(self._names.words, "", said, properties)
