"""What running jobs see and how they end, in an embedded `goose.Worker`: public names only."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import goose
from tests.acceptance import jobs

ME = __name__
Until = Callable[..., None]
seen: list[Any] = []
"""What jobs of this module noted."""
released = threading.Event()


@pytest.fixture
def client(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[goose.Client]:
    """A client of a fresh broker in memory."""
    monkeypatch.setenv("NOTES", str(own_folder / "notes"))
    seen.clear()
    released.clear()
    with goose.Client(f"memory://{uuid.uuid4().hex}") as made:
        yield made
    released.set()


def worker(client: goose.Client, **options: Any) -> goose.Worker:
    """A worker for the functions of this module."""
    options.setdefault("allow", [ME, "tests.acceptance.jobs"])
    return goose.Worker(client.broker, **options)


def work_off(client: goose.Client, wait_until: Until, **options: Any) -> None:
    """Run what is ready."""
    with worker(client, **options) as running:
        wait_until(running.is_empty, what="nothing is ready or running")


def the_job(client: goose.Client) -> tuple[str, goose.Job[Any]]:
    """The state of the only stored job, and the job."""
    (stored,) = client.inspector.find()
    assert stored.job is not None
    return stored.state.value, stored.job


# --- what a job sees ---------------------------------------------------------------------


class Pool:
    pass


def look_around(text: str) -> str:
    execution = goose.current()
    seen.append(
        (
            execution.job.id,
            execution.job.fn,
            execution.attempt,
            execution.args,
            execution.deadline,
            execution.should_stop,
            type(execution),
        )
    )
    return text.upper()


async def look_around_async() -> None:
    before = goose.current()
    await asyncio.sleep(0.01)
    seen.append((before is goose.current(), goose.current().deadline))


def use(*kinds: str) -> None:
    seen.append(type(goose.current().resources[Pool]).__name__)


def use_what_is_not_there() -> None:
    goose.current().resources[dict]


def test_a_running_job_finds_its_execution(client: goose.Client, wait_until: Until) -> None:
    """Job, attempt, arguments, deadline and should_stop; sync and async."""
    bound = client.using(timeout=60)
    job = bound.enqueue(look_around, "a")
    client.enqueue(look_around_async)
    work_off(client, wait_until)

    by_kind = sorted(seen, key=len)
    assert (True, None) == by_kind[0]
    id_, fn, attempt, args, deadline, should_stop, kind = by_kind[1]
    assert (job.id, f"{ME}:look_around", 0, ("a",), False) == (id_, fn, attempt, args, should_stop)
    assert timedelta(seconds=50) < deadline - datetime.now(UTC) < timedelta(seconds=60)
    assert kind is goose.Execution


def test_there_is_no_execution_outside(client: goose.Client) -> None:
    """The error says that it works inside a running job only."""
    with pytest.raises(LookupError, match="inside a running job"):
        goose.current()


def test_resources_and_middleware_of_an_embedded_worker(
    client: goose.Client, wait_until: Until
) -> None:
    """Opened once, found by type, closed at the stop; middleware around every job, outermost first."""
    life: list[str] = []

    @contextmanager
    def pool() -> Iterator[Pool]:
        life.append("open")
        yield Pool()
        life.append("closed")

    @contextmanager
    def outer(execution: goose.Execution) -> Iterator[None]:
        execution.args = tuple(arg.lower() for arg in execution.args)
        yield
        life.append(f"result {execution.result}")
        execution.result = None

    @contextmanager
    def inner(execution: goose.Execution) -> Iterator[None]:
        life.append(f"inner sees {execution.args}")
        yield

    client.enqueue(use, "A")
    client.enqueue(look_around, "AB")
    work_off(client, wait_until, resources=[pool], middleware=[outer, inner], concurrency=1)

    assert "Pool" == seen[0]
    expected = ["open", "inner sees ('a',)", "result None", "inner sees ('ab',)", "result AB"]
    assert [*expected, "closed"] == life


def test_a_missing_resource_is_told(client: goose.Client, wait_until: Until) -> None:
    """The job's failure names the type and where to give it."""
    client.using(retry=goose.Retry(max_retries=0)).enqueue(use_what_is_not_there)
    work_off(client, wait_until)

    state, job = the_job(client)
    assert "dead" == state
    assert job.failure is not None
    assert "no resource of type dict" in job.failure.message
    assert "resources=[...]" in job.failure.message


