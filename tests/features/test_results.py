"""What a job returned, how it ended and how far it is can be asked for, wherever it ran."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

import goose
import goose.testing
from goose.brokers.base import State
from goose.brokers.memory import MemoryBroker
from goose.errors import ConfigError, JobFailed, ResultTimeout, ResultUnavailable
from goose.features.results.progress import ProgressLog, latest
from goose.features.results.records import Record, key_of, read, write
from goose.stores.base import MAX_VALUE, Put
from goose.stores.memory import MemoryStore
from tests.features.places import Place, Process, crash_points

APP = """
import goose
from dataclasses import dataclass
from datetime import date

@dataclass
class Visit:
    who: str
    when: date

def visit(who: str) -> Visit:
    return Visit(who, date(1815, 12, 10))

async def later() -> list[date]:
    return [date(1906, 12, 9)]

def nothing() -> None:
    pass

def plain(value):
    return value

def odd():
    return object()

def unfit() -> dict:
    return {"set": {1}}

def large() -> str:
    return "x" * (1 << 20)

def fail() -> int:
    raise ValueError("no such visitor")

def skip() -> int:
    raise goose.Skip("not today")

@goose.job(result=60)
def kept() -> str:
    return "kept"

def count(upto: int) -> int:
    for number in range(upto):
        goose.current().progress(number + 1, upto, f"number {number}")
    return upto
"""


@pytest.fixture
def app(importable: Path) -> Any:
    """The functions of the jobs."""
    (importable / "feature_app.py").write_text(APP)
    import feature_app  # type: ignore[import-not-found]

    return feature_app


def test_a_result_comes_back_as_it_was_returned(place: Place, app: Any) -> None:
    """A dataclass with a date arrives as one, equal in type and value; None as None."""
    client = place.client.using(result=True)
    job, none = client.enqueue(app.visit, "Ada"), client.enqueue(app.nothing)
    place.process().run()

    assert app.Visit("Ada", date(1815, 12, 10)) == job.result(5)
    assert none.result(timedelta(seconds=5)) is None
    assert "done" == job.status()
    assert {"who": "Ada", "when": "1815-12-10"} == client.result(job.id, 5)


def test_asyncio_code_awaits_results(place: Place, app: Any) -> None:
    """Enqueue, wait and ask without blocking the loop, also for an async function."""

    async def main() -> None:
        aio = place.client.aio.using(result=True)
        job = await aio.enqueue(app.later)
        with place.worker(["feature_app"]):
            assert [date(1906, 12, 9)] == await job.aresult(20)
            assert [date(1906, 12, 9)] == await aio.result(job, 20)
        assert "done" == await aio.status(job)
        assert await aio.progress(job) is None

    asyncio.run(main())


def test_a_waiting_caller_hears_of_the_end(place: Place, app: Any) -> None:
    """`result` waits while the job is away, and returns soon after its end."""
    job = place.client.using(result=True).enqueue(app.plain, 7)
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(job.result(30)))
    waiter.start()
    assert [] == found
    with place.worker(["feature_app"]):
        waiter.join(30)

    assert [7] == found


def test_an_error_is_told_as_text(place: Place, app: Any) -> None:
    """A dead job's result raises with type, message and the worker's traceback."""
    job = place.client.using(result=True, retry=goose.Retry(max_retries=0)).enqueue(app.fail)
    place.process().run()
    with pytest.raises(JobFailed, match=r"is dead: ValueError: no such visitor") as caught:
        job.result(5)

    error = caught.value
    assert ("dead", "builtins:ValueError", "no such visitor", "retries") == (
        error.ending,
        error.type,
        error.message,
        error.reason,
    )
    assert 'raise ValueError("no such visitor")' in error.traceback
    assert error.__notes__[0].startswith("In the worker:\nTraceback")
    assert "dead" == job.status()


def test_a_job_that_ends_between_two_looks_is_not_unknown(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks for a job that has just ended, and has left its record by now, is told of its end."""
    if place.url.startswith("amqp"):
        pytest.skip("its broker does not show its jobs")
    job = place.client.using(result=True).enqueue(app.plain, 7)
    process, find = place.process(), type(place.broker).find  # type: ignore[attr-defined]

    def late(broker: Any, job_id: str) -> Any:
        process.run()
        return find(broker, job_id)

    monkeypatch.setattr(type(place.broker), "find", late)
    assert "done" == job.status()


def test_a_replayed_job_has_a_new_end(place: Place, app: Any) -> None:
    """Between the replay and the next end there is nothing to tell."""
    job = place.client.using(result=True, retry=goose.Retry(max_retries=0)).enqueue(app.fail)
    process = place.process()
    process.run()
    place.client.inspector.replay()
    with pytest.raises(ResultTimeout):
        job.result(0)
    process.run()
    with pytest.raises(JobFailed):
        job.result(5)


