"""Jobs that are posted, while no thread waits: whoever posted them is told once, whatever happens."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from pika.exceptions import ProbableAuthenticationError

import goose.aio
from goose.brokers.base import Session, Share, State
from goose.brokers.rabbitmq import RabbitMQBroker, parts, publishing
from goose.brokers.rabbitmq.batch import Batch
from goose.brokers.rabbitmq.confirms import Parcel
from goose.errors import BrokerUnavailable, EnqueueError
from goose.jobs import Envelope
from goose.settings import Settings
from goose.testing.proxy import Proxy
from tests.brokers.rabbitmq.conftest import Connect
from tests.servers.rabbitmq import RabbitServer

WaitUntil = Callable[..., None]


def job(name: str) -> Envelope:
    return Envelope(name, "mail", b"{}")


def send(to: str) -> None: ...


@pytest.fixture
def broker(connect: Connect, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> RabbitMQBroker:
    """A patient broker behind the proxy that knows its queue, and is not waited for when it is closed."""
    monkeypatch.setattr(parts, "CLOSE_SECONDS", 0.2)
    broker = connect(f"amqp://guest:guest@127.0.0.1:{proxy.port}", timeout=60.0)
    broker.enqueue([job("first")])
    return broker


def hurry(broker: RabbitMQBroker) -> None:
    """Have those who enqueue give up after a second from now on."""
    publisher = broker._parts.publisher
    broker.options = publisher._options = dataclasses.replace(publisher._options, timeout=1.0)


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
    hurry(broker)
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
    broker: RabbitMQBroker, proxy: Proxy
) -> None:
    """Nobody is left waiting for a broker that was closed, neither who came before nor who comes after."""
    publisher = broker._parts.publisher
    name = broker._parts.topology.ready("mail", time.monotonic() + 30)
    told = Told()
    proxy.blackhole()
    assert broker.post([([job("a")], told.by("a"))])
    broker.close()
    assert ["a"] == [*told.of]
    assert publisher.post([([Parcel("", name, "b", b"{}")], told.by("b"))])
    for who in "ab":
        [error] = told.of[who]
        assert isinstance(error, BrokerUnavailable)


def test_of_what_is_posted_beyond_measure_nothing_is_taken(
    broker: RabbitMQBroker,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: WaitUntil,
) -> None:
    """A server that does not answer fills no memory: jobs beyond a limit have to wait in line."""
    monkeypatch.setattr(publishing, "UNDER_WAY", 10)
    told = Told()
    proxy.blackhole()
    assert not broker.post([([job(f"a{n}") for n in range(11)], told.by("a"))])
    assert broker.post([([job(f"b{n}") for n in range(7)], told.by("b"))])
    wait_until(lambda: not broker._parts.publisher._inbox, what="taken over")
    assert not broker.post([([job(f"c{n}") for n in range(4)], told.by("c"))])
    assert broker.post([([job(f"d{n}") for n in range(3)], told.by("d"))])
    assert {} == told.of


def test_a_server_that_takes_nothing_for_long_fills_no_memory(
    broker: RabbitMQBroker, wait_until: WaitUntil
) -> None:
    """While it is short of memory, jobs that were given up are forgotten, however many come after them."""
    hurry(broker)
    publisher = broker._parts.publisher
    publisher.wire.blocked = True  # as it is from the server's word on
    for turn in range(2):
        told = Told()
        for n in range(50):
            assert broker.post([([job(f"{turn} {n}")], told.by(str(n)))])
        wait_until(lambda told=told: 50 == len(told.of), what="told")
    with pytest.raises(BrokerUnavailable):
        broker.enqueue([job("last")])
    assert 2 > len(publisher._queue)


def test_a_job_that_the_server_chokes_on_fails_alone(
    connect: Connect, rabbit: RabbitServer
) -> None:
    """One that it closes the channel for is refused; those around it are stored, and know it."""
    broker = connect()
    client = goose.aio.Client(broker, queue="mail", settings=Settings())

    async def main() -> list[Any]:
        await client.enqueue(send, "first")
        texts = ["x" * 30_000 if n == 25 else str(n) for n in range(50)]
        calls = (client.enqueue(send, text) for text in texts)
        return await asyncio.gather(*calls, return_exceptions=True)

    rabbit.eval("application:set_env(rabbit, max_message_size, 20000).")
    try:
        answers = asyncio.run(main())
    finally:
        rabbit.eval("application:unset_env(rabbit, max_message_size).")

    bad = answers.pop(25)
    assert isinstance(bad, EnqueueError)
    assert ["not_stored"] == list(bad.jobs.values())
    assert 49 == len({job.id for job in answers})
    found: set[str] = set()
    session = Session("worker")
    while lent := broker.dequeue(session, [Share("mail")], limit=100, wait=1.0):
        found |= {delivery.envelope.id for delivery in lent}
        broker.ack(lent)
    assert {job.id for job in answers} < found
    assert 50 == len(found)


def test_a_login_that_is_refused_says_nothing_of_jobs_on_their_way(
    broker: RabbitMQBroker, proxy: Proxy
) -> None:
    """What was on its way when the connection was lost is in doubt, whatever comes after."""
    told = Told()
    publisher = broker._parts.publisher
    proxy.blackhole()
    with publisher.wire._driving:
        batch = Batch([Parcel("", "q", "a", b"")], time.monotonic() + 60, told.by("a"))
        publisher._outlets[0]._unconfirmed[10**6] = (batch, batch.parcels[0])
        publisher.down(ConnectionResetError("lost"))
        assert {} == told.of
        publisher.down(ProbableAuthenticationError(403, "ACCESS_REFUSED"))
    [error] = told.of["a"]
    assert isinstance(error, BrokerUnavailable)
    assert not error.unsent


def test_who_is_stopped_between_two_steps_costs_nobody_a_job(
    broker: RabbitMQBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that is interrupted as it takes over what others left, leaves it as it was or as it should be."""
    publisher = broker._parts.publisher
    name = broker._parts.topology.ready("mail", time.monotonic() + 30)
    told = Told()

    class Stopping(deque[Any]):
        """Is interrupted once, right after the first step."""

        def popleft(self) -> Any:
            publisher._inbox = deque(self)
            raise KeyboardInterrupt

    publisher._inbox = Stopping()
    with pytest.raises(KeyboardInterrupt), publisher.wire._driving:
        publisher._inbox.append(Batch([Parcel("", name, "a", b"")], 1e18, told.by("a")))
        publisher._pump()
    broker.enqueue([job("b")])
    assert {"a": [None]} == told.of
    assert 3 == broker.count(State.READY, "mail")