def test_resources_can_be_async(client: goose.Client, wait_until: Until) -> None:
    """An async context manager is entered on the worker's event loop."""

    @asynccontextmanager
    async def pool() -> AsyncIterator[Pool]:
        await asyncio.sleep(0)
        yield Pool()

    client.enqueue(use)
    work_off(client, wait_until, resources=[pool()])

    assert ["Pool"] == seen


# --- steering ----------------------------------------------------------------------------


def steer(what: str) -> None:
    """Steer inside a job that catches every ordinary error."""
    seen.append(what)
    try:
        if what == "postpone":
            raise goose.Postpone(timedelta(minutes=5))
        if what == "bury":
            raise goose.Bury("no such user")
        if what == "skip":
            raise goose.Skip("not today")
    except Exception:  # noqa: BLE001 - it must not catch those
        seen.append("eaten")


async def steer_async(what: str) -> None:
    steer(what)


@pytest.mark.parametrize("fn", [steer, steer_async])
def test_skip_is_done(client: goose.Client, wait_until: Until, fn: Any) -> None:
    """Nothing is left of the job."""
    client.enqueue(fn, "skip")
    work_off(client, wait_until)

    assert ["skip"] == seen
    assert [] == list(client.inspector.find())


@pytest.mark.parametrize("fn", [steer, steer_async])
def test_postpone_costs_no_attempt(client: goose.Client, wait_until: Until, fn: Any) -> None:
    """It is scheduled after the delay, as it was."""
    sent = client.enqueue(fn, "postpone")
    work_off(client, wait_until)

    (stored,) = client.inspector.find()
    assert (["postpone"], "scheduled", sent) == (seen, stored.state.value, stored.job)
    assert timedelta(seconds=200) < stored.at - datetime.now(UTC) <= timedelta(seconds=301)


@pytest.mark.parametrize("fn", [steer, steer_async])
def test_bury_is_dead_with_its_reason(client: goose.Client, wait_until: Until, fn: Any) -> None:
    """It is among the dead jobs, with the reason, and costs no attempt."""
    client.enqueue(fn, "bury")
    work_off(client, wait_until)

    state, job = the_job(client)
    assert (["bury"], "dead", 0) == (seen, state, job.attempt)
    assert job.failure is not None
    assert ("buried", "no such user") == (job.failure.reason, job.failure.message)


REASONS = {
    "error": ValueError("of another kind"),
    "number": 5,
    "surrogate": "half a \ud800",
    "long": "x" * 5000,
}


def bury(why: str) -> None:
    raise goose.Bury(REASONS[why])


@pytest.mark.parametrize(
    ("why", "message"),
    [
        ("error", "of another kind"),
        ("number", "5"),
        ("surrogate", "half a \\ud800"),
        ("long", "x" * 2000),
    ],
)
def test_any_reason_can_be_stored(
    client: goose.Client, wait_until: Until, why: str, message: str
) -> None:
    """An error as the reason, or text that cannot be written: the dead job stays readable."""
    client.enqueue(bury, why)
    work_off(client, wait_until)

    _, job = the_job(client)
    assert job.failure is not None
    assert message == job.failure.message
    assert 1 == len(client.inspector.replay([job.id]))


# --- retries -----------------------------------------------------------------------------


class Special(ValueError):
    pass


def fail_times(times: int) -> None:
    attempt = goose.current().attempt
    seen.append(attempt)
    if attempt < times:
        raise Special(f"attempt {attempt}")


def test_retries_until_it_works(client: goose.Client, wait_until: Until) -> None:
    """Three failures, then done; each run knows its attempt."""
    client.using(retry=goose.Retry(backoff=0.01)).enqueue(fail_times, 3)
    with worker(client):
        wait_until(lambda: seen == [0, 1, 2, 3])
        wait_until(lambda: not list(client.inspector.find()))


@pytest.mark.parametrize("most", [0, 2])
def test_no_more_than_max_retries(client: goose.Client, wait_until: Until, most: int) -> None:
    """Then it is dead, with its history."""
    client.using(retry=goose.Retry(max_retries=most, backoff=0)).enqueue(fail_times, 9)
    with worker(client):
        wait_until(lambda: [s.state.value for s in client.inspector.find()] == ["dead"])

    _, job = the_job(client)
    assert (list(range(most + 1)), most + 1) == (seen, job.attempt)
    failure = job.failure
    assert failure is not None
    assert (f"{ME}:Special", f"attempt {most}", "retries") == (
        failure.type, failure.message, failure.reason,
    )  # fmt: skip
    assert failure.first_at <= failure.last_at <= (failure.died_at or 0)
    assert "fail_times" in failure.traceback


