"""Fault injection: what goes wrong, when, and what of the call still happens."""

from __future__ import annotations

import contextlib
import threading

import pytest

from goose.brokers.base import Broker, Inspector, Session, Sessions, Share, State, Upkeep
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope
from goose.testing import BrokerSuite, Crash, Fault, FaultyBroker

QUEUE = [Share("q")]


def job(number: int) -> Envelope:
    return Envelope(f"job-{number}", "q", b"")


class TestFaultyBroker(BrokerSuite):
    """With nothing injected it is as good as the broker inside."""

    lull = 0.01

    def make_broker(self) -> Broker:
        self.now = 1_000_000.0
        return FaultyBroker(MemoryBroker(clock=self.clock))

    def advance(self, broker: Broker, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now

    def make_keeping(self, *, dead_max_age: float, dead_max_count: int) -> Broker:
        limits = {"dead_max_age": dead_max_age, "dead_max_count": dead_max_count}
        return FaultyBroker(MemoryBroker(clock=self.clock, **limits))


class OnlyNineVerbs:
    """A broker without any optional protocol."""

    capabilities = frozenset()

    def nothing(self, *args: object, **options: object) -> list[object]:
        return []

    enqueue = schedule = dequeue = ack = release = requeue = bury = wake = close = nothing


def test_optional_protocols_are_those_of_the_broker_inside() -> None:
    """`isinstance` sees through the wrapper, in both directions."""
    whole, bare = FaultyBroker(MemoryBroker()), FaultyBroker(OnlyNineVerbs())

    for part in (Sessions, Upkeep, Inspector):
        assert isinstance(whole, part)
        assert not isinstance(bare, part)
    assert isinstance(bare, Broker)
    assert MemoryBroker.capabilities == whole.capabilities


def test_an_error_before_means_nothing_happened() -> None:
    """A fault before a call keeps the broker from it."""
    broker = FaultyBroker(MemoryBroker(), Fault.outage(at=2))
    broker.enqueue([job(1)])

    with pytest.raises(BrokerUnavailable):
        broker.enqueue([job(2)])

    assert 1 == broker.broker.count(State.READY)
    broker.enqueue([job(3)])
    assert 2 == broker.broker.count(State.READY)


def test_an_error_after_means_it_happened() -> None:
    """A fault after a call loses only the reply."""
    broker = FaultyBroker(MemoryBroker(), Fault.outage(at=1, side="after"))

    with pytest.raises(BrokerUnavailable):
        broker.enqueue([job(1)])

    assert 1 == broker.broker.count(State.READY)


@pytest.mark.parametrize(("side", "stored"), [("before", 0), ("after", 1)])
def test_a_crash_is_no_exception(side: str, stored: int) -> None:
    """A crash passes every `except Exception`, on either side of the call."""
    broker = FaultyBroker(MemoryBroker(), Fault.crash(at=1, side=side))

    with pytest.raises(Crash), contextlib.suppress(Exception):
        broker.enqueue([job(1)])

    assert stored == broker.broker.count(State.READY)


def test_a_fault_may_look_at_one_verb() -> None:
    """With *verb*, only calls of that verb are counted towards *at*."""
    broker = FaultyBroker(MemoryBroker(), Fault.outage(at=2, verb="heartbeat", times=2))
    session = Session("one")
    broker.open(session, ttl=30)
    broker.heartbeat(session, ttl=30)
    broker.enqueue([job(1)])

    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            broker.heartbeat(session, ttl=30)
    broker.heartbeat(session, ttl=30)

    assert 4 == broker.calls_of("heartbeat")
    assert [(4, "heartbeat"), (5, "heartbeat")] == [(hit.call, hit.verb) for hit in broker.hits]


def test_an_outage_may_last() -> None:
    """With `times=None` every call fails until other faults are injected."""
    broker = FaultyBroker(MemoryBroker(), Fault.outage(at=1, times=None))
    for _ in range(5):
        with pytest.raises(BrokerUnavailable):
            broker.enqueue([job(1)])

    broker.inject()
    broker.enqueue([job(1)])

    assert 6 == broker.calls
    assert 5 == len(broker.hits)


def test_a_delay_comes_first() -> None:
    """A slow broker waits before the call, and then does it."""
    waited: list[float] = []
    broker = FaultyBroker(MemoryBroker(), Fault.slow(3.0, at=2), sleep=waited.append)

    broker.enqueue([job(1)])
    broker.enqueue([job(2)])

    assert [3.0] == waited
    assert 2 == broker.broker.count(State.READY)


def test_one_of_many_threads_is_hit() -> None:
    """However many threads call, exactly the one with that number is hit."""
    broker = FaultyBroker(MemoryBroker(), Fault.crash(at=50))
    crashed: list[int] = []

    def run(start: int) -> None:
        for number in range(start, start + 25):
            try:
                broker.enqueue([job(number)])
            except Crash:
                crashed.append(number)

    threads = [threading.Thread(target=run, args=(n * 25,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 100 == broker.calls
    assert 1 == len(crashed)
    assert 99 == broker.broker.count(State.READY)


def test_every_call_can_be_visited() -> None:
    """Crashing at call k, for all k and both sides, leaves each job done or still stored."""
    visited = 0
    for call in range(1, 100):
        for side in ("before", "after"):
            store = MemoryBroker()
            broker = FaultyBroker(store, Fault.crash(at=call, side=side))
            done: list[str] = []
            try:
                session = Session("worker")
                broker.open(session, ttl=30)
                broker.enqueue([job(1), job(2)])
                for delivery in broker.dequeue(session, QUEUE, limit=2, wait=0):
                    done.append(delivery.envelope.id)
                    broker.ack([delivery])
            except Crash:
                visited += 1
            known = {f"job-{n}" for n in (1, 2) if store.find(f"job-{n}")} | set(done)
            assert not broker.calls_of("dequeue") or {"job-1", "job-2"} == known
        if not broker.hits:
            break

    assert 10 == visited
