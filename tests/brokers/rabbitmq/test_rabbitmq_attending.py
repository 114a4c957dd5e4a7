"""Who waits for jobs reads them from the connection himself, and leaves it as he found it."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from goose._interrupts import exposed
from goose.brokers.base import Session, Share
from goose.brokers.rabbitmq import RabbitMQBroker, intake, lane
from goose.brokers.rabbitmq.connection import Connection
from goose.brokers.rabbitmq.driving import Bell, loop_under
from goose.jobs import Envelope
from goose.testing.proxy import Proxy
from tests.brokers.rabbitmq.conftest import Connect

pytestmark = pytest.mark.timeout(240)

MAIL = [Share("mail")]
PATIENCE = 20.0


def job(name: str) -> list[Envelope]:
    return [Envelope(name, "mail", b"{}")]


def take(broker: RabbitMQBroker, wait: float = PATIENCE) -> list[str]:
    found = broker.dequeue(Session("worker"), MAIL, limit=1, wait=wait)
    broker.ack(found)
    return [delivery.envelope.id for delivery in found]


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What is done, first to last, with the next reads, before what was read is dealt with."""
    doing: list[Callable[[], None]] = []
    deal = Connection._on_data_available

    def instead(self: Any, data: bytes) -> None:
        if doing and b"goose-attending" in data:
            doing.pop(0)()
        deal(self, data)

    monkeypatch.setattr(Connection, "_on_data_available", instead)
    return doing


def attended(broker: RabbitMQBroker) -> None:
    """Wait until somebody waits at the connection, with nothing on its way to him."""
    intake = broker._parts.intake
    until(lambda: intake._lanes and all(lane.clear for lane in intake._lanes.values()), "no lane")
    until(lambda: intake.wire._attended, "nobody attends")


def waiting(broker: RabbitMQBroker, pool: ThreadPoolExecutor) -> Any:
    """Return what a thread will have taken that waits for a job."""
    taken = pool.submit(take, broker)
    attended(broker)
    return taken


def test_who_waits_reads_his_job_himself(connect: Connect, reads: list[Callable[[], None]]) -> None:
    """A job needs no change of threads between the socket and the dequeue that waits for it."""
    broker = connect()
    read: list[str] = []
    reads.append(lambda: read.append(threading.current_thread().name))
    with ThreadPoolExecutor(thread_name_prefix="who-waits") as pool:
        taken = waiting(broker, pool)
        broker.enqueue(job("goose-attending"))
        assert ["goose-attending"] == taken.result(PATIENCE)

    assert ["who-waits_0"] == read


def test_nobody_waits_and_the_connection_is_read_all_the_same(connect: Connect) -> None:
    """After a dequeue that found nothing, what the server pushes is read by the connection's own thread."""
    broker = connect()
    assert [] == take(broker, 0.3)
    broker.enqueue(job("pushed"))
    until(lambda: broker._parts.intake.held("mail"), "it was not read")

    assert ["pushed"] == take(broker)


def test_all_that_wait_have_jobs(connect: Connect) -> None:
    """One of them reads; the others are told of what he read for them."""
    broker = connect()
    with ThreadPoolExecutor() as pool:
        taken = [pool.submit(take, broker) for _ in range(3)]
        lanes = broker._parts.intake._lanes
        until(lambda: lanes and 3 == lanes["mail"].askers, "they do not wait")
        broker.enqueue([*job("a"), *job("b"), *job("c")])

        assert [["a"], ["b"], ["c"]] == sorted(one.result(PATIENCE) for one in taken)


def test_what_others_do_reaches_who_waits_at_the_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who attends hears at once of what changes without him, such as that he is to look up."""
    monkeypatch.setattr(lane, "AUDIT", math.inf)  # or the server's answers would have him look
    broker = connect(silence=600, heartbeat=600)
    with ThreadPoolExecutor() as pool:
        taken = waiting(broker, pool)
        began = time.monotonic()
        broker.wake()
        assert [] == taken.result(PATIENCE)

    assert time.monotonic() - began < PATIENCE / 2


def test_a_defect_as_he_reads_costs_the_connection_only(
    connect: Connect, reads: list[Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    """What was read and not dealt with is lent again over another connection; the defect is told."""
    lost: list[BaseException] = []
    broker = connect(on_lost=lost.append)

    def fail() -> None:
        raise ValueError("nobody expected this")

    reads.append(fail)
    with ThreadPoolExecutor() as pool:
        taken = waiting(broker, pool)
        broker.enqueue(job("goose-attending"))
        assert ["goose-attending"] == taken.result(PATIENCE)

    assert 1 == len(lost)
    assert [ValueError] == [r.exc_info[0] for r in caplog.records if r.exc_info]


def test_threads_that_can_be_interrupted_do_not_attend(
    connect: Connect, reads: list[Callable[[], None]]
) -> None:
    """Where a signal handler or a timeout may raise at any step, another thread reads."""
    broker = connect()
    read: list[str] = []
    reads.extend([lambda: read.append(threading.current_thread().name)] * 2)

    def exposed_take() -> list[str]:
        exposed.add(threading.get_ident())
        try:
            return take(broker)
        finally:
            exposed.discard(threading.get_ident())

    with ThreadPoolExecutor() as pool:
        for how in (lambda: take(broker), lambda: pool.submit(exposed_take).result()):
            threading.Timer(0.1, broker.enqueue, [job("goose-attending")]).start()
            assert ["goose-attending"] == how()

    assert ["goose-rabbitmq-worker"] * 2 == read


def test_a_wake_reaches_who_is_about_to_attend(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is new between his look and his wait is not lost on him, though somebody else attends meanwhile."""
    broker = connect(silence=600, heartbeat=600)
    intake = broker._parts.intake
    on_his_way, go, attend = threading.Event(), threading.Event(), intake.wire.attend

    def slowly(*arguments: Any) -> bool:
        if threading.current_thread().name == "second_0" and not go.is_set():
            on_his_way.set()
            assert go.wait(PATIENCE)
        return attend(*arguments)

    with ThreadPoolExecutor() as pool, ThreadPoolExecutor(thread_name_prefix="second") as other:
        first = waiting(broker, pool)
        monkeypatch.setattr(intake.wire, "attend", slowly)
        second = other.submit(take, broker)
        assert on_his_way.wait(PATIENCE)
        broker.enqueue(job("one"))
        assert ["one"] == first.result(PATIENCE)
        monkeypatch.setattr(lane, "AUDIT", math.inf)
        broker.wake()
        began = time.monotonic()
        go.set()
        assert [] == second.result(PATIENCE)

    assert time.monotonic() - began < PATIENCE / 4