def test_for_ever_is_for_ever(client: goose.Client, wait_until: Until) -> None:
    """max_retries=None goes beyond the default's 25."""
    client.using(retry=goose.Retry(max_retries=None, backoff=0)).enqueue(fail_times, 40)
    with worker(client):
        wait_until(lambda: 40 in seen)

    assert list(range(41)) == seen


@pytest.mark.parametrize("classes", [(Special,), (ValueError,), (f"{ME}:Special",)])
def test_some_errors_are_not_retried(client: goose.Client, wait_until: Until, classes: Any) -> None:
    """give_up_on is dead at once, succeed_on is done; base classes count."""
    client.using(retry=goose.Retry(give_up_on=classes)).enqueue(fail_times, 1)
    client.using(retry=goose.Retry(succeed_on=classes)).enqueue(fail_times, 1)
    work_off(client, wait_until)

    state, job = the_job(client)
    assert ("dead", [0, 0]) == (state, seen)
    assert job.failure is not None
    assert "gave_up" == job.failure.reason


def test_dead_jobs_need_not_be_kept(client: goose.Client, wait_until: Until) -> None:
    """keep_dead=False forgets them."""
    client.using(retry=goose.Retry(max_retries=0, keep_dead=False)).enqueue(fail_times, 1)
    work_off(client, wait_until)

    assert [] == list(client.inspector.find())


def test_retries_may_go_to_another_queue(client: goose.Client, wait_until: Until) -> None:
    """The first run in its own queue, later ones in the policy's."""
    client.using(retry=goose.Retry(queue="slow", backoff=0)).enqueue(fail_times, 1)
    with worker(client, queues=["default"]):
        wait_until(lambda: seen == [0])
        wait_until(lambda: [s.queue for s in client.inspector.queues()] == ["slow"])
    work_off(client, wait_until, queues="slow")
    assert [0, 1] == seen


def test_callbacks_and_a_backoff_of_ones_own(
    client: goose.Client, wait_until: Until, own_folder: Path
) -> None:
    """on_error after every failure, on_death at the end, the back-off by function."""
    retry = goose.Retry(
        max_retries=1, backoff=jobs.constant, on_error=jobs.on_error, on_death=jobs.on_death
    )
    client.using(retry=retry).enqueue(jobs.fail)
    with worker(client):
        wait_until(lambda: [s.state.value for s in client.inspector.find()] == ["dead"])

    lines = (own_folder / "notes").read_text().splitlines()
    errors = ["on_error 1 ValueError", "on_error 2 ValueError", "on_death 2 ValueError"]
    assert ["failing", errors[0], "failing", *errors[1:]] == lines


def test_a_wrong_backoff_does_not_lose_the_job(client: goose.Client, wait_until: Until) -> None:
    """What a back-off function returns is checked; the default stands in, and the job settles."""
    retry = goose.Retry(backoff=jobs.back_off_wrongly)
    client.using(retry=retry).enqueue(fail_times, 1)
    work_off(client, wait_until)

    state, job = the_job(client)
    assert ("scheduled", 1) == (state, job.attempt)


# --- time --------------------------------------------------------------------------------


def spin(eat: bool) -> None:
    try:
        while True:
            time.sleep(0.001)
    except Exception:  # noqa: BLE001 - must not catch a timeout
        seen.append("eaten")
    except goose.JobTimeout:
        seen.append("timeout")
        raise


async def wait_async() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        seen.append("left")


@pytest.mark.parametrize("call", [goose.call(spin, True), goose.call(wait_async)])
def test_a_soft_timeout_is_a_failed_attempt(
    client: goose.Client, wait_until: Until, call: goose.Call[None]
) -> None:
    """JobTimeout is raised in the function, past its `except Exception`; the reason says so."""
    bound = client.using(timeout=timedelta(seconds=0.2), retry=goose.Retry(max_retries=0))
    bound.enqueue_many(call.fn, [call])
    work_off(client, wait_until)

    state, job = the_job(client)
    assert "dead" == state
    assert 1 == len(seen)
    assert job.failure is not None
    assert ("goose.errors:JobTimeout", "timeout") == (job.failure.type, job.failure.reason)
    assert "0.2 s" in job.failure.message


