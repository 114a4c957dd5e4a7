"""Has what a lane consumes from declared, on the lane's own channel, each step after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from goose.brokers.rabbitmq import ladder
from goose.brokers.rabbitmq.names import Names


def make_ready(channel: Any, names: Names, queue: str, then: Callable[[], None]) -> None:
    """Declare the queue of ready jobs and bind it to where delayed ones arrive; *then* go on.

    For the wire's thread. A server that refuses closes the channel, and *then* is not called.
    """
    name = names.ready(queue)

    def bind(_: Any) -> None:
        channel.queue_bind(name, names.deliver, ladder.arrival(queue), callback=lambda _: then())

    channel.exchange_declare(
        names.deliver,
        "topic",
        durable=True,
        callback=lambda _: channel.queue_declare(
            name, durable=True, arguments=names.ready_arguments(), callback=bind
        ),
    )
