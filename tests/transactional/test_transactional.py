"""A transactional function's writes and the end of its job are one step, however it ends."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from goose.brokers.base import Delivery, Session, Share, State
from goose.brokers.memory import MemoryBroker
from goose.brokers.postgres.completing import PostgresCompletion
from goose.brokers.sqlite import SQLiteBroker
from goose.brokers.sqlite.completing import SQLiteCompletion
from goose.errors import BrokerUnavailable, JobFailed, Unsupported
from goose.features.once import once
from goose.jobs import Envelope, Job, new_id, seal
from goose.stores.base import Get
from goose.testing import drain, inline
from goose.worker.buffer import Buffer
from goose.worker.embedded import Worker
from goose.worker.watch import Watch
from goose.worker.work import Plan, Work
from tests.transactional import jobs
from tests.transactional.conftest import Place
from tests.worker.engine_kit import HandClock


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Forget what the test before had called."""
    yield
    jobs.between.clear()
    jobs.seen.clear()


def test_done_and_written_are_one(place: Place) -> None:
    """The effect is there and the job is not; until the end both were as before."""
    place.client.enqueue(jobs.write, "one")
    jobs.between.append(
        lambda: jobs.seen.append((place.effects(), place.broker.count(State.RUNNING)))
    )

    [run] = drain(place.broker).check().runs
    assert ("done", "one") == (run.ending, run.result)
    assert [([], 1)] == jobs.seen
    assert ["one"] == place.effects()
    assert 0 == place.broker.count(State.RUNNING)


@pytest.mark.parametrize(
    ("ending", "told", "state"),
    [
        ("fail", "retried", State.SCHEDULED),
        ("bury", "dead", State.DEAD),
        ("postpone", "postponed", State.SCHEDULED),
        ("skip", "skipped", None),
    ],
)
def test_what_raises_has_written_nothing(
    place: Place, ending: str, told: str, state: State | None
) -> None:
    """Whatever is raised, the writes are rolled back and the job is settled as any other."""
    job = place.client.enqueue(jobs.write, "one", ending)

    assert {told: 1} == drain(place.broker).endings
    assert [] == place.effects()
    stored = place.broker.find(job.id)
    assert state is (stored.state if stored else None)


@pytest.mark.parametrize("ending", ["commit", "COMMIT"])
def test_a_function_cannot_commit_by_itself(place: Place, ending: str) -> None:
    """``commit()`` is refused, and a COMMIT as SQL is found out: the run has failed."""
    place.client.enqueue(jobs.write, "one", ending)

    drained = drain(place.broker)
    assert {"retried": 1} == drained.endings
    assert "Goose" in str(drained.errors[0]) or "forbidden" in str(drained.errors[0])
    # What was committed as SQL cannot be taken back; what was refused is not there.
    assert ([] if ending == "commit" else ["one"]) == place.effects()


def test_a_job_can_enqueue_in_its_transaction(place: Place) -> None:
    """Jobs enqueued by the connection exist once the job is done; others have no connection."""
    place.client.enqueue(jobs.write, "one", "enqueue")
    jobs.client[:] = [place.client]

    drained = drain(place.broker)
    assert ["done", "retried"] == [run.ending for run in drained.runs]
    assert isinstance(drained.errors[0], LookupError)
    assert "transactional=True" in str(drained.errors[0])


def test_blocks_inside_are_savepoints(place: Place) -> None:
    """A block that fails is undone, and no more than that."""
    place.client.enqueue(jobs.nested)
    drain(place.broker).check()

    assert ["kept"] == place.effects()


def test_a_job_with_traits_is_noted_and_then_settled(place: Place) -> None:
    """Its end is told to features before it is forgotten; who finds it noted does not run it again."""
    job = Job(new_id(), "tests.transactional.jobs:write", ("one",), {}, "default", enqueued_at=1.0)
    place.broker.enqueue([seal(once(job))])
    told: list[object] = []
    jobs.between.append(lambda: told.append(place.effects()))
    client = place.client  # which has the store, and closes it

    assert {"done": 1} == drain(client).endings
    assert (["one"], [[]]) == (place.effects(), told)
    with closing(place.broker.open_store()) as store:
        assert [b"1"] == list(store.apply([Get(f"once:{job.id}")]))

    noted = job.evolve(id=new_id(), traits={"once": True, "committed": True}, crashes=9)
    place.broker.enqueue([seal(noted)])
    assert {"done": 1} == drain(client).endings
    assert (1, ["one"]) == (len(told), place.effects())
    assert not place.broker.queues()
    client.close()


