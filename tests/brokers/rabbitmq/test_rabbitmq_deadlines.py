"""How long a call may take that finds nothing made yet: no longer than any other."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from goose.brokers.base import State
from goose.brokers.rabbitmq import RabbitMQBroker
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope
from goose.testing.proxy import Proxy
from tests.brokers.rabbitmq.conftest import Connect
from tests.servers.rabbitmq import RabbitServer

pytestmark = pytest.mark.timeout(240)


class _Interrupt(BaseException):
    """What a timeout raises in the thread of a job."""


def envelope(name: str, queue: str, in_seconds: float | None = None) -> Envelope:
    return Envelope(name, queue, b"{}", delay=in_seconds)


def connected(broker: RabbitMQBroker) -> RabbitMQBroker:
    broker.enqueue([envelope("first", "mail")])
    return broker


def refused_after(call: Callable[[], object]) -> float:
    """Return how many seconds *call* took to raise that nothing was sent."""
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable) as raised:
        call()
    assert raised.value.unsent
    return time.monotonic() - began


def test_first_calls_do_not_wait_for_each_other(rabbit: RabbitServer, connect: Connect) -> None:
    """Ten callers of a queue that is not made yet, on a silent server, each wait for one deadline."""
    broker = connected(connect(timeout=1, silence=30))
    rabbit.pause()
    try:
        with ThreadPoolExecutor(10) as pool:
            calls = [
                pool.submit(refused_after, lambda n=n: broker.enqueue([envelope(f"{n}", "new")]))
                for n in range(10)
            ]
            took = [call.result() for call in calls]
    finally:
        rabbit.resume()
    assert max(took) < 5.0, took


@pytest.mark.parametrize("delay", [None, 30.0], ids=["ready", "scheduled"])
def test_all_that_is_made_first_is_made_within_one_deadline(
    proxy: Proxy, connect: Connect, delay: float | None
) -> None:
    """On a slow line a first call, which asks a dozen questions, is told so at its deadline, and loses nothing."""
    slow = connected(connect(f"amqp://guest:guest@127.0.0.1:{proxy.port}", timeout=1, silence=30))
    put = slow.enqueue if delay is None else slow.schedule
    proxy.delay(0.3)
    took = refused_after(lambda: put([envelope("job", "new", delay)]))
    proxy.heal()
    assert took < 2.0
    put([envelope("job", "new", delay)])
    if delay is None:
        assert slow.count(State.READY, "new") == 1


def test_who_is_interrupted_as_he_makes_a_queue_leaves_it_to_others(connect: Connect) -> None:
    """An interrupt anywhere in a first call does not keep the next one from making the queue."""
    broker = connected(connect(timeout=5))
    topology = broker._parts.topology
    acquire = topology._lock.acquire

    class Struck:
        """The lock, in a thread that is interrupted as soon as it has it."""

        def acquire(self, *args: float, **options: float) -> bool:
            acquire(*args, **options)
            raise _Interrupt

        def release(self) -> None:
            lock.release()

    lock, topology._lock = topology._lock, Struck()  # type: ignore[assignment]
    with contextlib.suppress(_Interrupt):
        broker.enqueue([envelope("job", "new")])
    topology._lock = lock
    thread = threading.Thread(target=broker.enqueue, args=([envelope("job", "new")],))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert broker.count(State.READY, "new") == 1
