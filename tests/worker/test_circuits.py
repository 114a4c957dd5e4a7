"""Circuits in a worker: what is taken, by which process, and what is told of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import goose
from goose.brokers.base import Delivery, Session, Share, State
from goose.brokers.memory import MemoryBroker
from goose.circuits import Circuit
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope
from goose.metrics.fanout import Fanout
from goose.stores.memory import MemoryStore
from goose.worker.circuits import Circuits, shown
from goose.worker.outcomes import Ending, Outcome, Verb
from tests.features.outbox.test_relay import Counting

MAIL, OTHER = Share("mail"), Share("other")


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def mono(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1e9


class Shelf(MemoryStore):
    """A store that goes by that clock."""

    def __init__(self, clock: Hands) -> None:
        super().__init__()
        self.now = clock.wall  # type: ignore[method-assign]


@pytest.fixture
def clock() -> Hands:
    return Hands()


def made(clock: Hands, store: Callable[[], Any], metrics: Any = None) -> Circuits:
    policies = {"mail": Circuit(failures=2, pause=10)}
    return Circuits(
        policies, store=store, metrics=Fanout([metrics] if metrics else []), clock=clock
    )  # type: ignore[arg-type]


def outcome(receipt: object, *, failed: bool) -> Outcome:
    """Return how a job of the queue ended."""
    delivery = Delivery(Envelope(str(receipt), "mail", b""), receipt, Session("s"))
    if failed:
        error = ValueError("down")
        return Outcome(Ending.RETRIED, Verb.REQUEUE, delivery, None, None, error, seconds=0.1)
    return Outcome(Ending.DONE, Verb.ACK, delivery, seconds=0.1)


def test_one_process_of_all_tries_a_job(clock: Hands) -> None:
    """What one process opens, all have open; one of them gets the probe, and all close after it."""
    store = Shelf(clock)
    counting = Counting()
    one, two = made(clock, lambda: store, counting), made(clock, lambda: store)
    for number in range(2):
        one.ended(outcome(number, failed=True))
    for each in (one, two):
        each.step(clock.now)
    assert {("circuit.opened", "mail"): 1} == counting.sums
    assert 1.0 == counting.gauges["circuit.open", "mail", ""]
    assert [([OTHER], False)] * 2 == [c.look([MAIL, OTHER], clock.now) for c in (one, two)]
    assert [("mail", 10.0)] == list(shown(store))

    clock.now += 10.1
    for each in (two, one):
        each.step(clock.now)
    assert ([OTHER], False) == one.look([MAIL, OTHER], clock.now)
    assert ([MAIL], True) == two.look([MAIL, OTHER], clock.now)
    probe = outcome("probe", failed=False)
    two.tried([probe.delivery])
    assert not two.holds_up(probe.delivery)
    assert two.holds_up(outcome("another", failed=False).delivery)
    assert ([OTHER], False) == two.look([MAIL, OTHER], clock.now)
    two.ended(probe)
    for each in (two, one):
        each.step(clock.now)

    assert [([MAIL, OTHER], False)] * 2 == [c.look([MAIL, OTHER], clock.now) for c in (one, two)]
    assert [] == list(shown(store))


def test_a_probe_that_fails_doubles_the_pause_of_all(clock: Hands) -> None:
    """The other process waits as long as the one that tried."""
    store = Shelf(clock)
    one, two = made(clock, lambda: store), made(clock, lambda: store)
    for number in range(2):
        one.ended(outcome(number, failed=True))
    one.step(clock.now)
    two.step(clock.now)
    clock.now += 10.1
    one.step(clock.now)
    assert ([MAIL], True) == one.look([MAIL], clock.now)
    one.tried([outcome("probe", failed=True).delivery])
    one.ended(outcome("probe", failed=True))
    one.step(clock.now)
    two.step(clock.now)
    clock.now += 19.0
    for each in (one, two):
        each.step(clock.now)
        assert ([], False) == each.look([MAIL], clock.now)
    clock.now += 1.1
    two.step(clock.now)
    assert ([MAIL], True) == two.look([MAIL], clock.now)


def test_without_a_store_each_goes_by_itself(clock: Hands) -> None:
    """Where the store is away a process opens, tries and closes all the same."""

    def away() -> Any:
        raise BrokerUnavailable("away")

    alone = made(clock, away)
    for number in range(2):
        alone.ended(outcome(number, failed=True))
    alone.step(clock.now)
    assert ([], False) == alone.look([MAIL], clock.now)
    clock.now += 10.1
    alone.step(clock.now)
    assert ([MAIL], True) == alone.look([MAIL], clock.now)
    alone.tried([outcome("probe", failed=False).delivery])
    alone.ended(outcome("probe", failed=False))
    alone.step(clock.now)
    assert ([MAIL], False) == alone.look([MAIL], clock.now)


down = threading.Event()
runs: list[str] = []


def send(name: str) -> None:
    runs.append(name)
    if down.is_set():
        raise ConnectionError("the mail server is away")


def quick(name: str) -> None:
    runs.append(name)


def test_a_dead_downstream_is_not_hammered(
    wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker stops after some failures, goes on with other queues, tries one, and then runs all."""
    runs.clear()
    down.set()
    goose.configure(circuit={"mail": Circuit(failures=3, pause=1.0)})
    broker = MemoryBroker()
    client = goose.Client(broker, retry=goose.Retry(backoff=[0.05]))
    client.using(queue="mail").enqueue_many(send, [(f"m{n}",) for n in range(40)])
    try:
        with goose.Worker(
            broker, allow=[__name__], queues=["mail", "other"], concurrency=1
        ) as worker:
            wait_until(lambda: len(runs) >= 3, what="it fails")
            client.using(queue="other").enqueue(quick, "free")
            wait_until(lambda: "free" in runs, what="the other queue goes on")
            failed = [name for name in runs if name != "free"]
            assert len(failed) <= 4, "all after the third were given back, but for one under way"
            down.clear()
            wait_until(lambda: worker.is_empty() and broker.count(State.SCHEDULED) == 0)
    finally:
        goose.configure()

    assert {f"m{n}" for n in range(40)} | {"free"} == set(runs)
    assert len(runs) <= 41 + 4, "no attempt was burnt while it was open"
