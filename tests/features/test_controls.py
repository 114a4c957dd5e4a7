"""Orders to live workers: pausing, cancelling, and working differently from now on."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from goose.brokers import connect
from goose.brokers.base import Session, Share, State
from goose.brokers.memory import MemoryBroker
from goose.clients import Client
from goose.errors import BrokerUnavailable, ConfigError, StoreError, Unsupported
from goose.features.controls import orders as told
from goose.features.controls.orders import Orders
from goose.settings import Settings
from goose.stores.memory import MemoryStore
from goose.worker.embedded import Worker

WaitUntil = Callable[..., None]
APP = """
import asyncio
import threading
import goose

ran = []
release = threading.Event()
seen = []

def note(word):
    ran.append(word)

def wait():
    ran.append("begun")
    while not goose.current().should_stop and not release.wait(0.01):
        pass
    seen.append(goose.current().should_stop)
    if goose.current().should_stop:
        raise ValueError("stopped before it was done")

async def await_long():
    ran.append("begun")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        seen.append("cancelled")
        raise

def finish():
    ran.append("begun")
    release.wait(20)
"""


@pytest.fixture
def app(importable: Path) -> Iterator[Any]:
    """The functions of the tests."""
    (importable / "control_app.py").write_text(APP)
    import importlib

    importlib.invalidate_caches()
    module = importlib.import_module("control_app")
    yield module
    module.release.set()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """A client of a broker that is new."""
    urls = {"memory": lambda: "memory://", "sqlite": lambda: f"sqlite:///{tmp_path}/jobs.db"}
    if request.param == "redis":
        server = request.getfixturevalue("redis_url")
        urls["redis"] = lambda: f"{server}?namespace={tmp_path.name}"
    broker: Any = MemoryBroker() if request.param == "memory" else connect(urls[request.param]())
    with Client(broker, settings=Settings()) as made:
        yield made
    broker.close()


def worker(client: Client, **options: Any) -> Worker:
    return Worker(client.broker, allow=["control_app"], **options)


# --- queues ------------------------------------------------------------------------------


def test_a_paused_queue_rests_and_the_others_do_not(
    client: Client, app: Any, wait_until: WaitUntil
) -> None:
    """Nothing is taken from it, by those that work already and those that start later."""
    with worker(client, queues=["default", "other"]) as first:
        client.pause("default")
        wait_until(lambda: client.controls.workers()[0].paused == ("default",))
        client.enqueue(app.note, "waits")
        with worker(client, queues=["default", "other"]):
            client.using(queue="other").enqueue(app.note, "runs")
            wait_until(lambda: "runs" in app.ran)
            assert ["runs"] == app.ran
            assert ["default"] == list(client.controls.paused())
            assert not first.is_empty()
            client.resume("default", "never-paused")
            wait_until(lambda: "waits" in app.ran)


def test_what_is_held_of_a_paused_queue_is_given_back(
    client: Client, app: Any, wait_until: WaitUntil
) -> None:
    """Jobs that were fetched ahead and not started are ready again, for whoever may take them."""
    with worker(client, concurrency=1):
        client.enqueue_many(app.note, [("quick",)] * 50)
        wait_until(lambda: len(app.ran) == 50)
        blocker = client.enqueue(app.finish)
        wait_until(lambda: "begun" in app.ran)
        client.pause("default")
        jobs = client.enqueue_many(app.note, [("held",)] * 5)
        wait_until(lambda: client.controls.workers()[0].paused == ("default",))
        wait_until(lambda: client.inspector.count(State.READY, "default") == 5)
        found = client.inspector.get(blocker.id)
        assert found is not None
        assert State.RUNNING is found.state
        app.release.set()
        client.resume("default")
        wait_until(lambda: app.ran.count("held") == 5)
        assert 5 == len(jobs)


def test_orders_hold_while_the_store_is_away(app: Any, wait_until: WaitUntil) -> None:
    """A store that fails for a while changes nothing: what was paused stays so."""

    class Fragile(MemoryStore):
        down = False

        def apply(self, operations: Any) -> Any:
            if Fragile.down:
                raise BrokerUnavailable("away")
            return super().apply(operations)

    class Broker(MemoryBroker):
        def open_store(self) -> Any:
            return Fragile(self)

    client = Client(Broker(), settings=Settings())
    client.pause("default")
    with worker(client, queues=["default", "other"]):
        Fragile.down = True
        client.enqueue(app.note, "waits")
        client.using(queue="other").enqueue(app.note, "runs")
        wait_until(lambda: "runs" in app.ran)
        time.sleep(1.2)  # longer than two looks at the orders
        Fragile.down = False
        assert ["runs"] == app.ran
        client.resume("default")
        wait_until(lambda: "waits" in app.ran, seconds=20)


# --- jobs --------------------------------------------------------------------------------


def test_queued_jobs_are_removed(client: Client, app: Any) -> None:
    """Scheduled and ready ones are gone; dead ones stay; what is not there is said to be."""
    ready, later = client.enqueue(app.note, "x"), client.enqueue_in(60, app.note, "x")
    session = Session("holder")
    client.broker.open(session, ttl=100)  # type: ignore[attr-defined]
    buried = client.using(queue="graves").enqueue(app.note, "x")
    [delivery] = client.broker.dequeue(session, [Share("graves")], limit=1, wait=0)
    client.broker.bury([(delivery, delivery.envelope)])

    answer = client.cancel(ready, later.id, buried, "nobody")

    assert {ready.id: "removed", later.id: "removed", buried.id: "dead", "nobody": "not_found"} == (
        answer
    )
    assert 0 == client.inspector.count(State.READY) + client.inspector.count(State.SCHEDULED)
    assert {} == client.controls.marks()


@pytest.mark.parametrize("fn", ["wait", "await_long"])
def test_a_running_job_is_stopped(client: Client, app: Any, wait_until: WaitUntil, fn: str) -> None:
    """``should_stop`` is set, an async function is cancelled, and neither is tried again."""
    with worker(client) as running:
        job = client.enqueue(getattr(app, fn))
        wait_until(lambda: "begun" in app.ran)
        began = time.monotonic()
        assert {job.id: "stopping"} == client.cancel(job)
        wait_until(lambda: app.seen)
        assert time.monotonic() - began < 2.0
        wait_until(lambda: client.inspector.get(job.id) is None)
        wait_until(lambda: not client.controls.marks())
        assert (["begun"], 0) == (app.ran, running.statistics().retried)


def test_a_job_that_returns_all_the_same_is_done(
    client: Client, app: Any, wait_until: WaitUntil
) -> None:
    """Cancelling does not undo: a function that does not look comes to its end, once."""
    with worker(client) as running:
        job = client.enqueue(app.finish)
        wait_until(lambda: "begun" in app.ran)
        client.cancel(job)
        wait_until(lambda: any(work.cancelled for work in running._runner._engine.running))  # type: ignore[union-attr]
        app.release.set()
        wait_until(lambda: running.statistics().succeeded == 1)
        wait_until(lambda: not client.controls.marks())
        wait_until(lambda: not running._runner._threads.stops.marked)  # type: ignore[union-attr]
        # The mark was for that one run.
        client.submit([job])
        wait_until(lambda: app.ran == ["begun", "begun"])


def test_a_marked_job_ends_wherever_it_turns_up(
    client: Client, app: Any, wait_until: WaitUntil
) -> None:
    """One that was marked while nobody could delete it is ended by whoever takes it next."""
    job, other = client.enqueue(app.note, "marked"), client.enqueue(app.note, "not marked")
    client.controls.mark({job.id: job.enqueued_at, other.id: other.enqueued_at - 5})
    with worker(client) as running:
        wait_until(running.is_empty)
        wait_until(lambda: job.id not in client.controls.marks())
        assert ["not marked"] == app.ran


def test_everything_that_fits_is_cancelled(client: Client, app: Any, wait_until: WaitUntil) -> None:
    """A filter reaches queued and running jobs alike, and nothing else."""
    with worker(client, concurrency=1):
        running = client.enqueue(app.wait)
        wait_until(lambda: "begun" in app.ran)
        client.enqueue_many(app.wait, [()] * 3)
        other = client.enqueue_in(60, app.note, "stays")
        answer = client.cancel_all(fn=app.wait)
        assert "stopping" == answer[running.id]
        assert 4 == len(answer)
        wait_until(lambda: client.inspector.get(running.id) is None)
        assert State.SCHEDULED is client.inspector.get(other.id).state  # type: ignore[union-attr]


# --- workers -----------------------------------------------------------------------------


def test_concurrency_changes_while_jobs_run(
    client: Client, app: Any, wait_until: WaitUntil
) -> None:
    """More slots take more jobs at once, fewer let those that run end; reset goes back."""
    with worker(client, concurrency=1) as running:
        client.enqueue_many(app.finish, [()] * 5)
        wait_until(lambda: running.statistics().running == 1)
        client.controls.set(concurrency=3)
        wait_until(lambda: running.statistics().running == 3)
        client.controls.set(concurrency=2, async_concurrency=7)
        wait_until(lambda: client.controls.workers()[0].async_concurrency == 7)
        assert 3 == running.statistics().running
        client.controls.reset()
        wait_until(lambda: client.controls.workers()[0].concurrency == 1)
        app.release.set()
        wait_until(lambda: len(app.ran) == 5)


def test_async_slots_grow_too(client: Client, app: Any, wait_until: WaitUntil) -> None:
    """An event loop runs as many functions as it was told last."""
    with worker(client, async_concurrency=1) as running:
        jobs = client.enqueue_many(app.await_long, [()] * 3)
        wait_until(lambda: running.statistics().running == 1)
        client.controls.set(async_concurrency=3)
        wait_until(lambda: running.statistics().running == 3)
        client.cancel(*jobs)
        wait_until(running.is_empty)


def test_queues_and_log_level_change(client: Client, app: Any, wait_until: WaitUntil) -> None:
    """A worker takes from the queues it is told, and logs what it is told to."""
    before = logging.getLogger("goose").level
    try:
        with worker(client):
            client.using(queue="mail").enqueue(app.note, "mail")
            name = client.controls.workers()[0].name
            client.controls.set(name, queues="mail=3,default=1", log_level="debug")
            wait_until(lambda: app.ran == ["mail"])
            wait_until(lambda: client.controls.workers()[0].log_level == "debug")
            assert logging.DEBUG == logging.getLogger("goose").level
            assert {"mail": 3, "default": 1} == client.controls.workers()[0].queues
            with pytest.raises(ConfigError, match="there is no worker 'nobody:1'"):
                client.controls.set("nobody:1", concurrency=1)
            with pytest.raises(ConfigError, match="nothing is set"):
                client.controls.set(name)
            client.controls.reset(name)
            assert {} == client.controls.orders().workers
        wait_until(lambda: client.controls.workers() == [])
    finally:
        logging.getLogger("goose").setLevel(before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"concurrency": 1001},
        {"async_concurrency": True},
        {"processes": 0},
        {"processes": 257},
        {"processes": "2"},
        {"queues": []},
        {"queues": "a=1,b"},
        {"queues": "no good"},
        {"log_level": "loud"},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    """An order that no worker could follow is not given."""
    client = Client(MemoryBroker(), settings=Settings())
    with pytest.raises(ConfigError):
        client.controls.set(**wrong)

    assert Orders() == client.controls.orders()


def test_a_worker_without_a_supervisor_has_no_processes_to_order(client: Client, app: Any) -> None:
    """By its name that is an error; a pattern may mean others, and it goes on as the one it is."""
    with worker(client):
        [record] = client.controls.workers()
        assert record.processes is None
        with pytest.raises(ConfigError, match="or a worker of an earlier Goose"):
            client.controls.set(record.name, processes=2, concurrency=3)
        assert {} == client.controls.orders().workers
        client.controls.set(record.name, concurrency=3)
        client.controls.set("*", processes=2)

    assert {"*": {"processes": 2}} == {
        name: values for name, values in client.controls.orders().workers.items() if name == "*"
    }


def test_names_of_workers_that_are_gone_are_forgotten(app: Any, wait_until: WaitUntil) -> None:
    """What was set for one worker by name does not outlive it, so that no other inherits it."""
    client = Client(MemoryBroker(), settings=Settings())
    with worker(client):
        name = client.controls.workers()[0].name
        client.controls.set(name, concurrency=2)
        client.controls.set("*", concurrency=3)
        assert [name, "*"] == list(client.controls.orders().workers)
    client.controls.set("web-*", concurrency=4)

    assert ["*", "web-*"] == list(client.controls.orders().workers)


# --- the value ---------------------------------------------------------------------------


def test_orders_survive_their_journey() -> None:
    """What was ordered comes back equal, with what a later version wrote."""
    orders = Orders().pause(("a",), 5.0).set("b", {"concurrency": 1}).set("a", {"x": [1]}).touch()
    value = told.dump(orders)
    later = value[:-1] + b',"new":{"k":1}}'

    assert orders == told.parse(value)
    assert {"new": {"k": 1}} == told.parse(later).extra
    assert b'"new":{"k":1}' in told.dump(told.parse(later))
    assert orders.pause(("a",), 9.0) is orders
    assert Orders().resume(("a",)).paused == {}


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"v":1,"paused":[1]}', b"\xff"])
def test_what_are_no_orders_is_told(value: bytes) -> None:
    """A foreign value under the key is an error that names it, not a silent nothing."""
    with pytest.raises(StoreError, match="control:orders"):
        told.parse(value)


def test_many_who_order_lose_nothing() -> None:
    """Orders given at the same time by several all hold."""
    client = Client(MemoryBroker(), settings=Settings())
    threads = [threading.Thread(target=client.pause, args=(f"q{n}",)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 16 == len(client.controls.paused())


def test_without_a_store_it_is_said() -> None:
    """A broker without a store, and none configured: the error names the fix."""
    real = MemoryBroker()
    names = [name for name in dir(real) if not name.startswith("_") and name != "open_store"]
    storeless: Any = type("Storeless", (), {name: getattr(real, name) for name in names})()
    with pytest.raises(Unsupported, match="Storeless has no store"):
        Client(storeless, settings=Settings()).pause("default")


def test_asyncio_code_has_the_same_verbs(app: Any, wait_until: WaitUntil) -> None:
    """Pausing, cancelling and setting are awaited, and do the same."""
    client = Client(MemoryBroker(), settings=Settings())

    async def order() -> None:
        verbs = client.aio
        await verbs.pause("a", "b")
        await verbs.resume("b")
        assert ["a"] == list(await verbs.controls.paused())
        job = await verbs.enqueue(app.note, "x")
        assert {job.id: "removed"} == await verbs.cancel(job)
        await verbs.enqueue(app.note, "x")
        assert ["removed"] == list((await verbs.cancel_all(fn="control_app:note")).values())
        await verbs.controls.set(concurrency=4, processes=2)
        assert {"concurrency": 4, "processes": 2} == client.controls.orders().workers["*"]
        await verbs.controls.reset()
        assert [] == await verbs.controls.workers()

    asyncio.run(order())
