"""Jobs run in the test's own thread."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

import goose
from goose.brokers.base import State
from goose.brokers.memory import MemoryBroker
from goose.clients import Client
from goose.testing import (
    broker_down,
    configured,
    drain,
    inline,
    reply_lost,
    run_again,
    run_one,
)

DONE: list[object] = []


class Mailer:
    """A resource."""

    def __init__(self) -> None:
        self.sent: list[str] = []


class Refused(Exception):
    """What a job raises."""


def note(what: object) -> object:
    DONE.append(what)
    return what


def note_when(when: datetime) -> None:
    DONE.append(when)


async def note_async(what: str) -> str:
    await asyncio.sleep(0)
    DONE.append(what)
    return what


def send(to: str) -> None:
    goose.current().resources[Mailer].sent.append(to)


def fail(what: str) -> None:
    DONE.append(what)
    raise Refused(what)


def fail_once(what: str) -> None:
    DONE.append(what)
    if goose.current().attempt == 0:
        raise Refused(what)


def spread(depth: int) -> None:
    DONE.append(depth)
    if depth:
        goose.enqueue(spread, depth - 1)


def skip() -> None:
    raise goose.Skip("not today")


def bury() -> None:
    raise goose.Bury("no use")


def for_ever() -> None:
    goose.enqueue(for_ever)


def interrupt() -> None:
    raise KeyboardInterrupt


@contextmanager
def shouting(execution: goose.Execution) -> Iterator[None]:
    execution.args = (f"{execution.args[0]}!",)
    yield


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    DONE.clear()


def test_inline_runs_at_once_by_way_of_the_wire() -> None:
    """A job is encoded, decoded and run before its enqueue returns; its result is there."""
    when = datetime(2030, 1, 2, tzinfo=UTC)
    with inline() as seen:
        job = goose.enqueue(note_when, when)
        goose.enqueue(note, [1, 2])
        assert [when, [1, 2]] == DONE

    assert [job.id] == [run.job.id for run in seen.runs[:1] if run.job]
    assert ["done", "done"] == [run.ending for run in seen.runs]
    assert [1, 2] == seen.runs[1].result


def test_inline_serves_every_client_async_functions_and_async_callers() -> None:
    """Explicit clients, async functions and awaited enqueues run at once as well."""
    broker = MemoryBroker()

    async def enqueue() -> None:
        await goose.aio.enqueue(note_async, "b")

    with inline():
        Client(broker).enqueue(note_async, "a")
        asyncio.run(enqueue())

    assert ["a", "b"] == DONE
    assert 0 == broker.count(State.READY)


def test_inline_raises_what_a_job_raises() -> None:
    """The enqueue raises `JobFailed`, caused by the job's own error; burying counts as one."""
    with inline(), pytest.raises(goose.JobFailed, match="retried") as failed:
        goose.enqueue(fail, "x")
    with inline(), pytest.raises(goose.JobFailed, match="no use"):
        goose.enqueue(bury)

    assert isinstance(failed.value.__cause__, Refused)


def test_inline_asks_the_policy() -> None:
    """An error that the policy takes for success does not raise; with retries it runs again."""
    with inline() as seen:
        goose.using(retry=goose.Retry(succeed_on=[Refused])).enqueue(fail, "x")
        goose.enqueue(skip)
    with inline(retries=True) as again:
        goose.enqueue(fail_once, "y")
    with inline(retries=True), pytest.raises(goose.JobFailed, match="dead"):
        goose.using(retry=goose.Retry(max_retries=2)).enqueue(fail, "z")

    assert ["done", "skipped"] == [run.ending for run in seen.runs]
    assert ["retried", "done"] == [run.ending for run in again.runs]
    assert 3 == DONE.count("z")


def test_inline_runs_what_jobs_enqueue_and_keeps_what_is_for_later() -> None:
    """Jobs enqueued by jobs run too; a scheduled one is only listed. Outside nothing changes."""
    broker = MemoryBroker()
    with configured(broker=broker):
        with inline() as seen:
            goose.enqueue(spread, 2)
            goose.enqueue_in(60, note, "later")
        goose.enqueue(note, "stored")

    assert [2, 1, 0] == DONE
    assert [["later"]] == [list(job.args) for job in seen.scheduled]
    assert 1 == broker.count(State.READY)