def polite() -> None:
    released.set()
    while not goose.current().should_stop:
        time.sleep(0.001)
    seen.append("stopped by itself")


def test_should_stop_tells_of_a_stop(client: goose.Client) -> None:
    """A job that looks ends in time by itself, and is done."""
    client.enqueue(polite)
    running = worker(client)
    running.start()
    assert released.wait(10)

    assert running.stop(grace=10)
    assert (["stopped by itself"], []) == (seen, list(client.inspector.find()))


# --- the worker itself -------------------------------------------------------------------


def test_an_embedded_worker_says_what_it_cannot_do(client: goose.Client) -> None:
    """No hard timeout without a supervisor."""
    with pytest.raises(goose.Unsupported, match=r"hard_timeout.*goose worker"):
        worker(client, hard_timeout=5).start()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"allow": []}, "allow"),
        ({"allow": "no.such.module"}, "no.such.module|no module no"),
        ({"allow": ["app/tasks.py"]}, "'app.tasks'"),
        ({"queues": []}, "queue"),
        ({"queues": {"a": 0}}, "at least 1"),
        ({"queues": "a=1,b"}, "every queue a weight"),
        ({"concurrency": 0}, "at least 1"),
        ({"metrics": ["nope://x"]}, "nope://"),
        ({"middleware": ["no_module:x"]}, "no_module"),
        ({"middleware": [5]}, "cannot be called"),
        ({"resources": ["tests.acceptance.jobs:nothing"]}, "nothing"),
    ],
)
def test_a_wrong_worker_is_told(client: goose.Client, options: dict[str, Any], why: str) -> None:
    """When it is made or started, by name."""
    with pytest.raises(goose.ConfigError, match=why):
        worker(client, **options).start()


def test_a_worker_may_be_started_again(client: goose.Client, wait_until: Until) -> None:
    """Stopping twice is fine, starting twice is not, starting again is."""
    running = worker(client)
    for n in range(2):
        client.enqueue(jobs.say, str(n))
        with running:
            wait_until(running.is_empty)
            with pytest.raises(RuntimeError, match="runs already"):
                running.start()
    assert running.stop()
    assert [] == list(client.inspector.find())


def test_what_is_not_offered_does_not_run(client: goose.Client, wait_until: Until) -> None:
    """A job of another module is left for a worker that has it, and never imported."""
    client.submit([goose.Job(str(uuid.uuid4()), "os:system", ("true",), enqueued_at=time.time())])
    work_off(client, wait_until)

    state, job = the_job(client)
    assert ("scheduled", "os:system", 0) == (state, job.fn, job.attempt)


def test_queues_are_strict_or_weighted(client: goose.Client, wait_until: Until) -> None:
    """In strict order the first queue comes first; only the named ones are taken from."""
    for queue in ("low", "high", "other"):
        client.using(queue=queue).enqueue(look_around, queue)
    work_off(client, wait_until, queues=["high", "low"], concurrency=1)
    assert ["high", "low"] == [entry[3][0] for entry in seen]

    work_off(client, wait_until, queues={"other": 3, "low": 1})
    assert "other" == seen[-1][3][0]


def forgets_to_await() -> Any:
    return jobs.say_async("never")


def test_a_forgotten_await_is_not_done(client: goose.Client, wait_until: Until) -> None:
    """A sync function that returns a coroutine fails with its name and the fix."""
    client.enqueue(forgets_to_await)
    work_off(client, wait_until)

    _, job = the_job(client)
    assert job.failure is not None
    assert f"{ME}:forgets_to_await" in job.failure.message
    assert "async def" in job.failure.message


def test_a_failures_text_is_of_the_job_alone(client: goose.Client, wait_until: Until) -> None:
    """The stored traceback leads to the failing line."""
    client.enqueue(fail_times, 1)
    work_off(client, wait_until)

    _, job = the_job(client)
    assert job.failure is not None
    line = next(
        n
        for n, text in enumerate(Path(__file__).read_text().splitlines(), 1)
        if "raise Special" in text
    )
    assert f"line {line}, in fail_times" in job.failure.traceback
    assert traceback.format_exception_only(Special("attempt 0"))[0] in job.failure.traceback