def test_an_ambiguous_commit_that_happened(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """When only the commit's answer is lost, the job is done, and does not run again."""
    place.client.enqueue(jobs.write, "one")
    _lose_the_commit(monkeypatch, place, carried_out=True)

    assert {"done": 1} == drain(place.broker).endings
    assert ["one"] == place.effects()
    assert not place.broker.queues()


def test_an_ambiguous_commit_that_did_not_happen(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the commit itself is lost, the run has failed, and the job runs again."""
    place.client.enqueue(jobs.write, "one")
    _lose_the_commit(monkeypatch, place, carried_out=False)

    assert {"retried": 1} == drain(place.broker).endings
    assert [] == place.effects()
    monkeypatch.undo()
    assert {"done": 1} == drain(place.broker, scheduled=True).endings
    assert ["one"] == place.effects()


def _lose_the_commit(monkeypatch: pytest.MonkeyPatch, place: Place, *, carried_out: bool) -> None:
    """Have the next commit fail without a word, and the first question after it as well."""
    kind: Any = SQLiteCompletion if isinstance(place.broker, SQLiteBroker) else PostgresCompletion
    commit, is_done = kind.commit, kind.is_done
    asked: list[bool] = []

    def lose(completion: Any, note: Envelope | None) -> bool:
        if carried_out:
            assert commit(completion, note)
        else:
            completion.connection.close()
        raise BrokerUnavailable("no answer")

    def ask(completion: Any) -> bool:
        asked.append(True)
        if len(asked) == 1:
            raise BrokerUnavailable("no answer to this either")
        return bool(is_done(completion))

    monkeypatch.setattr(kind, "commit", lose)
    monkeypatch.setattr(kind, "is_done", ask)


def test_a_job_without_a_connection_comes_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no transaction can be begun now, the job is postponed and no attempt is charged."""
    job = place.client.enqueue(jobs.write, "one")

    def refuse(delivery: object) -> None:
        raise BrokerUnavailable("too many clients")

    monkeypatch.setattr(place.broker, "begin", refuse)
    [run] = drain(place.broker).runs
    assert ("postponed", 0) == (run.ending, run.job.attempt if run.job else None)
    stored = place.broker.find(job.id)
    assert stored is not None
    assert State.SCHEDULED is stored.state


def test_a_worker_runs_them(place: Place) -> None:
    """On a worker's threads many at once are done, each once, and counted as any others."""
    place.client.enqueue_many(jobs.write, [(f"{n:02}",) for n in range(20)])
    with Worker(place.broker, allow=["tests.transactional.jobs"], concurrency=4) as worker:
        deadline = time.monotonic() + 30
        while worker.statistics().succeeded < 20:
            assert time.monotonic() < deadline, worker.statistics()
            time.sleep(0.01)
        numbers = worker.statistics()

    assert (20, 20, 0) == (numbers.processed, numbers.succeeded, numbers.lost_settles)
    assert [f"{n:02}" for n in range(20)] == place.effects()


def test_what_cannot_be_is_refused_at_the_start(sqlite_place: Place) -> None:
    """A worker whose broker has no transactions for a function on offer does not start."""
    with pytest.raises(Unsupported, match=r"jobs:\w+ is transactional.*MemoryBroker.*PostgreSQL"):
        Worker(MemoryBroker(), allow=["tests.transactional.jobs"]).start()
    with pytest.raises(Unsupported, match=r"awrite is transactional.*SQLiteBroker"):
        Worker(sqlite_place.broker, allow=["tests.transactional.async_jobs"]).start()


def test_inline_has_no_transactions(sqlite_place: Place) -> None:
    """A test that runs a transactional job without a broker is told what to do."""
    with inline(), pytest.raises(JobFailed) as failed:
        sqlite_place.client.enqueue(jobs.write, "one")

    assert "goose.testing.drain" in str(failed.value.__cause__)


def test_a_transaction_that_stays_open_is_told_about(caplog: pytest.LogCaptureFixture) -> None:
    """After a minute, long before other jobs count as slow, there is a warning, once."""
    clock, slots = HandClock(), []
    for transactional in (True, False):
        plan = Plan(False, lambda args, kwargs: (args, dict(kwargs)), lambda _: None, transactional)
        job = Job("id", "app:f", (), {}, "mail", 0.0)
        work = Work(Delivery(seal(job), None, Session("s")), job, plan, clock.mono())
        work.started_mono = clock.mono()
        slots.append(SimpleNamespace(work=work, thread=threading.current_thread()))
    watch = Watch(
        lambda: slots,
        Buffer(1, 1, on_room=lambda: None),
        slow_after=300.0,
        settle=lambda _: None,
        tick=lambda _: None,
        clock=clock,
    )
    for _ in range(2):
        watch.step(clock.mono() + 59)
        watch.step(clock.mono() + 61)

    [told] = [record.getMessage() for record in caplog.records]
    assert "its transaction is open as long" in told


def test_on_sqlite_one_writes_at_a_time(tmp_path: Path) -> None:
    """Who cannot write within ``timeout`` is told so, and the next one can."""
    broker = SQLiteBroker(tmp_path / "jobs.db", timeout=0.2, synchronous="normal")
    broker.enqueue([Envelope("one", "mail", b""), Envelope("two", "mail", b"")])
    session = Session("worker")
    broker.open(session, ttl=60)
    first, second = broker.dequeue(session, [Share("mail")], limit=2, wait=0)
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerUnavailable, match="locked by another writer"):
            broker.begin(first)
    begun = broker.begin(first)
    with pytest.raises(BrokerUnavailable, match="other transactional jobs"):
        broker.begin(second)
    assert begun.commit()
    begun.close()
    with closing(broker.begin(second)) as then:
        assert then.commit()
    broker.close()
