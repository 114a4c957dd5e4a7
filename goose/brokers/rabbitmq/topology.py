"""Sees to it that what a job needs on the server is there, and remembers that it is.

Everything here is declared when it is first needed, which costs nothing if it exists, and is
durable, so that it need not be looked at again. When a message comes back because its queue is
gone, the memory of that is dropped, and the next use declares it anew.

To make a queue takes some questions, a dozen with delays, one after the other, and one thread makes
things at a time. Neither makes a call longer than its deadline: all questions of a call share that,
and who waits for his turn waits no longer. What has been answered is remembered, so that who had too
little time for all comes further the next time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from pika.exceptions import ChannelClosedByBroker

from goose.brokers.rabbitmq import ladder
from goose.brokers.rabbitmq.confirms import Parcel
from goose.brokers.rabbitmq.desk import Desk
from goose.brokers.rabbitmq.faults import Refused, translated
from goose.brokers.rabbitmq.ladder import Climb
from goose.brokers.rabbitmq.names import Names
from goose.brokers.rabbitmq.options import Options
from goose.brokers.rabbitmq.publishing import Publisher

_GONE = 404
_AGAIN = 0.02
"""Seconds before a queue is asked again whether it takes its first message."""


class Topology:
    """What is known to exist. Thread-safe."""

    def __init__(self, options: Options, names: Names, publisher: Publisher) -> None:
        self._options = options
        self._names = names
        self._publisher = publisher
        self._desk: Desk = publisher.desk
        self._known: set[str] = set()
        self._lock = threading.RLock()
        self._deadline = 0.0
        """Of who makes something now."""
        self.queues: set[str] = set()
        """Every queue that was used here."""

    def forget(self) -> None:
        """Trust in nothing: something that was known to exist is gone."""
        self._known.clear()

    def known(self, queue: str) -> str | None:
        """Return the server's name of the queue of ready jobs if it is known to exist; asks nobody."""
        name = self._names.ready(queue)
        return name if name in self._known else None

    def ready(self, queue: str, deadline: float) -> str:
        """Return the server's name of the queue of ready jobs, which exists by *deadline* (monotonic)."""
        name = self._names.ready(queue)
        if name not in self._known:
            self._alone(deadline, partial(self._make_ready, queue, name))
        return name

    def _alone(self, deadline: float, make: Callable[[], None]) -> None:
        """Call *make* while no other thread makes anything."""
        try:
            if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise self._desk.late("those who make queues for others")
            outer, self._deadline = self._deadline, deadline
            try:
                make()
            finally:
                self._deadline = outer  # of whom a signal handler came into
        finally:
            # Who was interrupted as he got the lock does not know that he has it; the lock does. And no
            # Python code before this, as it may be interrupted, too.
            try:  # noqa: SIM105
                self._lock.release()
            except RuntimeError:
                pass

    def _make_ready(self, queue: str, name: str) -> None:
        if name in self._known:  # made by who had the turn before
            return
        self._note(queue, name)
        self._kept(self._names.parked)
        self._queue(name, self._names.ready_arguments())
        self._exchange(self._names.deliver, "topic")
        self._bind(name, self._names.deliver, ladder.arrival(queue))
        self.queues.add(queue)
        self._known.add(name)

    def dead(self, queue: str, deadline: float) -> str:
        """Return the server's name of the queue of dead jobs, which exists by *deadline* (monotonic)."""
        name = self._names.dead(queue)
        if name not in self._known:
            self.ready(queue, deadline)  # so that the queue is registered
            self._alone(deadline, partial(self._make_dead, name))
        return name

    def _make_dead(self, name: str) -> None:
        self._queue(name, self._names.dead_arguments())
        self._known.add(name)

    def words(self) -> str:
        """Return the exchange of words, which exists; the server is asked each time."""
        words = self._names.words
        self._ask("exchange_declare", exchange=words, exchange_type="fanout", durable=True)
        return words

    def way(self, climb: Climb, queue: str, deadline: float) -> str:
        """Return the exchange where *climb* enters the ladder.

        All it needs on its way exists by *deadline* (monotonic).
        """
        self.ready(queue, deadline)
        entry = self._names.entry(climb.top)
        needed = {self._names.step(level, digit): (level, digit) for level, digit in climb.steps()}
        goes_on = not climb.left or f"{ladder.PARKED} bound" in self._known
        if goes_on and entry in self._known and self._known.issuperset(needed):
            return entry
        self._alone(deadline, partial(self._make_way, climb, needed))
        return entry

    def _make_way(self, climb: Climb, steps: dict[str, tuple[int, int]]) -> None:
        for level in range(climb.top + 1):
            self._level(level)
        for name, (level, digit) in steps.items():
            self._step(name, level, digit)
        if climb.left and f"{ladder.PARKED} bound" not in self._known:
            self._bind(self._names.parked, self._names.deliver, ladder.arrival(ladder.PARKED))
            self._known.add(f"{ladder.PARKED} bound")

    def _level(self, level: int) -> None:
        entry = self._names.entry(level)
        if entry in self._known:
            return
        self._exchange(entry, "topic")
        self._build(
            "exchange_bind",
            destination=self._names.entry(level - 1),
            source=entry,
            routing_key=ladder.binding(level, 0),
        )
        self._known.add(entry)

    def _step(self, name: str, level: int, digit: int) -> None:
        if name in self._known:
            return
        arguments = self._names.step_arguments(level, ladder.milliseconds(level, digit))
        self._queue(name, arguments)
        self._bind(name, self._names.entry(level), ladder.binding(level, digit))
        self._known.add(name)

    # --- registry ------------------------------------------------------------------------

    def _note(self, queue: str, name: str) -> None:
        """Leave the queue's name where `Inspector.queues` finds it, before the queue exists."""
        noted, missing = f"{name} is noted", f"{name} is missing"
        if noted in self._known:
            return
        if missing in self._known or self._seen(name, self._deadline) is None:
            self._known.add(missing)
            self._register(queue)
        self._known.add(noted)

    def _register(self, queue: str) -> None:
        self._kept(self._names.names)
        note = Parcel("", self._names.names, queue, b"")
        while True:
            try:
                self._publisher.send([note], self._deadline)
            except Refused:  # a quorum queue that was made just now may have no leader yet
                if time.monotonic() > self._deadline:
                    raise
                time.sleep(_AGAIN)
            else:
                return

    def size(self, name: str) -> int | None:
        """Return how many ready messages that queue has; None if there is no such queue."""
        return self._seen(name, None)

    def _seen(self, name: str, deadline: float | None) -> int | None:
        try:
            answer = self._desk.ask("queue_declare", deadline, queue=name, passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code == _GONE:
                return None
            raise translated(error, self._options.where) from error
        count: int = answer.message_count
        return count

    def purge(self, name: str) -> int:
        """Remove every ready message of that queue; return how many."""
        count: int = self._ask("queue_purge", queue=name).message_count
        return count

    # --- asking --------------------------------------------------------------------------

    def _kept(self, name: str) -> None:
        self._queue(name, self._names.kept_arguments())

    def _queue(self, name: str, arguments: dict[str, Any]) -> None:
        if f"queue {name}" not in self._known:
            self._build("queue_declare", queue=name, durable=True, arguments=arguments)
            self._known.add(f"queue {name}")

    def _exchange(self, name: str, kind: str) -> None:
        if f"exchange {name}" not in self._known:
            self._build("exchange_declare", exchange=name, exchange_type=kind, durable=True)
            self._known.add(f"exchange {name}")

    def _bind(self, queue: str, exchange: str, key: str) -> None:
        self._build("queue_bind", queue=queue, exchange=exchange, routing_key=key)

    def _build(self, name: str, **words: Any) -> None:
        self._ask(name, self._deadline, **words)

    def _ask(self, name: str, deadline: float | None = None, **words: Any) -> Any:
        try:
            return self._desk.ask(name, deadline, **words)
        except ChannelClosedByBroker as error:
            if error.reply_code == _GONE:
                self.forget()
            raise translated(error, self._options.where) from error
