"""Looks at jobs from outside, as far as AMQP allows.

A queue can be counted, emptied, and looked into by taking jobs out and putting them back. So
dead jobs can be listed, found, deleted and replayed, and ready ones looked at, up to a number.
Jobs that are scheduled, or lent to a worker, cannot be seen by anybody but the server. What is
impossible raises `Unsupported`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from goose.brokers.base import Page, QueueStats, State, Stored
from goose.brokers.rabbitmq.browser import Browser, Seen
from goose.brokers.rabbitmq.options import Options
from goose.brokers.rabbitmq.parcels import DIED, GROUP, parcel
from goose.brokers.rabbitmq.parts import Parts
from goose.errors import Unsupported
from goose.jobs import Envelope


class Inspecting(ABC):
    """The part of a broker that is an `Inspector`."""

    options: Options
    visible = (State.READY, State.DEAD)
    """The states in which AMQP shows jobs."""

    @property
    @abstractmethod
    def _parts(self) -> Parts:
        """What this process has."""

    def queues(self) -> Sequence[QueueStats]:
        """See `Inspector.queues`; counts ready and dead jobs, and knows no ages."""
        found: list[QueueStats] = []
        for queue in self._queues():
            counts = {state: self._size(state, queue) for state in self.visible}
            if any(counts.values()):
                found.append(QueueStats(queue, counts, None))
        return found

    def _queues(self) -> list[str]:
        """Return every queue that was ever used in this namespace."""
        parts = self._parts
        with Browser(self.options, parts.names) as browser:
            seen = browser.look(parts.names.names, _nothing, limit=self.options.look)
        return sorted({message.id for message in seen} | parts.topology.queues)

    def _name(self, state: State, queue: str) -> str:
        names = self._parts.names
        return names.dead(queue) if state is State.DEAD else names.ready(queue)

    def _size(self, state: State, queue: str) -> int:
        parts = self._parts
        size = parts.topology.size(self._name(state, queue)) or 0
        # What the server has pushed here, and nobody was lent, is ready too.
        return size + (parts.held(queue) if state is State.READY else 0)

    def count(self, state: State, queue: str | None = None) -> int:
        """See `Inspector.count`."""
        _check_visible(state)
        queues = self._queues() if queue is None else [queue]
        return sum(self._size(state, name) for name in queues)

    def page(
        self, state: State, queue: str | None = None, *, limit: int = 100, after: str | None = None
    ) -> Page:
        """See `Inspector.page`; goes on behind the last job it showed, if that is still there."""
        _check_visible(state)
        items: list[Stored] = []
        for name, seen in self._each(state, queue, self.options.look):
            items += [_stored(message, name, state) for message in seen]
        start = 0
        for number, item in enumerate(items, 1):
            if after == f"{item.envelope.queue} {item.envelope.id}":
                start = number
        shown = items[start : start + limit]
        if start + limit >= len(items):
            return Page(shown, None)
        return Page(shown, f"{shown[-1].envelope.queue} {shown[-1].envelope.id}")

    def _each(
        self,
        state: State,
        queue: str | None,
        limit: int,
        choose: Callable[[str, Sequence[Seen]], Sequence[Seen]] = lambda _queue, _seen: (),
    ) -> Iterator[tuple[str, Sequence[Seen]]]:
        parts = self._parts
        queues = self._queues() if queue is None else [queue]
        with Browser(self.options, parts.names) as browser:
            for name in queues:
                seen = browser.look(
                    self._name(state, name),
                    lambda seen, name=name: choose(name, seen),  # type: ignore[misc]
                    limit=limit,
                    shared=state is State.READY,
                )
                yield name, seen

    def find(self, id: str) -> Stored | None:  # noqa: A002 - the field's own name
        """See `Inspector.find`; looks at dead and ready jobs, up to `Options.look` of a queue."""
        for state in (State.DEAD, State.READY):
            for queue, seen in self._each(state, None, self.options.look):
                for message in seen:
                    if message.id == id:
                        return _stored(message, queue, state)
        return None

    def delete(self, ids: Sequence[str], *, state: State) -> Sequence[str]:
        """See `Inspector.delete`; looks at up to `Options.look` jobs of a queue."""
        _check_visible(state)
        wanted, gone = set(ids), set[str]()

        def choose(_queue: str, seen: Sequence[Seen]) -> Sequence[Seen]:
            chosen = [message for message in seen if message.id in wanted]
            gone.update(message.id for message in chosen)
            return chosen

        for _ in self._each(state, None, self.options.look, choose):
            pass
        return [name for name in ids if name in gone]

    def promote(self, ids: Sequence[str]) -> NoReturn:
        """See `Inspector.promote`; not possible."""
        raise _unsupported("make a scheduled job ready before its time")

    def prioritise(self, ids: Sequence[str]) -> NoReturn:
        """See `Inspector.prioritise`; not possible."""
        raise _unsupported("move a job to the front of its queue")

    def purge(self, state: State, queue: str | None = None, *, older_than: float = 0.0) -> int:
        """See `Inspector.purge`."""
        _check_visible(state)
        if older_than > 0:
            if state is State.READY:
                raise _unsupported("tell how long a job has been ready")
            return self._purge_older(queue, time.time() - older_than)
        topology = self._parts.topology
        queues = self._queues() if queue is None else [queue]
        names = [self._name(state, name) for name in queues]
        return sum(topology.purge(name) for name in names if topology.size(name))

    def _purge_older(self, queue: str | None, before: float) -> int:
        count = 0

        def choose(_queue: str, seen: Sequence[Seen]) -> Sequence[Seen]:
            nonlocal count
            chosen = [message for message in seen if _died(message) <= before]
            count += len(chosen)
            return chosen

        for _ in self._each(State.DEAD, queue, self.options.look, choose):
            pass
        return count

    def replay(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """See `Inspector.replay`; each is stored as ready before it leaves the dead."""
        parts = self._parts
        wanted = {envelope.id: envelope for envelope in envelopes}
        done: set[str] = set()

        def choose(_queue: str, seen: Sequence[Seen]) -> Sequence[Seen]:
            chosen = [m for m in seen if m.id in wanted and m.id not in done]
            chosen = list({message.id: message for message in chosen}.values())
            again = [wanted[message.id] for message in chosen]
            ready, deadline = parts.topology.ready, time.monotonic() + self.options.timeout
            parcels = [parcel(e, "", ready(e.queue, deadline)) for e in again]
            parts.publisher.send(parcels, deadline)
            done.update(message.id for message in chosen)
            return chosen

        for _ in self._each(State.DEAD, None, self.options.look, choose):
            pass
        return [envelope.id for envelope in envelopes if envelope.id in done]


def _nothing(_seen: Sequence[Seen]) -> Sequence[Seen]:
    return ()


def _stored(message: Seen, queue: str, state: State) -> Stored:
    group = message.headers.get(GROUP)
    envelope = Envelope(message.id, queue, message.body, None, None, group)
    return Stored(envelope, state, _died(message))


def _died(message: Seen) -> float:
    """Return when it died; 0 if that is unknown, as for ready jobs."""
    try:
        return float(message.headers[DIED])
    except (KeyError, TypeError, ValueError):
        return 0.0


def _check_visible(state: State) -> None:
    if state not in Inspecting.visible:
        raise _unsupported(f"look at {state.value} jobs")


def _unsupported(what: str) -> Unsupported:
    return Unsupported(
        f"RabbitMQ cannot {what}: AMQP shows ready and dead jobs only; use a broker with a store "
        "of its own (redis, sqlite), or count such jobs by metrics"
    )
