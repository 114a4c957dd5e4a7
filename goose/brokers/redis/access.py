"""What every part of the broker stands on: its options, keys and connections."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from goose.brokers.redis import checks, options
from goose.brokers.redis.connections import Request
from goose.brokers.redis.keys import Domain, Keys, Line
from goose.brokers.redis.links import Call, Link
from goose.brokers.redis.waiting import Alarms
from goose.errors import BrokerError

DEFAULT_URL = "redis://localhost:6379/0"
QUEUES = 50
"""Queues in one call of a script at most."""


class Access:
    """Connects at the first use; the parts of the broker derive from it."""

    def __init__(self, place: str | Any | None = None, **given: Any) -> None:
        client = None if place is None or isinstance(place, str) else place
        url = place if isinstance(place, str) else DEFAULT_URL
        self.options = options.read(url, given)
        self._link = self._make_link(client)
        self._keys = Keys(self.options.namespace, clustered=self.options.kind == "cluster")
        self._alarms = Alarms()
        self._random = random.Random()
        self._starting = threading.Lock()
        self._started = False
        self._closed = False

    def _make_link(self, client: Any) -> Link:
        return Link(self.options, client)

    def close(self) -> None:
        """See `Broker.close`; ends every `dequeue` that blocks. The broker cannot be used again."""
        if self._closed:
            return
        self._closed = True
        self._alarms.ring()
        self._alarms.close()
        self._link.close()

    def _ready(self) -> Link:
        """Return the link, to a server that was looked at once."""
        if self._closed:
            raise BrokerError(f"the broker of Redis at {self._link.where} is closed; make another")
        if not self._started:
            with self._starting:
                if not self._started:
                    checks.check(self._link, self._keys.home.prefix, strict=self.options.strict)
                    self._started = True
        return self._link

    # --- queues --------------------------------------------------------------------------

    def _lines(self, queue: str | None = None) -> list[Line]:
        """Return the keys of *queue*, or of every queue that is known, by name."""
        if queue is not None:
            return [self._keys.line(queue)]
        [names] = self._ready().ask([(b"SMEMBERS", self._keys.home.queues)])
        return [self._keys.line(name) for name in sorted(name.decode() for name in names)]

    def _groups(self, lines: Sequence[Line]) -> Iterator[tuple[Domain, Sequence[Line]]]:
        """Return *lines* in parts that one script can see."""
        step = 1 if self._keys.clustered else QUEUES
        for start in range(0, len(lines), step):
            part = lines[start : start + step]
            yield part[0].domain, part

    def _domains(self) -> Iterator[Domain]:
        """Return everything that has loans."""
        yield self._keys.home

    def _run_all(self, calls: Sequence[Call], *, again: bool = False) -> list[Any]:
        """Call scripts, in one round trip where they go to one server."""
        link = self._ready()
        if self._keys.clustered:
            return [link.run(call, again=again) for call in calls]
        return link.run_many(calls, again=again)

    def _ask_all(self, requests: Sequence[Request]) -> list[Any]:
        """Send plain commands that change nothing, as `_run_all`."""
        link = self._ready()
        if self._keys.clustered:
            return [link.ask([request])[0] for request in requests]
        return link.ask(requests)


def grouped(items: Mapping[Any, Sequence[Any]], size: int) -> Iterator[tuple[Any, Sequence[Any]]]:
    """Return the values of *items* in parts of at most *size*, each with its key."""
    for key, values in items.items():
        for start in range(0, len(values), size):
            yield key, values[start : start + size]
