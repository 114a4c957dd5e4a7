"""Fault injection: a broker that fails where it is told to.

`FaultyBroker` stands before any broker and counts the calls that go through it. A `Fault`
says at which call something goes wrong, on which side of it, and what: an error raised
*before* (the request never arrived), an error raised *after* (it was carried out, and the
reply was lost), a delay, or a `Crash`. A test that crashes at call k, on either side, for
every k until nothing crashes any more, has seen every moment there is::

    for k in itertools.count(1):
        for side in ("before", "after"):
            broker = FaultyBroker(MemoryBroker(), Fault.crash(at=k, side=side))
            ...

The wrapper has exactly the optional protocols of the broker inside: it is an `Inspector`
if that is one. `Broker.wake` and `Broker.close` are passed on uncounted, since they are no
requests.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from goose.brokers.base import (
    Broker,
    Capability,
    Delivery,
    Grouped,
    Inspector,
    Session,
    Sessions,
    Share,
    Transactional,
    Upkeep,
)
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope

Side = Literal["before", "after"]


OPTIONAL: tuple[type, ...] = (Sessions, Upkeep, Inspector, Grouped, Transactional)


class Crash(BaseException):
    """The process dies here: nothing that runs later on this thread may use the broker.

    Not an `Exception`, so that no error handling takes it for an outage. It only unwinds; a
    test stops using the workers it killed, as if their process were gone.
    """


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong at one call, or at several."""

    at: int
    """The number of the first call it hits, counted from 1 among the calls it looks at."""
    side: Side = "before"
    """Whether the broker has carried the call out when it happens."""
    verb: str | None = None
    """Only calls of this method are looked at; None for all."""
    times: int | None = 1
    """How many calls in a row it hits; None for all from there on."""
    error: Callable[[], BaseException] | None = None
    """Makes what is raised; None raises nothing."""
    delay: float = 0.0
    """Seconds to wait first."""

    @classmethod
    def crash(cls, at: int, side: Side = "before", *, verb: str | None = None) -> Fault:
        """Return a fault that kills the caller at call *at*."""
        return cls(at, side, verb, error=lambda: Crash(f"{side} call {at} of {verb or 'any verb'}"))

    @classmethod
    def outage(
        cls, at: int, side: Side = "before", *, verb: str | None = None, times: int | None = 1
    ) -> Fault:
        """Return a fault that looks like a lost connection for *times* calls from *at* on."""
        return cls(at, side, verb, times, lambda: BrokerUnavailable("injected: connection lost"))

    @classmethod
    def slow(
        cls, seconds: float, at: int = 1, *, verb: str | None = None, times: int | None = None
    ) -> Fault:
        """Return a fault that makes *times* calls from *at* on wait for *seconds* first."""
        return cls(at, "before", verb, times, delay=seconds)

    def hits(self, count: int) -> bool:
        """Say whether the call of that number, among those it looks at, is hit."""
        return count >= self.at and (self.times is None or count < self.at + self.times)


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that happened."""

    fault: Fault
    verb: str
    call: int
    """The number of the call among all calls, from 1."""


class FaultyBroker:
    """Stands before *broker* and does what *faults* say. Thread-safe if the broker is.

    Args:
        broker: Any broker; its optional protocols are this object's too.
        faults: What goes wrong; at one call, all that apply happen, in this order.
        sleep: Waits for so many seconds; a test with a clock of its own may turn that.
    """

    def __init__(
        self,
        broker: Broker,
        *faults: Fault,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.broker = broker
        """The broker inside, to look at what is really stored."""
        self._faults = faults
        self._sleep = sleep
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._hits: list[Hit] = []
        # `isinstance` looks at the class for the optional protocols.
        parts = tuple(part for part in OPTIONAL if isinstance(broker, part))
        kind: Any = type(self)
        self.__class__ = _fitting(kind, parts)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Those of the broker inside."""
        return self.broker.capabilities

    @property
    def calls(self) -> int:
        """How many calls there were, those that failed among them."""
        with self._lock:
            return self._calls.total()

    @property
    def hits(self) -> Sequence[Hit]:
        """What went wrong so far, in order."""
        with self._lock:
            return tuple(self._hits)

    def calls_of(self, verb: str) -> int:
        """Return how many calls of the method *verb* there were."""
        with self._lock:
            return self._calls[verb]

    def inject(self, *faults: Fault) -> None:
        """Replace the faults; calls go on being counted from where they are."""
        with self._lock:
            self._faults = faults

    def _call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self._calls[verb] += 1
            total = self._calls.total()
            due = [
                Hit(fault, verb, total)
                for fault in self._faults
                if fault.verb in (None, verb)
                and fault.hits(total if fault.verb is None else self._calls[verb])
            ]
        self._strike([hit for hit in due if hit.fault.side == "before"])
        result = getattr(self.broker, verb)(*args, **kwargs)
        self._strike([hit for hit in due if hit.fault.side == "after"])
        return result

    def _strike(self, hits: Sequence[Hit]) -> None:
        for hit in hits:
            with self._lock:
                self._hits.append(hit)
            if hit.fault.delay:
                self._sleep(hit.fault.delay)
            if hit.fault.error is not None:
                raise hit.fault.error()

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        """Store, or fail."""
        self._call("enqueue", envelopes)

    def schedule(self, envelopes: Sequence[Envelope]) -> None:
        """Store for later, or fail."""
        self._call("schedule", envelopes)

    def dequeue(
        self, session: Session, queues: Sequence[Share], *, limit: int, wait: float
    ) -> Sequence[Delivery]:
        """Lend jobs, or fail."""
        found: Sequence[Delivery] = self._call("dequeue", session, queues, limit=limit, wait=wait)
        return found

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Forget jobs, or fail."""
        lost: Sequence[Delivery] = self._call("ack", deliveries)
        return lost

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give jobs back, or fail."""
        lost: Sequence[Delivery] = self._call("release", deliveries)
        return lost

    def requeue(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """Replace jobs, or fail."""
        lost: Sequence[Delivery] = self._call("requeue", deliveries)
        return lost

    def bury(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """Give jobs up, or fail."""
        lost: Sequence[Delivery] = self._call("bury", deliveries)
        return lost

    def wake(self) -> None:
        """End a blocked dequeue of the broker inside."""
        self.broker.wake()

    def close(self) -> None:
        """Close the broker inside."""
        self.broker.close()


@functools.cache
def _fitting(base: Any, parts: tuple[type, ...]) -> Any:
    """Return a subclass of *base* with the methods of *parts*, each of them a counted call."""

    def passed_on(verb: str) -> Callable[..., Any]:
        def method(self: FaultyBroker, *args: Any, **kwargs: Any) -> Any:
            return self._call(verb, *args, **kwargs)

        return method

    verbs = [verb for part in parts for verb in vars(part) if not verb.startswith("_")]
    return type(base.__name__, (base,), {verb: passed_on(verb) for verb in verbs})
