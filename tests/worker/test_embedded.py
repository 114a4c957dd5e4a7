"""The engine on real threads: timeouts, shutdown, async jobs, resources, lost sessions."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import Session, State
from goose.brokers.memory import MemoryBroker
from goose.errors import ConfigError, Unsupported
from goose.jobs import Job, decode, new_id, seal
from goose.worker.embedded import Worker
from goose.worker.outcomes import Outcome
from goose.worker.settle import Settler

APP = """
import asyncio, threading, time
import goose

started = threading.Event()
release = threading.Event()
log = []

def quick(n):
    log.append(n)

def wait_for_release():
    started.set()
    release.wait(20)
    log.append("released")

def spin():
    started.set()
    while True:
        pass

def stubborn():
    started.set()
    while not release.is_set():
        try:
            while not release.is_set():
                time.sleep(0.001)
        except BaseException as error:
            log.append(type(error).__name__)

def polite():
    started.set()
    while not goose.current().should_stop:
        time.sleep(0.001)
    log.append("polite")

peak = 0
now = 0

def forgets_to_await():
    return together()

async def together():
    global peak, now
    now += 1
    peak = max(peak, now)
    await asyncio.sleep(0.2)
    now -= 1

def slowly_told(job, error):
    log.append("told")

async def cancels_itself():
    asyncio.current_task().cancel()  # which the next await will raise
    raise ValueError("no")

async def stops_the_loop():
    asyncio.get_running_loop().stop()

async def leaves_from_a_task():
    async def leave():
        raise SystemExit(3)
    await asyncio.create_task(leave())

async def async_forever():
    started.set()
    await asyncio.sleep(3600)

class Pool:
    pass

class AsyncPool:
    pass

def use_resources():
    found = goose.current().resources
    log.append((type(found[Pool]).__name__, type(found[AsyncPool]).__name__))

def remaining():
    execution = goose.current()
    log.append((execution.remaining is not None, execution.deadline.tzinfo is not None))
"""

WaitUntil = Callable[..., None]


@pytest.fixture
def app(importable: Path) -> Iterator[Any]:
    """The module whose functions run."""
    (importable / "embedded_app.py").write_text(APP)
    importlib.invalidate_caches()
    module = importlib.import_module("embedded_app")
    yield module
    module.release.set()


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker for one test."""
    return MemoryBroker()


def job(fn: str, *args: Any, **fields: Any) -> Job[Any]:
    """Return a job for a function of the tests' module."""
    return Job(new_id(), f"embedded_app:{fn}", args, enqueued_at=time.time(), **fields)


def enqueue(broker: MemoryBroker, *jobs: Job[Any]) -> None:
    """Store *jobs*."""
    broker.enqueue([seal(one) for one in jobs])


def worker(broker: MemoryBroker, **options: Any) -> Worker:
    """Return a worker on *broker*."""
    return Worker(broker, allow=["embedded_app"], concurrency=4, **options)


def test_jobs_run_and_are_done(app: Any, broker: MemoryBroker, wait_until: WaitUntil) -> None:
    """An embedded worker takes jobs, runs them and acks them."""
    jobs = [job("quick", n) for n in range(300)]
    enqueue(broker, *jobs)
    with worker(broker) as running:
        wait_until(running.is_empty)
        assert 300 == running.statistics().succeeded

    assert list(range(300)) == sorted(app.log)
    assert [] == list(broker.queues())


def test_async_functions_run_together(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil
) -> None:
    """Forty async jobs share one event loop, ten for each thread by default."""
    enqueue(broker, *(job("together") for _ in range(40)))
    with worker(broker) as running:
        wait_until(running.is_empty)

    assert app.peak > 10


def test_a_soft_timeout_interrupts_the_function(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil
) -> None:
    """A function over its time gets JobTimeout, and the failure names where it was."""
    enqueue(broker, one := job("spin", timeout=0.2))
    with worker(broker):
        wait_until(lambda: broker.count(State.SCHEDULED) == 1)
        found = broker.find(one.id)

    assert found is not None
    failure = decode(found.envelope).failure
    assert failure is not None
    assert "goose.errors:JobTimeout" == failure.type
    assert "timeout of 0.2 s" in failure.message
    assert "embedded_app.py" in failure.message


def test_a_soft_timeout_ends_an_async_function(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil
) -> None:
    """An async function over its time is cancelled, and counts as timed out."""
    enqueue(broker, one := job("async_forever", timeout=0.2))
    with worker(broker):
        wait_until(lambda: broker.count(State.SCHEDULED) == 1)
        found = broker.find(one.id)

    assert found is not None
    failure = decode(found.envelope).failure
    assert failure is not None
    assert "goose.errors:JobTimeout" == failure.type


def test_stop_lets_running_jobs_end(app: Any, broker: MemoryBroker, wait_until: WaitUntil) -> None:
    """A job that ends within the grace is done; one that asks sees that it should stop."""
    enqueue(broker, job("polite"))
    running = worker(broker)
    running.start()
    assert app.started.wait(5)

    assert running.stop(grace=5)
    assert ["polite"] == app.log
    assert [] == list(broker.queues())


