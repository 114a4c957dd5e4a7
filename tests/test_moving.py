"""Jobs move to another broker or queue: each once, and none is lost wherever it is interrupted."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import Session, Share, State
from goose.brokers.memory import MemoryBroker
from goose.brokers.sqlite import SQLiteBroker
from goose.clients import Client
from goose.errors import ConfigError
from goose.jobs import Envelope
from goose.moving import TTL, Mover
from goose.settings import Settings


def note(word: str) -> None: ...


class Power(Exception):
    """Ends a move where it stands."""


class Hand:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Cut:
    """A broker or store whose every call may be the last: before it, or after it."""

    def __init__(self, inner: Any, calls: list[int], at: int, *, after: bool) -> None:
        self._inner, self._calls, self._at, self._after = inner, calls, at, after
        self.capabilities = getattr(inner, "capabilities", frozenset())

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls[0] += 1
            number = self._calls[0]
            if number == self._at and not self._after:
                raise Power
            result = method(*args, **kwargs)
            if number == self._at:
                raise Power
            return result

        return call


def filled(client: Client) -> set[str]:
    """Store three ready jobs and two that are due later; return their ids."""
    jobs = client.using(queue="old").enqueue_many(note, [("a",), ("b",), ("c",)])
    jobs += [client.using(queue="old").enqueue_in(delay, note, "later") for delay in (100, 5000)]
    return {job.id for job in jobs}


def where(broker: MemoryBroker, queue: str | None = None) -> list[str]:
    return [
        item.envelope.id
        for state in (State.READY, State.SCHEDULED)
        for item in broker.page(state, queue, limit=1000).items
    ]


def ending_at(client: Client, at: int, target: Any, *, after: bool, to_queue: str | None) -> bool:
    """Move until call number *at*; say whether it came to its end before."""
    calls = [0]
    source: Any = Cut(client.broker, calls, at, after=after)
    aim: Any = None if target is None else Cut(target, calls, at, after=after)
    store: Any = Cut(client.store, calls, at, after=after)
    try:
        mover = Mover(source, aim, queue="old", to_queue=to_queue, store=lambda: store)
        mover.run()
    except Power:
        return False
    return True


@pytest.mark.parametrize("after", [False, True])
def test_an_interruption_anywhere_loses_nothing(after: bool) -> None:
    """Between brokers: whichever call is the last one, the next move finishes it, each job once."""
    for at in itertools.count(1):
        clock = Hand()
        source, target = MemoryBroker(clock=clock), MemoryBroker(clock=clock)
        client = Client(source, settings=Settings())
        ids = filled(client)
        whole = ending_at(client, at, target, after=after, to_queue=None)
        assert ids <= {*where(source), *where(target)}
        client.move(target, queue="old")
        assert [] == where(source)
        assert Counter(ids) == Counter(where(target))
        # What was hidden when the power went is shown by its time, and was never early.
        clock.now += 601
        target.promote_due(limit=100)
        assert 4 == target.count(State.READY, "old")
        if whole:
            break
    assert at > 5


@pytest.mark.parametrize("after", [False, True])
def test_an_interruption_within_one_broker_loses_nothing(after: bool) -> None:
    """Between queues: what was lent comes back, what was in the journal is scheduled."""
    for at in itertools.count(1):
        clock = Hand()
        broker = MemoryBroker(clock=clock)
        client = Client(broker, settings=Settings())
        ids = filled(client)
        whole = ending_at(client, at, None, after=after, to_queue="new")
        # Loans of the mover that stopped are orphans, which any worker gives back.
        clock.now += TTL + 1
        helper = Session("helper")
        broker.open(helper, ttl=100)
        broker.release(broker.recover(helper, limit=100))
        client.move(queue="old", to_queue="new")
        assert [] == where(broker, "old")
        assert Counter(ids) == Counter(where(broker, "new"))
        assert (3, 2) == (broker.count(State.READY, "new"), broker.count(State.SCHEDULED, "new"))
        if whole:
            break
    assert at > 5


def test_bodies_name_their_new_queue_and_keep_their_instant() -> None:
    """A moved job says where it is, so that its retries stay there; garbage moves as it is."""
    source, target = MemoryBroker(), MemoryBroker()
    client, there = Client(source, settings=Settings()), Client(target, settings=Settings())
    job = client.using(queue="old").enqueue(note, "a")
    later = client.using(queue="old").enqueue_in(500, note, "b")
    source.enqueue([Envelope("garbage", "old", b"no job")])
    due = client.inspector.get(later.id).at  # type: ignore[union-attr]

    moved = client.move(target, queue="old", to_queue="new")

    assert (2, 1, 0) == (moved.ready, moved.scheduled, moved.left)
    shown = {stored.id: stored for stored in there.inspector.find()}
    assert shown[job.id].job == job.evolve(queue="new")
    assert (due, "new") == (shown[later.id].at, shown[later.id].job.queue)  # type: ignore[union-attr]
    assert (b"no job", "new") == (shown["garbage"].body, shown["garbage"].queue)


def test_a_job_that_is_due_soon_is_waited_for() -> None:
    """What might come due on both sides is moved when it is ready."""
    clock = Hand()
    source, target = MemoryBroker(clock=clock), MemoryBroker(clock=clock)
    client = Client(source, settings=Settings())
    client.using(queue="old").enqueue_in(2, note, "soon")
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds
        source.promote_due(limit=10)

    mover = Mover(
        source, target, queue="old", to_queue=None, store=lambda: client.store,
        clock=clock, sleep=sleep,
    )  # fmt: skip

    assert 1 == mover.run().ready
    assert 1 == target.count(State.READY)
    assert 2 <= sum(slept) < 4


@pytest.mark.parametrize("to_queue", [None, "new"])
def test_under_live_workers_each_job_runs_once(tmp_path: Path, to_queue: str | None) -> None:
    """Somebody takes jobs on both sides while they move: together they get each job once."""
    source = SQLiteBroker(f"sqlite:///{tmp_path}/a.db")
    target = SQLiteBroker(f"sqlite:///{tmp_path}/b.db") if to_queue is None else source
    client = Client(source, settings=Settings())
    jobs = client.using(queue="old").enqueue_many(note, [("x",)] * 600)
    taken: list[str] = []
    done = threading.Event()

    def take(broker: SQLiteBroker, queue: str, name: str) -> None:
        session = Session(name)
        broker.open(session, ttl=100)
        while not done.is_set() or broker.count(State.READY, queue):
            lent = broker.dequeue(session, [Share(queue)], limit=3, wait=0.01)
            taken.extend(delivery.envelope.id for delivery in lent)
            broker.ack(lent)

    threads = [
        threading.Thread(target=take, args=(source, "old", "one")),
        threading.Thread(target=take, args=(target, to_queue or "old", "other")),
    ]
    for thread in threads:
        thread.start()
    goes_to = None if target is source else target
    moved = client.move(goes_to, queue="old", to_queue=to_queue)
    done.set()
    for thread in threads:
        thread.join(20)

    assert Counter(job.id for job in jobs) == Counter(taken)
    assert moved.total > 0
    source.close()
    target.close()


def test_a_move_to_where_they_are_is_refused() -> None:
    """The same queue of the same broker is no place to move to."""
    client = Client(MemoryBroker(), settings=Settings())
    with pytest.raises(ConfigError, match="there already"):
        client.move(queue="old")
    with pytest.raises(ConfigError, match="cannot name a queue"):
        client.move(queue="old", to_queue="no good")
