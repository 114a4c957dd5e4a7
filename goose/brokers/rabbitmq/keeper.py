"""Stores parked jobs afresh.

Two kinds of jobs are parked: those that the server gave up because it had lent them again too
often, which says nothing about them; and those whose delay is longer than the ladder is high.
Every worker looks after both. A job leaves the parked ones once it is stored where it belongs.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from goose.brokers.rabbitmq.confirms import Parcel
from goose.brokers.rabbitmq.names import Names
from goose.brokers.rabbitmq.parcels import LEFT, QUEUE, kept_headers
from goose.errors import GooseError

logger = logging.getLogger("goose.brokers.rabbitmq")

AGAIN = 1.0
"""Seconds before a job is tried again that could not be stored."""


class Keeper:
    """A thread that is started by the first parked job.

    Args:
        names: Of the namespace.
        store: Stores a parcel, due after so many seconds, in a queue; returns once it is.
        strand: Stores a parcel of which nobody knows where it belongs among the dead jobs.
        on_wire: Calls something on the thread of the wire that the parked jobs come from.
    """

    def __init__(
        self,
        names: Names,
        *,
        store: Callable[[str, Parcel, float], None],
        strand: Callable[[Parcel], None],
        on_wire: Callable[[Callable[[], Any]], None],
    ) -> None:
        self._names = names
        self._store = store
        self._strand = strand
        self._on_wire = on_wire
        self._jobs: queue.SimpleQueue[tuple[Any, int, Any, bytes] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def take(self, channel: Any, tag: int, properties: Any, body: bytes) -> None:
        """Look after a parked job; on the wire's thread."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="goose-rabbitmq-parked", daemon=True
            )
            self._thread.start()
        self._jobs.put((channel, tag, properties, body))

    def close(self) -> None:
        """End the thread."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            channel, tag, properties, body = job
            try:
                self._send_on(properties, body)
            except GooseError as error:
                logger.warning("a parked job cannot be stored yet: %s", error)
                time.sleep(AGAIN)
                self._on_wire(partial(_end, channel, channel.basic_nack, tag))
            else:
                self._on_wire(partial(_end, channel, channel.basic_ack, tag))

    def _send_on(self, properties: Any, body: bytes) -> None:
        headers = properties.headers or {}
        parcel = Parcel("", "", properties.message_id or "", body, kept_headers(headers))
        home = self._home(headers)
        if home is None:
            logger.error("nobody knows which queue parked job %s belongs to", parcel.id)
            self._strand(parcel)
            return
        left = headers.get(LEFT)
        if left is None:
            logger.warning(
                "job %s of %s was lent again so often that RabbitMQ gave it up; it is stored afresh",
                parcel.id, home,
            )  # fmt: skip
        self._store(home, parcel, float(left or 0.0))

    def _home(self, headers: dict[str, Any]) -> str | None:
        said = headers.get(QUEUE)
        if isinstance(said, str):
            return said
        for death in headers.get("x-death") or ():
            home = self._names.queue_of(str(death.get("queue")))
            if home is not None:
                return home
        return None


def _end(channel: Any, how: Callable[[int], None], tag: int) -> None:
    if channel.is_open:  # else the server has it back already
        how(tag)
