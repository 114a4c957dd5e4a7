"""The memory broker keeps every promise, and a few of its own."""

from __future__ import annotations

import os
import time

import pytest

from goose.brokers import connect
from goose.brokers.base import Broker, Session, Share, State
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerError, ConfigError
from goose.jobs import Envelope
from goose.testing import BrokerSuite


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class TestMemoryBroker(BrokerSuite):
    """Under a clock that the tests turn, so that nothing is waited for."""

    lull = 0.01
    patience = 5.0

    made = 0

    def make_broker(self) -> MemoryBroker:
        type(self).made += 1
        self.time = Clock()
        self.url = f"memory://suite-{type(self).__name__}-{self.made}"
        return MemoryBroker(self.url, clock=self.time)

    def reopen(self, broker: Broker) -> MemoryBroker:
        return MemoryBroker(self.url, clock=self.time)

    def other_namespace(self, broker: Broker) -> MemoryBroker:
        return MemoryBroker(self.url, clock=self.time, namespace="other")

    def make_keeping(self, *, dead_max_age: float, dead_max_count: int) -> MemoryBroker:
        return MemoryBroker(
            clock=self.time, dead_max_age=dead_max_age, dead_max_count=dead_max_count
        )

    def advance(self, broker: Broker, seconds: float) -> None:
        self.time.now += seconds

    def clock(self) -> float:
        return self.time.now


class TestInRealTime(BrokerSuite):
    """By its URL, with the clocks of the machine."""

    lull = 0.01
    ttl = 0.05
    delay = 0.2
    patience = 5.0
    made = 0

    def make_broker(self) -> MemoryBroker:
        type(self).made += 1
        self.url = f"memory://suite-{type(self).__name__}-{self.made}"
        return MemoryBroker(self.url)

    def reopen(self, broker: Broker) -> MemoryBroker:
        return MemoryBroker(self.url)

    def other_namespace(self, broker: Broker) -> MemoryBroker:
        return MemoryBroker(f"{self.url}?namespace=other")

    def make_keeping(self, *, dead_max_age: float, dead_max_count: int) -> MemoryBroker:
        return MemoryBroker(
            f"memory://?namespace=keeping-{self.made}&dead_max_age={dead_max_age}&dead_max_count={dead_max_count}"
        )


def job(name: str) -> Envelope:
    return Envelope(name, "q", b"")


def test_one_url_is_one_store() -> None:
    """Brokers of the same URL in one process meet; other names and namespaces are apart."""
    first, second = connect("memory://meet"), connect("memory://meet")
    first.enqueue([job("one")])

    assert 1 == second.count(State.READY)
    assert 0 == connect("memory://elsewhere").count(State.READY)
    assert 0 == connect("memory://meet?namespace=other").count(State.READY)


def test_a_broker_without_a_url_is_private() -> None:
    """`MemoryBroker()` shares its jobs with nobody."""
    MemoryBroker().enqueue([job("one")])

    assert 0 == MemoryBroker().count(State.READY)


def test_closing_one_object_leaves_the_store() -> None:
    """A closed object refuses calls; the jobs stay for the others of its URL."""
    broker = MemoryBroker("memory://closing")
    broker.enqueue([job("one")])
    broker.close()

    with pytest.raises(BrokerError, match="closed"):
        broker.enqueue([job("two")])
    assert 1 == MemoryBroker("memory://closing").count(State.READY)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://x", "use memory://"),
        ("memory:///file", "use memory://"),
        ("memory://?name_space=x", "did you mean 'namespace'"),
        ("memory://?zzz=x", "known are namespace"),
        ("memory://?dead_max_age=7d", "dead_max_age = '7d' of .*: give seconds"),
        ("memory://?dead_max_count=few", "give a whole number"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, told: str) -> None:
    """An error about a URL names it and the way out."""
    with pytest.raises(ConfigError, match=told) as caught:
        MemoryBroker(url)

    assert url in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_refused() -> None:
    """What a forked process stored would be seen by nobody, so it learns that at once."""
    broker = MemoryBroker("memory://forking")
    broker.enqueue([job("parents")])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            broker.enqueue([job("lost")])
        except BrokerError:
            # A broker that the child makes itself is a new one, with no jobs of the parent.
            status = 10 + MemoryBroker("memory://forking").count(State.READY)
        finally:
            broker.close()
            os._exit(status)

    assert 10 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_turned_wall_clock_kills_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of a broker with the machine's clocks are measured by the monotonic one."""
    wall = Clock()
    monkeypatch.setattr(time, "time", wall)
    broker = MemoryBroker()
    holder, other = Session("holder"), Session("other")
    for session in (holder, other):
        broker.open(session, ttl=30)
    broker.enqueue([job("one")])
    lent = broker.dequeue(holder, [Share("q")], limit=1, wait=0)
    wall.now += 3600

    assert [] == broker.recover(other, limit=10)
    assert [] == broker.ack(lent)


def test_a_late_promotion_does_not_change_since_when_it_was_due() -> None:
    """A job taken long after it was due has been ready since that instant."""
    clock = Clock()
    broker = MemoryBroker(clock=clock)
    session = Session("one")
    broker.open(session, ttl=30)
    due_at = clock.now + 5
    broker.schedule([Envelope("late", "q", b"", due_at=due_at)])
    clock.now += 60

    assert 55 == broker.queues()[0].oldest
    assert due_at == broker.dequeue(session, [Share("q")], limit=1, wait=0)[0].ready_at


def test_the_agenda_forgets_what_was_deleted() -> None:
    """Deleting scheduled jobs frees their places long before they would have been due."""
    broker = MemoryBroker()
    for _ in range(20):
        names = [f"job-{number}" for number in range(100)]
        broker.schedule([Envelope(name, "q", b"", delay=1e6) for name in names])
        broker.delete(names[:-1], state=State.SCHEDULED)

    assert len(broker._store._agenda) < 400
    assert 1 == broker.count(State.SCHEDULED)
    assert broker.promote_due(limit=10).next_due_in is not None


def test_a_page_token_must_be_one() -> None:
    """A token that no page gave is refused by name."""
    with pytest.raises(BrokerError, match="'nonsense' is not"):
        MemoryBroker().page(State.READY, after="nonsense")


def test_what_is_left_out_is_listed() -> None:
    """The suite names the optional parts and capabilities that a broker does not offer."""
    assert [
        "Posting",
        "Transactional",
        "Completing",
        "DURABLE",
        "SHARED",
        "CONCURRENT",
    ] == BrokerSuite.left_out(MemoryBroker())