def test_a_connection_that_is_cut_is_left_to_its_thread(
    proxy: Proxy, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who attends finds it cut, once, and has his job over the next one."""
    count: list[None] = []
    read = Connection.read
    monkeypatch.setattr(Connection, "read", lambda self: (count.append(None), read(self)))
    broker = connect(f"amqp://guest:guest@127.0.0.1:{proxy.port}")
    with ThreadPoolExecutor() as pool:
        taken = waiting(broker, pool)
        count.clear()
        connection = broker._parts.intake.wire.connection
        proxy.reset()
        until(lambda: broker._parts.intake.wire.connection not in (connection, None), "not back")
        found = len(count)
        broker.enqueue(job("after"))
        assert ["after"] == taken.result(PATIENCE)

    assert found <= 5


def test_an_instant_that_is_set_while_he_reads_is_kept(
    connect: Connect, reads: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection's own thread, which waits for later things meanwhile, is told of an earlier one."""
    monkeypatch.setattr(intake, "TEND", 1000.0)
    broker = connect(silence=600, heartbeat=600)
    kept = threading.Event()
    reads.append(lambda: broker._parts.intake.wire.later(0.01, kept.set))
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(broker.dequeue, Session("worker"), MAIL, limit=1, wait=PATIENCE)
        attended(broker)
        broker.enqueue(job("goose-attending"))
        assert 1 == len(taken.result(PATIENCE))

    assert kept.wait(2.5), "the driver's loop looks up every 5 s in any case"


def test_news_that_come_before_he_waits_elsewhere_are_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who finds the connection taken looks again, if there was something new since he looked."""
    monkeypatch.setattr(lane.Lane, "known_empty", lambda *_: True)
    broker = RabbitMQBroker("amqp://localhost")
    intake = broker._parts.intake

    def taken(*_: Any) -> bool:
        intake.wake()
        return False

    monkeypatch.setattr(intake.wire, "attend", taken)
    monkeypatch.setattr(broker._parts.topology, "ready", lambda queue, _: queue)
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        assert [] == pool.submit(take, broker).result()
    assert time.monotonic() - began < PATIENCE / 2


def test_what_happened_to_a_socket_that_is_given_up_is_nobodys() -> None:
    """Its loop may have been told of a broken connection just before somebody else gave that up."""
    lock = threading.Lock()
    loop: Any = loop_under(lock)
    told, dispatch = threading.Event(), loop._poller._dispatch_fd_events

    def tell(events: dict[int, int]) -> None:
        told.set()
        dispatch(events)

    loop._poller._dispatch_fd_events = tell
    mine, other = socket.socketpair()
    with mine, ThreadPoolExecutor() as pool:
        loop.add_handler(mine.fileno(), lambda *_: None, loop.READ)
        with lock:
            other.close()
            ended = pool.submit(loop.start)
            assert told.wait(PATIENCE)
            loop.remove_handler(mine.fileno())
        loop.add_callback_threadsafe(loop.stop)
        ended.result(PATIENCE)
    loop.close()


def test_a_ring_before_the_wait_is_heard() -> None:
    """Whoever knows what he heard before he looked misses nothing that comes after; a ring is for one wait."""
    bell = Bell()
    quiet, loud = socket.socketpair()
    with quiet, loud:
        heard = bell.rung
        bell.ring()
        began = time.monotonic()
        assert not bell.wait(quiet.fileno(), heard, PATIENCE)
        loud.send(b"!")
        assert bell.wait(quiet.fileno(), bell.rung, PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2
        quiet.recv(1)
        began = time.monotonic()
        assert not bell.wait(quiet.fileno(), bell.rung, 0.05)
        assert time.monotonic() - began >= 0.05
