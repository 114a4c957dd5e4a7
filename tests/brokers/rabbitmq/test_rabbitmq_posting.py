"""Jobs that are posted, while no thread waits: whoever posted them is told once, whatever happens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import goose.aio
from goose.brokers.base import State
from goose.brokers.rabbitmq import RabbitMQBroker, publishing
from goose.errors import BrokerUnavailable, EnqueueError
from goose.jobs import Envelope
from goose.settings import Settings
from goose.testing.proxy import Proxy
from tests.brokers.rabbitmq.conftest import Connect

WaitUntil = Callable[..., None]


def job(name: str) -> Envelope:
    return Envelope(name, "mail", b"{}")


def send(to: str) -> None: ...


@pytest.fixture
def broker(connect: Connect, proxy: Proxy) -> RabbitMQBroker:
    """A broker behind the proxy that knows its queue."""
    broker = connect(f"amqp://guest:guest@127.0.0.1:{proxy.port}", timeout=1.0)
    broker.enqueue([job("first")])
    return broker


class Told:
    """What callers are told, each by its name."""

    def __init__(self) -> None:
        self.of: dict[str, list[BaseException | None]] = {}

    def by(self, name: str) -> Callable[[BaseException | None], None]:
        return lambda error: self.of.setdefault(name, []).append(error)


def test_what_a_silent_server_does_not_confirm_is_in_doubt_in_time(
    broker: RabbitMQBroker, proxy: Proxy, wait_until: WaitUntil
) -> None:
    """Whoever posted hears by the deadline that nothing is known, and once."""
    told = Told()
    proxy.blackhole()
    assert broker.post([([job(name)], told.by(name)) for name in "abc"])
    wait_until(lambda: 3 == len(told.of), what="told")
    for errors in told.of.values():
        [error] = errors
        assert isinstance(error, BrokerUnavailable)
        assert "did not confirm 1 job within 1 s" in str(error)


def test_what_was_posted_survives_a_lost_connection(
    broker: RabbitMQBroker, proxy: Proxy, wait_until: WaitUntil
) -> None:
    """What was not confirmed is published again over the next connection, and then confirmed."""
    told = Told()
    for turn in range(20):
        name = f"job {turn}"
        assert broker.post([([job(name)], told.by(name))])
        if turn % 5 == 2:
            proxy.reset()
    wait_until(lambda: 20 == len(told.of), what="told")
    assert [[None]] * 20 == list(told.of.values())
    assert 21 <= broker.count(State.READY, "mail")


def test_whoever_closes_tells_those_that_are_under_way(
    broker: RabbitMQBroker, proxy: Proxy, wait_until: WaitUntil
) -> None:
    """Nobody is left waiting for a broker that was closed."""
    told = Told()
    proxy.blackhole()
    assert broker.post([([job("a")], told.by("a"))])
    broker.close()
    [error] = told.of["a"]
    assert isinstance(error, BrokerUnavailable)


def test_of_what_is_posted_beyond_measure_nothing_is_taken(
    broker: RabbitMQBroker, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not answer fills no memory: those who come later have to wait in line."""
    monkeypatch.setattr(publishing, "POSTED", 2)
    told = Told()
    proxy.blackhole()
    assert broker.post([([job(name)], told.by(name)) for name in "ab"])
    assert not broker.post([([job("c")], told.by("c"))])
    assert "c" not in told.of


def test_what_is_done_is_forgotten(broker: RabbitMQBroker, wait_until: WaitUntil) -> None:
    """What is kept of posted jobs is only what is under way, however many there were."""
    publisher = broker._parts.publisher
    for turn in range(30):
        told = Told()
        assert broker.post([([job(f"{turn} {name}")], told.by(name)) for name in "abcdefgh"])
        wait_until(lambda told=told: 8 == len(told.of), what="told")
        assert 8 >= len(publisher._posted)


def test_tasks_need_no_thread_but_the_connections(broker: RabbitMQBroker) -> None:
    """Once its queue is known, tasks enqueue on RabbitMQ without a thread between it and their loop."""
    client = goose.aio.Client(broker, queue="mail", settings=Settings())
    before = {thread.name for thread in threading.enumerate()}

    async def main() -> list[Any]:
        return await asyncio.gather(*(client.enqueue(send, str(n)) for n in range(200)))

    asyncio.run(main())

    assert 201 == broker.count(State.READY, "mail")
    assert before == {thread.name for thread in threading.enumerate()}


def test_a_task_hears_that_its_job_is_in_doubt(broker: RabbitMQBroker, proxy: Proxy) -> None:
    """An error is the same as without asyncio, and so is what it says of the job."""
    client = goose.aio.Client(broker, queue="mail", settings=Settings())
    proxy.blackhole()
    with pytest.raises(EnqueueError, match="did not confirm 1 job within 1 s") as caught:
        asyncio.run(client.enqueue(send, "x"))
    assert ["unknown"] == list(caught.value.jobs.values())
