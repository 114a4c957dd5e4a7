"""Batches on every broker and store: they end once with all their members, wherever somebody dies."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import goose
import goose.testing
from goose.batching import Batch
from goose.brokers.base import State
from goose.brokers.memory import MemoryBroker
from goose.errors import (
    ArgumentError,
    BatchError,
    BrokerUnavailable,
    ConfigError,
    EnqueueError,
    Unsupported,
)
from goose.features.batches.book import SWEEP
from goose.features.batches.records import CLAIM, dump
from goose.settings import Settings
from goose.testing.faults import Fault, FaultyBroker
from tests.features.places import Place, Process, crash_points

APP = """
import goose

runs = []
fails = set()
progress = []

def work(word: str = "") -> None:
    runs.append(word)
    if word in fails:
        raise ValueError(word)

def add(words: list[str]) -> None:
    runs.append("add")
    for word in words:
        goose.current().batch.enqueue(work, word)

async def aadd(words: list[str]) -> None:
    runs.append("aadd")
    await goose.current().batch.aio.enqueue_many(work, [(word,) for word in words])

def complete(note: str = "complete") -> None:
    runs.append(note)
    progress.append(goose.current().batch.progress())

def success() -> None:
    runs.append("success")

def quiet() -> None:
    runs.append("complete")