def test_what_is_done_is_forgotten(broker: RabbitMQBroker, wait_until: WaitUntil) -> None:
    """What is kept of posted jobs is only what is under way, however many there were."""
    publisher = broker._parts.publisher
    for turn in range(30):
        told = Told()
        assert broker.post([([job(f"{turn} {name}")], told.by(name)) for name in "abcdefgh"])
        wait_until(lambda told=told: 8 == len(told.of), what="told")
        assert 8 >= len(publisher._posted._batches)


def test_tasks_need_no_thread_but_the_connections(broker: RabbitMQBroker) -> None:
    """Once its queue is known, tasks enqueue on RabbitMQ without a thread between it and their loop."""
    client = goose.aio.Client(broker, queue="mail", settings=Settings())
    before = {thread.name for thread in threading.enumerate()}

    async def main() -> list[Any]:
        return await asyncio.gather(*(client.enqueue(send, str(n)) for n in range(200)))

    asyncio.run(main())

    assert 201 == broker.count(State.READY, "mail")
    assert before >= {thread.name for thread in threading.enumerate()}


def test_a_task_hears_that_its_job_is_in_doubt(broker: RabbitMQBroker, proxy: Proxy) -> None:
    """An error is the same as without asyncio, and so is what it says of the job."""
    client = goose.aio.Client(broker, queue="mail", settings=Settings())
    hurry(broker)
    proxy.blackhole()
    with pytest.raises(EnqueueError, match="did not confirm 1 job within 1 s") as caught:
        asyncio.run(client.enqueue(send, "x"))
    assert ["unknown"] == list(caught.value.jobs.values())