def test_middleware_and_resources_are_replaced() -> None:
    """Given middleware surrounds each run, and functions find the given resources."""
    mailer = Mailer()
    with inline(middleware=[shouting], resources={Mailer: mailer}):
        goose.enqueue(send, "ada")

    assert ["ada!"] == mailer.sent


def test_drain_runs_all_that_is_ready(goose_broker: MemoryBroker) -> None:
    """Jobs of all queues run in order, with those they enqueue; what is due later stays."""
    goose.enqueue(spread, 1)
    goose.using(queue="mail").enqueue(note_async, "mail")
    goose.enqueue_in(60, note, "later")

    drained = drain()

    assert {"done": 3} == drained.endings
    assert {1, 0, "mail"} == set(DONE)
    assert 1 == goose_broker.count(State.SCHEDULED)
    assert 0 == goose_broker.count(State.RUNNING)


def test_drain_may_run_what_is_due_later(goose_broker: MemoryBroker) -> None:
    """With scheduled=True delays and retries pass at once, until all is done or dead."""
    goose.enqueue_in(3600, note, "later")
    goose.using(retry=goose.Retry(max_retries=2)).enqueue(fail, "x")

    drained = drain(scheduled=True)

    assert {"done": 1, "retried": 2, "dead": 1} == drained.endings
    assert 3 == len(drained.errors)
    assert 1 == goose_broker.count(State.DEAD)
    with pytest.raises(goose.JobFailed):
        drained.check()


def test_drain_says_what_cannot_be(goose_broker: MemoryBroker) -> None:
    """A job of an unknown module fails at once, unchanged; an endless drain ends."""
    goose.enqueue(note, 1)
    with pytest.raises(goose.JobFailed, match="allow"):
        drain(allow=["goose.testing.simulator.functions"])
    assert 1 == goose_broker.count(State.READY)

    drain()
    goose.enqueue(for_ever)
    with pytest.raises(RuntimeError, match="enqueue itself"):
        drain()


def test_an_interrupted_test_gives_the_job_back(goose_broker: MemoryBroker) -> None:
    """Ctrl-C ends the test, not the job: it is ready again."""
    goose.enqueue(interrupt)

    with pytest.raises(KeyboardInterrupt):
        drain()
    assert 1 == goose_broker.count(State.READY)


def test_run_one_runs_the_first_of_its_queue(
    goose_client: Client, goose_broker: MemoryBroker
) -> None:
    """One job runs and is settled; its error is raised; an empty queue says so."""
    goose_client.enqueue(note, "a")
    goose_client.using(retry=goose.Retry(max_retries=0)).enqueue(fail, "b")

    assert "a" == run_one(where=goose_client).result
    with pytest.raises(goose.JobFailed) as failed:
        run_one("default", goose_client)
    with pytest.raises(LookupError, match="default"):
        run_one("default", goose_client)

    assert isinstance(failed.value.__cause__, Refused)
    assert 1 == goose_broker.count(State.DEAD)


def test_run_again_runs_it_once_more(goose_broker: MemoryBroker) -> None:
    """A job that is done runs a second time, as after a crash, and asks no broker."""
    job = goose.enqueue(note, "a")
    run = run_one()

    assert "a" == run_again(job).result
    run_again(run)
    assert ["a", "a", "a"] == DONE
    assert 0 == sum(goose_broker.count(state) for state in State)


def test_a_broker_that_does_not_answer(goose_broker: MemoryBroker) -> None:
    """Enqueues fail as in an outage, with or without having stored; submit makes it good."""
    with broker_down(), pytest.raises(goose.EnqueueError) as down:
        goose.enqueue(note, "a")
    assert 0 == goose_broker.count(State.READY)
    with reply_lost(), pytest.raises(goose.EnqueueError) as lost:
        goose.enqueue(note, "b")
    assert 1 == goose_broker.count(State.READY)

    goose.submit(down.value.jobs)
    goose.submit(lost.value.jobs)

    assert 2 == goose_broker.count(State.READY)


def test_configured_is_over_after_it() -> None:
    """Settings are as before, whatever happened inside."""
    outer, broker = MemoryBroker(), MemoryBroker()
    with configured(broker=outer, queue="outer"):
        with pytest.raises(LookupError), configured(broker=broker):
            assert "outer" == goose.enqueue(note, 1).queue
            raise LookupError
        goose.enqueue(note, 2)

    assert 1 == broker.count(State.READY)
    assert 1 == outer.count(State.READY)