"""


@pytest.fixture(autouse=True)
def app(importable: Path) -> Any:
    """The functions of members and callbacks."""
    (importable / "feature_app.py").write_text(APP)
    import feature_app

    for kept in (feature_app.runs, feature_app.fails, feature_app.progress):
        kept.clear()
    return feature_app


def both(app: Any) -> dict[str, Any]:
    """The two callbacks."""
    return {"on_success": app.success, "on_complete": app.complete}


def at_rest(place: Place) -> None:
    """Nothing is left of jobs, dead ones apart."""
    left = {state: n for state, n in place.counts().items() if state is not State.DEAD and n}
    assert {} == left


def test_callbacks_follow_the_last_member(place: Place, app: Any) -> None:
    """A batch ends when it is sealed and all have run; then both callbacks run once."""
    call = goose.call(app.complete, "all came")
    with place.client.batch(on_success=app.success, on_complete=call, name="letters") as batch:
        jobs = [batch.enqueue(app.work, "a"), batch.enqueue_in(0.01, app.work, "b")]
        jobs += batch.enqueue_many(app.work, [("c",), ("d",)])
        place.process().run()
        assert "success" not in app.runs
    assert 4 == len({job.id for job in jobs}) == batch.progress().total
    place.process().run(lambda: len(app.runs) == 6)

    assert ["a", "b", "c", "d"] == sorted(app.runs[:-2])
    assert {"all came", "success"} == {*app.runs[-2:]}
    assert (4, 4, 0, "success") == (
        app.progress[0].total,
        app.progress[0].done,
        app.progress[0].remaining,
        app.progress[0].status,
    )
    assert "letters" == place.client.find_batch(batch.id).name
    place.process().run()
    at_rest(place)


def test_the_dead_are_told_and_a_replay_makes_it_good(place: Place, app: Any) -> None:
    """With a dead member the batch is partial; replayed and done, it is a success after all."""
    app.fails.add("b")
    client = place.client.using(retry=goose.Retry(max_retries=0))
    batch = client.using(**both(app)).enqueue_batch(app.work, [("a",), ("b",)])
    process = place.process()
    process.run()
    assert "success" not in app.runs
    assert ("partial", 1, 1) == (app.progress[0].status, app.progress[0].dead, app.progress[0].done)
    app.fails.clear()
    assert 1 == len(place.client.inspector.replay())
    assert (None, 1) == (batch.progress().status, batch.progress().remaining)
    process.run()

    assert 1 == app.runs.count("success") == app.runs.count("complete")
    assert "success" == batch.progress().status


def test_a_batch_without_members_is_a_success(place: Place, app: Any) -> None:
    """Nothing to do is done at once, and callbacks say so."""
    batch = place.client.using(**both(app)).enqueue_batch(app.work, [])
    place.process().run()

    assert ["complete", "success"] == sorted(app.runs)
    assert 0 == batch.wait(10).total


@pytest.mark.parametrize("adder", ["add", "aadd"])
def test_jobs_add_jobs_to_their_own_batch(place: Place, app: Any, adder: str) -> None:
    """What a member adds is waited for, although the batch was sealed before."""
    with place.client.batch(**both(app)) as batch:
        batch.enqueue(getattr(app, adder), ["x", "y"])
    with place.worker(["feature_app"]):
        assert 3 == batch.wait(20).total
        deadline = time.monotonic() + 10
        while len(app.runs) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    assert [adder, "x", "y"] == [app.runs[0], *sorted(app.runs[1:3])]
    assert ["complete", "success"] == sorted(app.runs[3:])


def test_a_name_is_of_one_batch(place: Place, app: Any) -> None:
    """While it is kept another one of that name is refused; deleted, it is free."""
    first = place.client.using(name="nightly").enqueue_batch(app.work, [("a",)])
    with pytest.raises(BatchError, match="nightly"):
        place.client.batch(name="nightly").open()
    assert first.id == place.client.find_batch("nightly").id
    assert first.delete()
    with pytest.raises(BatchError, match="deleted"):
        first.progress()
    second = place.client.batch(name="nightly").open()
    place.process().run()

    assert ["a"] == app.runs
    assert 0 == second.progress().total
    assert [second.id] == [record.id for record in place.client.batches.records()]


def test_cancelled_members_do_not_run(place: Place, app: Any) -> None:
    """Those that wait are removed or end unrun; the batch ends by that, and is no success."""
    with place.client.batch(**both(app)) as batch:
        batch.enqueue(app.work, "a")
        batch.enqueue_in(3600, app.work, "b")
    batch.cancel()
    place.process().run()
    if "rabbitmq" in place.name:  # which cannot list what is scheduled
        assert 1 == batch.progress().cancelled
        return

    assert ["complete"] == app.runs
    assert ("dead", 2) == (app.progress[0].status, app.progress[0].cancelled)
    at_rest(place)


def test_a_member_that_is_removed_is_cancelled(place: Place, app: Any) -> None:
    """So it is to those who ask for it, or for the batch, at any moment: it was never deleted."""
    with place.client.using(result=True).batch(on_complete=app.complete) as batch:
        member = batch.enqueue(app.work, "a")
    batch.cancel()
    place.process().run()

    assert "cancelled" == member.status()
    assert (1, 0) == (batch.progress().cancelled, batch.progress().deleted)


def test_running_members_of_cancelled_batches_are_told(place: Place, app: Any) -> None:
    """A member that runs when its batch is cancelled is asked to stop, where the broker shows it."""
    batch = place.client.enqueue_batch(app.work, [("a",)])
    other = place.client.enqueue(app.work, "b")
    process = place.process()
    process.engine.fetcher.step(process.clock.mono())
    answers = batch.cancel()

    assert other.id not in answers
    expected = [] if "rabbitmq" in place.name else ["stopping"]
    assert expected == list(answers.values())


def test_workers_end_members_of_cancelled_batches(place: Place, app: Any) -> None:
    """Where nobody can remove what waits, whoever is lent a member ends it as cancelled."""
    batch = place.client.using(on_complete=app.complete).enqueue_batch(app.work, [("a",), ("b",)])
    place.client.batches.cancel(batch.id)
    place.process().run()

    assert ["complete"] == app.runs
    assert 2 == app.progress[0].cancelled


def test_deleted_jobs_are_ends(place: Place, app: Any) -> None:
    """Whoever deletes the last member ends the batch."""
    with place.client.batch(on_complete=app.complete) as batch:
        batch.enqueue(app.work, "a")
    assert 1 == place.client.inspector.purge(State.READY)
    place.process().run()

    assert ["complete"] == app.runs
    assert 1 == app.progress[0].deleted


def test_a_group_stays_open(place: Place, app: Any) -> None:
    """Anybody adds to a batch that stays open; it ends once it is sealed."""
    for word in ("a", "b"):
        with place.client.batch(name="imports", stay_open=True, on_complete=app.complete) as batch:
            batch.enqueue(app.work, word)
    place.process().run()
    assert (2, 2, None) == (
        batch.progress().total,
        batch.progress().done,
        batch.progress().status,
    )
    place.client.find_batch("imports").enqueue(app.work, "c")
    place.process().run()
    assert ["a", "b", "c"] == sorted(app.runs)
    place.client.find_batch("imports").seal()
    place.process().run()

    assert 3 == app.progress[0].done


def test_enqueueing_goes_on_after_a_crash(place: Place, app: Any) -> None:
    """The same items again, by name: what is known is passed over, and each is one member, once."""
    items = [(f"{number}",) for number in range(1200)]

    def broken() -> Any:
        yield from items[:1100]
        raise OSError("the client dies")

    plan: Any = {"name": "many", "on_complete": app.complete}
    with pytest.raises(OSError, match="dies"):
        place.client.batch(**plan).enqueue_batch(app.work, broken())
    place.process().run()
    done_before = len(app.runs)
    assert 1000 == done_before
    with pytest.raises(BatchError, match="many"):
        place.client.batch(**plan).open()
    place.client.batch(**plan, resume=True).enqueue_batch(app.work, items)
    place.process().run()

    assert 1201 == len(app.runs)
    assert {1} == set(Counter(app.runs).values())
    assert (1200, "success") == (app.progress[0].total, app.progress[0].status)


def test_items_are_taken_as_they_are_stored(app: Any) -> None:
    """However many items there are, no more than a chunk of them is ever held."""
    client = goose.Client(MemoryBroker(), settings=Settings())
    inspector = client.inspector
    ahead: list[int] = []

    def items() -> Any:
        for number in range(2000):
            if number % 100 == 0:
                ahead.append(number - inspector.count(State.READY))
            yield (f"{number}",)

    batch = client.enqueue_batch(app.work, items())

    assert 2000 == batch.progress().total
    assert max(ahead) <= 500


def test_a_block_that_raises_leaves_the_batch_open(place: Place, app: Any) -> None:
    """What it has enqueued runs, and no callback comes until somebody goes on."""
    plan: Any = {"name": "half", "on_complete": app.complete}
    with pytest.raises(OSError, match="half"), place.client.batch(**plan) as batch:
        batch.enqueue(app.work, "a")
        raise OSError("half way")
    place.process().run()
    assert ["a"] == app.runs
    assert (1, None, True) == (
        batch.progress().done,
        batch.progress().status,
        batch.progress().is_open,
    )
    with place.client.batch(**plan, resume=True) as again:
        again.enqueue(app.work, "a")
        again.enqueue(app.work, "b")
    place.process().run()

    assert ["a", "b", "complete"] == app.runs
    assert batch.id == again.id


def test_the_end_of_a_batch_is_measured(place: Place, app: Any) -> None:
    """Status and members are counted and the time is taken once; a replay counts the new status."""
    counted: list[tuple[str, float, dict[str, str]]] = []

    class Backend:
        never_blocks = True

        def increment(self, name: str, value: int, tags: Any) -> None:
            counted.append((name, value, dict(tags)))

        def timing(self, name: str, seconds: float, tags: Any) -> None:
            counted.append((name, seconds, dict(tags)))

        def gauge(self, name: str, value: float, tags: Any) -> None: ...

    app.fails.add("b")
    client = place.client.using(retry=goose.Retry(max_retries=0))
    client.enqueue_batch(app.work, [("a",), ("b",)])
    process = place.process(metrics=[Backend()])
    process.run()
    app.fails.clear()
    place.client.inspector.replay()
    process.run()

    ours = [each for each in counted if each[0].startswith("batch.")]
    assert ("batch.status", 1, {"status": "partial"}) == ours[0]
    assert ("batch.completion_time", {"status": "partial"}) == (ours[1][0], ours[1][2])
    assert 0 <= ours[1][1] < 60
    assert [
        ("batch.members", 1, {"ending": "done"}),
        ("batch.members", 1, {"ending": "dead"}),
        ("batch.status", 1, {"status": "success"}),
    ] == ours[2:]


# --- crashes -------------------------------------------------------------------------------


@pytest.mark.timeout(240)
def test_no_crash_of_a_worker_leaves_a_batch_stuck(
    new_place: Callable[[], Place], app: Any
) -> None:
    """A worker dies before or after any call while three members end: callbacks run, and once.

    Only a crash between a callback's own run and its ack may have it run twice, as any job.
    """

    def scene(place: Place, _: Process) -> None:
        app.runs.clear()
        client = place.client.using(on_success=app.success, on_complete=app.quiet)
        client.enqueue_batch(app.work, [("a",), ("b",), ("c",)])

    points = 0
    for place, crash in crash_points(new_place, scene):
        points += 1
        ran = Counter(app.runs)
        settle(place)
        [record] = place.client.batches.records()
        assert ("ended", "success") == (record.phase, record.status), crash
        assert 3 == place.client.find_batch(record.id).progress().done
        runs = Counter(app.runs)
        for callback in ("complete", "success"):
            assert 1 <= runs[callback] <= 1 + ran[callback], crash
        for member in "abc":
            assert 1 <= runs[member] <= 1 + ran[member], crash
        at_rest(place)
    assert points >= 8


@pytest.mark.timeout(240)
def test_no_crash_of_a_client_leaves_a_batch_stuck(place: Place, app: Any) -> None:
    """A client fails before or after any call: it says so, and can go on; no member is run twice."""
    items = [("a",), ("b",), ("c",)]
    cuts = 0
    for verb in ("enqueue", "store"):
        for side in ("before", "after"):
            for at in range(1, 12):
                app.runs.clear()
                broker = FaultyBroker(place.broker, Fault.outage(at, side, verb="enqueue"))  # type: ignore[arg-type]
                client = Cut(
                    broker if verb == "enqueue" else place.broker,
                    place,
                    at if verb == "store" else 0,
                    side,
                )
                plan: Any = {"name": f"{verb}{side}{at}", **both(app)}
                try:
                    client.batch(**plan).enqueue_batch(app.work, items)
                except (BrokerUnavailable, EnqueueError):
                    cuts += 1
                    place.client.batch(**plan, resume=True).enqueue_batch(app.work, items)
                settle(place)
                assert ["a", "b", "c", "complete", "success"] == sorted(app.runs), plan
    assert cuts >= 10


class Cut(goose.Client):
    """A client whose store fails at one call."""

    def __init__(self, broker: Any, place: Place, at: int, side: str) -> None:
        super().__init__(broker, settings=place.settings)
        self._cut = _CutStore(place.store, at, side)

    @property
    def store(self) -> Any:
        return self._cut


class _CutStore:
    def __init__(self, store: Any, at: int, side: str) -> None:
        self._store, self._left, self._side = store, at, side

    def apply(self, operations: Any) -> Any:
        self._left -= 1
        if self._left == 0 and self._side == "before":
            raise BrokerUnavailable("cut")
        answer = self._store.apply(operations)
        if self._left == 0:
            raise BrokerUnavailable("cut")
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def settle(place: Place) -> None:
    """Work until nothing is left to do, as workers would within two minutes."""
    place.process().run()
    for record in place.client.batches.records():
        if record.phase in ("sealed", "ending"):
            overdue(place, record)
            place.client.batches.sweep()
    place.process().run()


def overdue(place: Place, record: Any) -> None:
    """Have it be later: the last sweep is over, and so is a claim."""
    place.store.delete(SWEEP)
    place.store.put(record.key, dump(replace(record, claimed_at=record.claimed_at - 2 * CLAIM)))


# --- refused -------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_refused(app: Any) -> None:
    """Names, durations, and a resume without a name are told where they are given."""
    client = goose.Client(MemoryBroker(), settings=Settings())
    for plan, told in (
        ({"name": "a b"}, "cannot name a batch"),
        ({"linger": -1}, "linger"),
        ({"resume": True}, "by its name"),
    ):
        with pytest.raises(ConfigError, match=told):
            client.batch(**plan)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError):
        client.batch(on_success=goose.call(app.success, 3)).open()
    with pytest.raises(BatchError, match="not open"):
        client.batch().enqueue(app.work)
    with pytest.raises(Unsupported, match="on one broker"):
        client.batch().using(broker="memory://elsewhere")
    with pytest.raises(ConfigError, match="no batch 'x'"):
        client.find_batch("x")
    with pytest.raises(LookupError, match="without a worker"):
        goose.Execution(goose.Job("x", "a:b"), (), {}, {}).batch  # noqa: B018


def test_waiting_ends(place: Place, app: Any) -> None:
    """A batch that does not end in time is told by an error."""
    batch = place.client.enqueue_batch(app.work, [("a",)])
    with pytest.raises(TimeoutError, match=batch.id):
        batch.wait(0.05)


def test_a_test_runs_a_batch_inline(own_folder: Path, app: Any) -> None:
    """Members run as they are enqueued, callbacks where the block ends, and nothing is stored."""
    goose.configure(broker="sqlite:///inline.db")
    with goose.testing.inline(), goose.batch(on_success=app.success) as batch:
        batch.enqueue(app.work, "a")
        batch.enqueue_many(app.work, [("b",), ("c",)])
        assert ["a", "b", "c"] == app.runs

    assert ["a", "b", "c", "success"] == app.runs
    assert ("success", 3) == (batch.progress().status, batch.progress().done)
    assert not (own_folder / "inline.db").exists()


def test_the_verbs_of_the_door(own_folder: Path, app: Any) -> None:
    """`goose.batch` and `goose.enqueue_batch` use the configured broker."""
    goose.configure(broker="sqlite:///jobs.db")
    with goose.batch(name="x") as batch:
        batch.enqueue(app.work, "a")
    assert isinstance(goose.enqueue_batch(app.work, [("b",)]), Batch)

    assert ["x", ""] == [record.name for record in goose.Client().batches.records()]


def test_a_member_may_be_as_large_as_any_job(place: Place, app: Any) -> None:
    """That a job becomes a member from elsewhere is not what makes it too large."""
    with goose.Client(settings=replace(place.settings, max_bytes=3_000_000)) as client:
        with client.batch(stay_open=True) as batch:
            batch.enqueue(app.work, "x" * 2_000_000)

        assert 1 == batch.progress().total


def test_failed_members_are_retrying(place: Place, app: Any) -> None:
    """Progress tells those that failed and will run again from those that wait."""
    app.fails.add("b")
    batch = place.client.enqueue_batch(app.work, [("a",), ("b",), ("c",)])
    place.process().run()

    progress = batch.progress()
    assert (2, 1, 1, None) == (
        progress.done,
        progress.retrying,
        progress.remaining,
        progress.status,
    )
