"""What a worker does about replies it never got, and about sessions it cannot be sure of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import Session, State
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerUnavailable
from goose.testing import FaultyBroker
from goose.testing.faults import Fault
from goose.worker.fetch import COMPARE_AGAIN
from tests.worker.engine_kit import Bench, HandClock, job, write_app

TTL = 30.0


@pytest.fixture
def app(importable: Path) -> Any:
    """The module whose functions run."""
    return write_app(importable)


@pytest.fixture
def bench(app: Any) -> Bench:
    """An engine whose broker can be made to fail."""
    clock = HandClock()
    return Bench(broker=FaultyBroker(MemoryBroker(clock=clock.wall)), clock=clock)


def lose_the_reply(bench: Bench, verb: str) -> None:
    """Let the next call of *verb* be carried out, and its reply be lost."""
    at = bench.broker.calls_of(verb) + 1
    bench.broker.inject(Fault.outage(at, "after", verb=verb))


def test_jobs_lent_unheard_are_given_back(bench: Bench, app: Any) -> None:
    """After a dequeue without a reply the next step gives back what it lent, and it runs."""
    bench.enqueue(job("note", 1))
    lose_the_reply(bench, "dequeue")

    with pytest.raises(BrokerUnavailable):
        bench.fetch()
    assert 1 == bench.broker.count(State.RUNNING)

    bench.round()
    assert [((1,), {})] == app.calls
    assert 0 == bench.broker.count(State.RUNNING)


def test_whoever_was_paused_while_comparing_beats_before_it_takes_jobs(
    bench: Bench, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session may be given up at any moment; seed 60140 of the simulator found it."""
    bench.engine.heartbeat.step(bench.clock.mono())
    lose_the_reply(bench, "dequeue")
    with pytest.raises(BrokerUnavailable):
        bench.fetch()
    bench.enqueue(job("note", 1))
    held = bench.broker.held

    def pauses(session: Session) -> Any:
        found = held(session)
        bench.clock.turn(TTL)
        return found

    monkeypatch.setattr(bench.broker, "held", pauses)
    bench.fetch()

    assert 1 == bench.broker.count(State.READY)


def test_a_defect_after_the_loan_is_doubted_too(
    bench: Bench, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a broker lent before it raised something it should not is given back, and runs."""
    dequeue = bench.broker.dequeue

    def lends_and_fails(*args: Any, **options: Any) -> None:
        dequeue(*args, **options)
        raise OverflowError("a defect")

    bench.enqueue(job("note", 1))
    with monkeypatch.context() as patch:
        patch.setattr(bench.broker, "dequeue", lends_and_fails)
        with pytest.raises(OverflowError):
            bench.fetch()

    bench.round()
    assert [((1,), {})] == app.calls
    assert 0 == bench.broker.count(State.RUNNING)


def test_what_runs_is_not_given_back(bench: Bench, app: Any) -> None:
    """Jobs that are held, running or not settled yet stay this process's."""
    bench.enqueue(job("note", 1), job("note", 2))
    bench.fetch()
    work = bench.engine.take()
    assert work is not None
    bench.engine.fetcher.doubt()

    bench.fetch()

    assert 2 == bench.broker.count(State.RUNNING)
    bench.engine.run(work, lambda fn, execution: fn(execution))
    bench.engine.fetcher.doubt()
    bench.fetch()
    assert 2 == bench.broker.count(State.RUNNING)


def test_loans_are_compared_soon_and_once_more_later(bench: Bench) -> None:
    """A call without a reply may be carried out late, so two looks follow the first, and no more."""
    bench.engine.fetcher.doubt()
    bench.fetch()
    bench.fetch()
    assert 1 == bench.broker.calls_of("held")

    for looks, pause in enumerate((*COMPARE_AGAIN, 1000.0), start=1):
        bench.clock.turn(pause - 0.1)
        bench.fetch()
        assert looks == bench.broker.calls_of("held")
        bench.clock.turn(0.2)
        bench.fetch()

    assert 1 + len(COMPARE_AGAIN) == bench.broker.calls_of("held")


def test_orphans_taken_over_unheard_are_given_back(bench: Bench, app: Any) -> None:
    """After a recover without a reply the orphans run again, though this process lives on."""
    dead = Session("dead")
    bench.broker.open(dead, ttl=1.0)
    bench.enqueue(job("note", 1))
    bench.broker.dequeue(dead, bench.config.queues, limit=1, wait=0)
    for _ in range(8):
        bench.engine.heartbeat.step(bench.clock.mono())
        bench.clock.turn(TTL / 6)
        if bench.broker.calls_of("recover") == 6:
            lose_the_reply(bench, "recover")
        try:
            bench.engine.checker.step(bench.clock.mono())
        except BrokerUnavailable:
            break
    else:
        pytest.fail("no orphan was recovered")

    bench.round()

    assert [((1,), {})] == app.calls


def test_an_epoch_whose_opening_had_no_reply_is_passed_over(bench: Bench) -> None:
    """A lost session is followed by one that opens, whatever became of those before it."""
    heartbeat = bench.engine.heartbeat
    bench.broker.recover(_other(bench), limit=1, dead=bench.session)
    lose_the_reply(bench, "open")
    with pytest.raises(BrokerUnavailable):
        heartbeat.step(bench.clock.mono())

    heartbeat.step(bench.clock.mono())

    assert Session(bench.session.id, 3) == bench.engine.session
    bench.enqueue(job("note", 1))
    bench.round()
    assert 0 == bench.broker.count(State.READY)


def test_a_process_that_was_away_beats_before_it_takes(bench: Bench) -> None:
    """Half a ttl after its last beat a process takes no jobs until it has beaten again."""
    bench.enqueue(job("note", 1))
    bench.engine.heartbeat.step(bench.clock.mono())
    bench.clock.turn(TTL / 2)

    bench.fetch()
    assert 1 == bench.broker.count(State.READY)

    bench.engine.heartbeat.step(bench.clock.mono())
    bench.fetch()
    assert 0 == bench.broker.count(State.READY)


def test_a_process_paused_right_after_its_opening_beats_first_too(importable: Path) -> None:
    """The opening counts as a beat: long after it nothing is taken before the next one."""
    write_app(importable)
    bench = Bench(opened=False)
    heartbeat = bench.engine.heartbeat
    assert heartbeat is not None
    heartbeat.begin(bench.clock.mono())
    bench.enqueue(job("note"))
    bench.clock.turn(bench.config.ttl - 1)
    bench.fetch()
    assert 0 == bench.engine.buffer.held

    heartbeat.step(bench.clock.mono())
    bench.fetch()
    assert 1 == bench.engine.buffer.held


def test_a_process_that_others_beat_for_takes_jobs(bench: Bench) -> None:
    """Where the heartbeat is never called here, nothing waits for it."""
    bench.enqueue(job("note", 1))
    bench.clock.turn(TTL * 10)

    bench.fetch()

    assert 0 == bench.broker.count(State.READY)


def test_a_run_without_a_timeout_needs_no_event_loop(bench: Bench, app: Any) -> None:
    """An async function without a timeout can be driven by hand, from await to await."""
    bench.enqueue(job("anote", 1))
    bench.fetch()
    work = bench.engine.take_async()
    assert work is not None
    work.slot = 0
    run = bench.engine.arun(work)

    assert run.send(None) is None
    with pytest.raises(StopIteration):
        run.send(None)

    bench.settle()
    assert [((1,), {})] == app.calls
    assert 0 == bench.broker.count(State.RUNNING)


def _other(bench: Bench) -> Session:
    other = Session("other")
    bench.broker.open(other, ttl=TTL)
    return other