def test_skipped_and_deleted_jobs_have_ended(place: Place, app: Any) -> None:
    """A skipped job returned nothing; a deleted one raises."""
    client = place.client.using(result=True)
    skipped = client.enqueue(app.skip)
    worker = place.process()
    worker.run()
    worker.die()  # or RabbitMQ might have sent it the next one
    deleted = client.enqueue(app.nothing)
    client.inspector.delete([deleted.id], state=State.READY)

    assert skipped.result(5) is None
    with pytest.raises(JobFailed, match="is deleted"):
        deleted.result(5)
    assert ["skipped", "deleted"] == [skipped.status(), deleted.status()]


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        ("unfit", r"its result is not kept: returned .*, annotated as dict: "),
        ("odd", "its result is not kept: object is not JSON; annotate what the function returns"),
        ("large", "over the limit of 1,048,576"),
    ],
)
def test_what_cannot_be_kept_says_why(place: Place, app: Any, fn: str, told: str) -> None:
    """The job stays done; whoever asks learns what became of the result."""
    job = place.client.using(result=True).enqueue(getattr(app, fn))
    place.process().run()
    with pytest.raises(ResultUnavailable, match=told):
        job.result(5)

    assert "done" == job.status()


def test_a_job_that_keeps_nothing_says_so_at_once(place: Place, app: Any) -> None:
    """Nobody waits for a result that nobody keeps."""
    job = place.client.enqueue(app.nothing)
    with pytest.raises(ResultUnavailable, match=r"goose\.using\(result=True\)"):
        job.result()
    assert ("ready", "unknown") == (job.status(), place.client.status("no such job"))


def test_who_waits_for_a_job_that_is_gone_is_told(place: Place, app: Any) -> None:
    """An id nobody knows is not waited for, where the broker can say so."""
    if place.url.startswith("amqp"):
        with pytest.raises(ResultTimeout):
            place.client.result("0190", 0.5)
        return
    with pytest.raises(ResultUnavailable, match="not stored"):
        place.client.result("0190", 20)


def test_the_time_is_over(place: Place, app: Any) -> None:
    """A caller waits no longer than it would, and may ask again; the job is not touched."""
    job = place.client.using(result=True).enqueue(app.plain, 1)
    began = time.monotonic()
    with pytest.raises(ResultTimeout, match=r"within 0\.1 s") as caught:
        job.result(0.1)
    assert isinstance(caught.value, TimeoutError)
    assert place.url.startswith("amqp") or str(caught.value).endswith("it is ready")
    assert time.monotonic() - began < 5
    place.process().run()

    assert 1 == job.result(5)


def test_options_say_for_how_long(place: Place, app: Any) -> None:
    """The function's own option is used, a bound one wins, and False asks for nothing."""
    own = place.client.enqueue(app.kept)
    longer = place.client.using(result=timedelta(days=2)).enqueue(app.kept)
    none = place.client.using(result=False).enqueue(app.kept)

    assert [{"result": {"ttl": ttl}} for ttl in (60.0, 172800.0)] == [own.traits, longer.traits]
    assert {} == none.traits
    for wrong in (-1, "x", float("nan")):
        with pytest.raises(ConfigError, match="result"):
            place.client.using(result=wrong)


def test_a_result_outlives_its_time_no_longer(place: Place, app: Any) -> None:
    """After its seconds the result is gone."""
    job = place.client.using(result=0.2).enqueue(app.plain, 1)
    place.process().run()
    deadline = time.monotonic() + 10
    while place.client.record(job.id) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if not place.url.startswith("amqp"):
        with pytest.raises(ResultUnavailable, match="outlived"):
            job.result(20)


def test_a_job_finds_its_client(place: Place, app: Any) -> None:
    """Evolved it still asks the client that made it; pickled, the one behind `goose.enqueue`."""
    job = place.client.using(result=True).enqueue(app.plain, 1)
    place.process().run()

    assert 1 == job.evolve(queue="other").result(5)
    again = pickle.loads(pickle.dumps(job))
    assert job == again
    assert "_home" not in again.__dict__
    assert goose.enqueue.__self__ is again._home  # type: ignore[attr-defined]


def test_progress_is_seen_from_outside(place: Place, app: Any, wait_until: Any) -> None:
    """The last word of the function is there, however often it spoke."""
    job = place.client.enqueue(app.count, 500)
    process = place.process()
    process.run()
    wait_until(lambda: process.engine.progress.step(0.0) and job.progress() is not None)
    progress = job.progress()
    assert progress is not None

    assert (500, 500, 1.0) == (progress.done, progress.total, progress.fraction)
    assert "number 499" == progress.note
    assert abs(progress.at - time.time()) < 60
    assert process.wire.calls.count("Swap") <= 2


