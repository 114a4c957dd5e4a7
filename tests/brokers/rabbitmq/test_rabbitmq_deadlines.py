"""Calls that come first, or are stopped in their midst: they end in time, and keep nobody else from anything."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from goose.brokers.base import State
from goose.brokers.rabbitmq import RabbitMQBroker
from goose.brokers.rabbitmq import broker as broker_module
from goose.brokers.rabbitmq.browser import Browser, Seen
from goose.brokers.rabbitmq.parts import Parts
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope
from goose.testing.proxy import Proxy
from tests.brokers.rabbitmq.conftest import Connect
from tests.servers.rabbitmq import RabbitServer

pytestmark = pytest.mark.timeout(240)
WaitUntil = Callable[..., None]


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


def in_another_thread(do: Callable[[], object]) -> None:
    """Do it, and fail if that does not end."""
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it hangs"


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
    assert max(took) < 2.5, took


def test_a_queue_is_made_by_one_of_its_first_callers(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for that, and ask nothing themselves."""
    broker = connected(connect())
    desk = broker._parts.topology._desk
    asked: list[str] = []
    ask = desk.ask

    def count(name: str, *args: Any, **words: Any) -> Any:
        asked.append(name)
        return ask(name, *args, **words)

    monkeypatch.setattr(desk, "ask", count)
    start = threading.Barrier(16)

    def first(name: str) -> None:
        start.wait()
        broker.enqueue([envelope(name, "new")])

    with ThreadPoolExecutor(16) as pool:
        for call in [pool.submit(first, f"{n}") for n in range(16)]:
            call.result()
    # It is there? Then declared and bound; whatever queues share is known from the first call.
    assert asked == ["queue_declare", "queue_declare", "queue_bind"]
    assert broker.count(State.READY, "new") == 16


@pytest.mark.parametrize("delay", [None, 1.0], ids=["ready", "scheduled"])
def test_who_is_late_comes_further_the_next_time(
    proxy: Proxy, connect: Connect, delay: float | None
) -> None:
    """On a line too slow for all the questions of a first call, each call ends in time, and one of them is the last."""
    slow = connected(connect(f"amqp://guest:guest@127.0.0.1:{proxy.port}", timeout=1, silence=30))
    put = slow.enqueue if delay is None else slow.schedule
    proxy.delay(0.3)
    took = [refused_after(lambda: put([envelope("job", "new", delay)]))]
    for _ in range(40):
        try:
            began = time.monotonic()
            put([envelope("job", "new", delay)])
            break
        except BrokerUnavailable:
            took.append(time.monotonic() - began)
    else:
        pytest.fail(f"never done, in {len(took)} calls")
    assert max(took) < 2.5, took


def test_a_signal_handler_that_makes_a_queue_leaves_others_their_deadline(
    connect: Connect,
) -> None:
    """What is made for a call that came into another one, in its thread, has a deadline of its own."""
    topology = connect()._parts.topology
    seen: list[float] = []

    def look() -> None:
        seen.append(topology._deadline)

    def make() -> None:
        look()
        topology._alone(later, look)
        look()

    deadline = time.monotonic() + 10
    later = deadline + 10
    topology._alone(deadline, make)
    assert seen == [deadline, later, deadline]


def test_who_is_interrupted_as_his_turn_comes_leaves_it_to_others(connect: Connect) -> None:
    """An interrupt at the moment at which a caller may make a queue does not keep others from it."""
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
    in_another_thread(lambda: broker.enqueue([envelope("job", "new")]))
    assert broker.count(State.READY, "new") == 1


def test_an_interrupt_in_the_very_first_call_leaves_a_wire_that_hears(
    connect: Connect, struck_start: Callable[[Callable[[], object]], None]
) -> None:
    """Whether the thread had begun or not: the next call is heard, and nobody's job is lost."""
    broker = connect()
    struck_start(lambda: broker._parts.publisher.wire.call(lambda: None))
    broker.enqueue([envelope("job", "mail")])
    assert broker.count(State.READY, "mail") == 1


def test_nobody_rings_at_a_pipe_that_is_closed(connect: Connect) -> None:
    """A broker that is closed as the interpreter exits writes into no file that came after it."""
    program = """
import atexit, sys, tempfile
from goose.brokers.rabbitmq import RabbitMQBroker
from goose.jobs import Envelope

broker = RabbitMQBroker(sys.argv[1])

@atexit.register
def close():
    files = [tempfile.TemporaryFile() for _ in range(20)]
    broker.close()
    for file in files:
        file.seek(0)
        print(file.read().decode(), end="")
    print("closed")

broker.enqueue([Envelope("job", "mail", b"{}")])
"""
    url = f"{connect().options.where}"
    done = subprocess.run(
        [sys.executable, "-c", program, f"amqp://{url}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("closed\n", "")


def test_a_closed_broker_holds_no_descriptors(connect: Connect) -> None:
    """Also before the garbage collector comes: programs make a broker for each request."""
    connected(connect()).close()  # what is made once

    def held() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    gc.disable()
    try:
        before = held()
        for _ in range(5):
            connected(connect()).close()
        deadline = time.monotonic() + 20
        while held() > before:
            assert time.monotonic() < deadline, (before, held())
            time.sleep(0.01)
    finally:
        gc.enable()


def test_nothing_that_a_signal_handler_needs_is_locked_by_the_driver(connect: Connect) -> None:
    """One that comes into a thread in the midst of waking the connection's can do the same."""
    broker = connected(connect())
    wire = broker._parts.publisher.wire
    heard = threading.Event()
    # Which the driver holds while it wakes its loop.
    with wire._loop._poller._waking_mutex:  # type: ignore[union-attr]
        in_another_thread(lambda: wire.call(heard.set))
        assert heard.wait(30)


def test_a_signal_handler_may_be_the_first_to_use_a_broker(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes into the making of a broker's parts makes them itself, and all use the same."""
    broker = connect()
    made: list[Any] = []

    def make(*args: Any) -> Parts:
        monkeypatch.setattr(broker_module, "Parts", Parts)
        made.append(broker._parts)
        return Parts(*args)

    monkeypatch.setattr(broker_module, "Parts", make)
    found: list[Any] = []
    in_another_thread(lambda: found.append(broker._parts))
    assert found == made


def test_a_look_at_a_silent_server_ends(
    rabbit: RabbitServer, connect: Connect, wait_until: WaitUntil
) -> None:
    """Whoever looks into a queue when the server falls silent is told so soon after `timeout`."""
    broker = connected(connect(timeout=1))
    parts = broker._parts
    name = parts.topology.known("mail")
    assert name is not None

    def fall_silent(seen: Sequence[Seen]) -> Sequence[Seen]:
        rabbit.pause()
        return ()

    began = time.monotonic()
    try:
        with pytest.raises(BrokerUnavailable), Browser(broker.options, parts.names) as browser:
            browser.look(name, fall_silent, limit=10)
        took = time.monotonic() - began
    finally:
        rabbit.resume()
    assert took < 5.0
    wait_until(lambda: broker.count(State.READY, "mail") == 1, what="given back")


def test_a_look_at_a_slow_server_goes_on(proxy: Proxy, connect: Connect) -> None:
    """A server that says a little at a time is not silent, however long all of it takes."""
    broker = connect(f"amqp://guest:guest@127.0.0.1:{proxy.port}", timeout=1)
    broker.enqueue([envelope(f"{n}", "mail") for n in range(20)])
    proxy.delay(0.2)
    assert len(broker.page(State.READY, "mail").items) == 20