@pytest.mark.parametrize("fn", ["spin", "async_forever"])
def test_stop_interrupts_what_outlives_the_grace(
    app: Any, broker: MemoryBroker, fn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A job longer than the grace is interrupted, named, and given back at no cost."""
    enqueue(broker, one := job(fn))
    running = worker(broker)
    running.start()
    assert app.started.wait(5)

    assert running.stop(grace=0.1)
    assert (
        f"job {one.id} of {one.fn} outlived the grace: it is interrupted and given" in caplog.text
    )
    found = broker.find(one.id)
    assert found is not None
    assert (State.READY, one) == (found.state, decode(found.envelope))


def test_stop_ends_even_if_a_job_does_not(app: Any, broker: MemoryBroker) -> None:
    """A job that swallows everything does not keep a stop from ending in time."""
    enqueue(broker, one := job("stubborn"))
    running = worker(broker)
    running.start()
    assert app.started.wait(5)
    began = time.monotonic()

    assert not running.stop(grace=0.1)
    assert time.monotonic() - began < 5
    found = broker.find(one.id)
    assert found is not None
    assert State.RUNNING == found.state  # its session keeps it until that expires


def test_what_is_not_started_is_given_back_at_once(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil
) -> None:
    """Jobs that wait for a slot are ready for others while the running ones end."""
    blockers = [job("wait_for_release") for _ in range(4)]
    enqueue(broker, *blockers)
    running = worker(broker)
    running.start()
    wait_until(lambda: running.statistics().running == 4)
    stopping = threading.Thread(target=running.stop, args=(10,))
    enqueue(broker, *(job("quick", n) for n in range(5)))
    stopping.start()
    wait_until(lambda: broker.count(State.READY) == 5)
    app.release.set()
    stopping.join(10)

    assert ["released"] * 4 == app.log


def test_resources_are_opened_and_closed(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil
) -> None:
    """Sync and async resources are open while jobs run, by type, and closed at the stop."""
    life: list[str] = []

    @contextmanager
    def pool() -> Iterator[Any]:
        life.append("open")
        yield app.Pool()
        life.append("close")

    @asynccontextmanager
    async def async_pool() -> Any:
        life.append("aopen")
        yield app.AsyncPool()
        life.append("aclose")

    enqueue(broker, job("use_resources"))
    with worker(broker, resources=[pool, async_pool()]) as running:
        wait_until(running.is_empty)

    assert [("Pool", "AsyncPool")] == app.log
    assert ["open", "aopen", "aclose", "close"] == life


def test_a_resource_that_cannot_be_opened_is_named(app: Any, broker: MemoryBroker) -> None:
    """The error of a resource says which one it was, and those before it are closed again."""
    life: list[str] = []

    @contextmanager
    def first() -> Iterator[Any]:
        life.append("open")
        yield app.Pool()
        life.append("close")

    def database() -> Any:
        raise OSError("no route to the database")

    with pytest.raises(OSError, match="no route") as caught:
        worker(broker, resources=[first, database]).start()

    assert ["open", "close"] == life
    assert "database" in "".join(caught.value.__notes__)


def test_a_lost_session_goes_on_under_a_new_epoch(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil
) -> None:
    """A worker that was given up begins again by itself and takes jobs."""
    with worker(broker, ttl=0.6) as running:
        other = Session("judge")
        broker.open(other, ttl=1e6)
        enqueue(broker, job("quick", 1))
        wait_until(lambda: app.log == [1])
        assert running._runner is not None
        own = running._runner._engine.session  # the session it began with
        broker.recover(other, limit=10, dead=own)
        enqueue(broker, job("quick", 2))
        wait_until(lambda: 2 in app.log, what="the second job runs")
    with running:
        enqueue(broker, job("quick", 3))
        wait_until(lambda: 3 in app.log, what="it can be started again")


@pytest.mark.parametrize("fn", ["stops_the_loop", "leaves_from_a_task"])
def test_a_job_cannot_end_the_event_loop_of_the_others(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil, fn: str
) -> None:
    """An async job that stops the loop, or whose task calls sys.exit, does not stop later jobs."""
    with worker(broker) as running:
        enqueue(broker, job(fn))
        wait_until(lambda: running.statistics().processed == 1)
        enqueue(broker, job("together"))
        wait_until(lambda: running.statistics().succeeded >= 1 and app.peak >= 1)
        assert running.stop(1.0)


def test_a_cancelled_async_job_has_an_outcome_all_the_same(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil
) -> None:
    """A cancellation that strikes while on_error is told loses neither the job nor its slot."""
    policy = {"on_error": "embedded_app:slowly_told"}
    enqueue(broker, job("cancels_itself", retry=policy))
    with worker(broker) as running:
        wait_until(lambda: running.statistics().retried == 1)
        assert 0 == running.statistics().running

    assert ["told"] == app.log


def test_an_outcome_on_its_way_to_the_settler_is_waited_for(
    app: Any, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    """A stop right between the end of a run and its outcome still settles that outcome."""
    add = Settler.add

    def slowly(settler: Settler, outcome: Outcome) -> None:
        time.sleep(0.1)
        add(settler, outcome)

    monkeypatch.setattr(Settler, "add", slowly)
    enqueue(broker, job("wait_for_release"))
    running = worker(broker)
    running.start()
    assert app.started.wait(5)
    app.release.set()

    assert running.stop(5.0)
    assert 0 == broker.count(State.RUNNING)


def test_a_broker_that_hangs_does_not_hold_up_the_stop(
    app: Any, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop takes its grace and a few seconds, however long the session takes to end."""
    gate = threading.Event()

    def hang(_session: Session) -> bool:
        return gate.wait(20)

    running = worker(broker)
    running.start()
    monkeypatch.setattr(broker, "end", hang)
    began = time.monotonic()
    running.stop(0.0)
    took = time.monotonic() - began
    gate.set()

    assert took < 4


def test_a_worker_that_cannot_kill_says_so(app: Any, broker: MemoryBroker) -> None:
    """A hard timeout is refused at the start of an embedded worker, with the way out."""
    with pytest.raises(Unsupported, match="goose worker"):
        worker(broker, hard_timeout=5).start()


def test_a_worker_without_modules_is_refused(broker: MemoryBroker) -> None:
    """allow names what may run; nothing runs without it."""
    with pytest.raises(ConfigError, match="allow"):
        Worker(broker, allow=[])


def test_a_slow_job_is_told_about_once(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that runs for long is logged with its stack."""
    caplog.set_level(logging.WARNING, logger="goose.worker")
    enqueue(broker, job("wait_for_release"))
    with worker(broker, slow_after=0.2):
        wait_until(lambda: "has been running for" in caplog.text)
        assert "wait_for_release" in caplog.text
        app.release.set()

    assert 1 == caplog.text.count("has been running for")


def test_a_slow_async_job_is_told_about_too(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    """An async job that runs for long is logged with the place it waits at."""
    caplog.set_level(logging.WARNING, logger="goose.worker")
    enqueue(broker, job("async_forever"))
    with worker(broker, slow_after=0.2, grace=0.1):
        wait_until(lambda: "has been running for" in caplog.text)

    assert "async_forever" in caplog.text
    assert "embedded_app.py" in caplog.text

    assert "embedded_app.py" in caplog.text.partition("async_forever")[2]


def test_an_idle_worker_starts_a_job_soon(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil
) -> None:
    """A waiting worker is woken by an enqueue, not by its next poll."""
    with worker(broker):
        for n in range(5):
            began = time.monotonic()
            enqueue(broker, job("quick", n))
            wait_until(lambda n=n: n in app.log)
            assert time.monotonic() - began < 0.5


def test_deadline_is_known_to_the_job(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil
) -> None:
    """A job with a timeout knows its deadline, aware of its time zone."""
    enqueue(broker, job("remaining", timeout=5))
    with worker(broker) as running:
        wait_until(running.is_empty)

    assert [(True, True)] == app.log


def test_a_coroutine_that_nobody_would_await_is_a_failure(
    app: Any, broker: MemoryBroker, wait_until: WaitUntil
) -> None:
    """A sync function that returns a coroutine is not silently done: the job fails, by name."""
    enqueue(broker, one := job("forgets_to_await"))
    with worker(broker):
        wait_until(lambda: broker.count(State.SCHEDULED) == 1)
        found = broker.find(one.id)

    assert found is not None
    failure = decode(found.envelope).failure
    assert failure is not None
    assert "builtins:TypeError" == failure.type
    assert "embedded_app:forgets_to_await is not async, but returned" in failure.message


BACKENDS = """
made = []

class Backend:
    def __init__(self):
        self.closed = 0
        made.append(self)
    def increment(self, name, value, tags): ...
    gauge = timing = increment
    def close(self):
        self.closed += 1
        raise OSError("the line is cut")

held = Backend()
"""


def test_backends_made_from_names_are_closed(
    app: Any, importable: Path, broker: MemoryBroker
) -> None:
    """What the worker made from a name it closes at the stop; objects of others it does not."""
    (importable / "embedded_backends.py").write_text(BACKENDS)
    importlib.invalidate_caches()
    backends = importlib.import_module("embedded_backends")
    mine = backends.Backend()
    names = ["embedded_backends:Backend", "embedded_backends:held"]
    for _ in range(2):
        with worker(broker, metrics=[mine, *names]):
            pass

    held, own, *made = [backend.closed for backend in backends.made]
    assert (0, 0, [1, 1]) == (held, own, made)


def test_async_middleware_without_async_functions_is_refused(
    app: Any, importable: Path, broker: MemoryBroker
) -> None:
    """It could never be entered, so the start says so; beside async functions it may stay."""
    (importable / "embedded_sync_only.py").write_text("def quick(): ...")
    importlib.invalidate_caches()

    @asynccontextmanager
    async def later(execution: Any) -> Any:
        yield

    with pytest.raises(ConfigError, match="later is async, but embedded_sync_only:quick is not"):
        Worker(broker, allow=["embedded_sync_only"], middleware=[later]).start()
    with worker(broker, middleware=[later]):
        pass