@pytest.mark.parametrize(("final", "shown"), [(False, 5.0), (True, 4.0)])
def test_words_of_a_run_that_left_its_job_give_way(final: bool, shown: float) -> None:
    """What is written late, after the next run has said something, takes the place of that no more."""
    store = MemoryStore(MemoryBroker())
    first, second = ProgressLog(lambda: store), ProgressLog(lambda: store)
    first.note("1", 3, 9, "")
    first.step(0.0)
    first.note("1", 4, 9, "")
    first.ended("1", final=final)
    second.note("1", 5, 9, "")
    second.step(0.0)
    first.step(0.0)

    progress = latest(store, "1")
    assert progress is not None
    assert shown == progress.done


def test_words_of_a_run_that_left_its_job_are_written() -> None:
    """As long as no other run has said anything, it was the last."""
    store = MemoryStore(MemoryBroker())
    log = ProgressLog(lambda: store)
    for done in (3, 4):
        log.note("1", done, 9, "")
        if done == 4:
            log.ended("1", final=False)
        log.step(0.0)

    progress = latest(store, "1")
    assert progress is not None
    assert 4 == progress.done


def test_progress_is_written_a_few_times_a_second() -> None:
    """However often a function speaks: the first word is written at once, the next ones in their time."""
    store, kicks = MemoryStore(MemoryBroker()), list[float]()
    log = ProgressLog(lambda: store, lambda: kicks.append(log.step(0.0)))
    for done in range(100):
        log.note("1", done, 100, "")

    assert [0.25] == kicks
    assert (0.25, 60.0) == (log.step(0.0), log.step(0.0))
    log.note("1", 100, 100, "")
    assert [0.25, 0.25] == kicks


def test_the_last_word_is_written_before_a_worker_ends(
    place: Place, app: Any, wait_until: Any
) -> None:
    """A job that ends right before its worker stops is shown as it was in the end."""
    job = place.client.using(result=True).enqueue(app.count, 500)
    with place.worker(["feature_app"]):
        wait_until(lambda: job.status() == "done")

    progress = job.progress()
    assert progress is not None
    assert 500 == progress.done


def test_progress_must_make_sense(app: Any) -> None:
    """Numbers that are none are the job's own error; without a worker it is not kept."""
    with goose.testing.inline(allow=["feature_app"]):
        goose.enqueue(app.count, 3)
    execution = goose.Execution(goose.Job("1", "a:b"), (), {}, {})
    for wrong in ((-1, None), (1, 0), (float("nan"), None)):
        with pytest.raises(ValueError, match="progress"):
            execution.progress(*wrong)


def test_every_crash_leaves_a_result(new_place: Callable[[], Place], app: Any) -> None:
    """Wherever the worker dies, what the job returned is there in the end, and the job is gone."""
    jobs: list[Any] = []

    def scene(place: Place, _: Process) -> None:
        client = place.client.using(result=True)
        jobs[:] = [client.enqueue(app.plain, 1), client.enqueue(app.visit, "Ada")]

    points = 0
    for place, crash in crash_points(new_place, scene):
        points += 1
        place.process().run()
        assert [1, app.visit("Ada")] == [job.result(5) for job in jobs], crash
        assert 0 == sum(place.counts().values()), crash
    assert points >= 2


def test_nothing_goes_over_what_was_returned(place: Place, app: Any) -> None:
    """A second end of a job that is done, told late by a worker that was given up, changes nothing."""
    from goose.features.traits import Ended, Traits
    from goose.jobs import Failure

    traits = Traits(place.broker, lambda: place.store, resolve=lambda name: app.plain)
    job = place.client.using(result=True).enqueue(app.plain, 1)
    failure = Failure("builtins:ValueError", "late", 1.0, 1.0)
    traits.ended([Ended(job, "dead", failure=failure)])
    traits.ended([Ended(job, "done", 1)])
    traits.ended([Ended(job, "dead", failure=failure), Ended(job, "skipped")])

    assert 1 == job.result(0)


def test_a_record_comes_back_and_others_are_refused(place: Place) -> None:
    """What was written is read to the letter; what is no record is an error, not a result."""
    record = Record("dead", 1.5, None, "", {"type": "a:b", "message": "m", "traceback": "t"}, "r")
    assert record == read(write(record))
    assert len(write(Record("done", 1.0, "x" * MAX_VALUE))) < 200
    for body in (b"[]", b'{"v":2,"ending":"done"}', b'{"v":1,"ending":"odd"}', b"\xff"):
        place.store.apply([Put(key_of("j"), body)])
        with pytest.raises(goose.StoreError):
            place.client.result("j", 0)
