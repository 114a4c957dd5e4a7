"""What errors mean, and what holds when a real server, or the way to it, breaks."""

from __future__ import annotations

import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from goose.brokers.base import Session, Share, State
from goose.brokers.postgres import PostgresBroker
from goose.brokers.postgres.faults import STATES, Remedy, judge, translated
from goose.errors import BrokerError, BrokerUnavailable, SessionLost
from goose.jobs import Envelope
from goose.testing.proxy import Proxy
from tests.servers.postgres import PostgresServer

RETRY, RECONNECT, LOST, REFUSED = Remedy
SAID = {
    "08": LOST, "0A000": RECONNECT, "22": REFUSED, "25006": RECONNECT, "26000": REFUSED,
    "42P05": REFUSED, "28": REFUSED, "3D000": REFUSED, "3F000": REFUSED, "40001": RETRY,
    "40P01": RETRY, "40003": LOST, "42501": REFUSED, "42703": REFUSED, "42883": REFUSED,
    "42P01": REFUSED, "53100": REFUSED, "53200": REFUSED, "53300": RETRY, "53": REFUSED,
    "55P03": RETRY, "57014": RETRY, "57P01": LOST, "57P02": LOST, "57P03": RETRY, "57": LOST,
    "58": REFUSED, "XX": REFUSED, "": REFUSED,
}  # fmt: skip
MAIL = [Share("mail")]


def jobs(count: int, prefix: str = "job") -> list[Envelope]:
    """Return *count* envelopes."""
    return [Envelope(f"{prefix}-{number:05}", "mail", b"body") for number in range(count)]


def opened(broker: PostgresBroker) -> Session:
    """Return a session that lives for the whole test."""
    session = Session(str(uuid.uuid4()))
    broker.open(session, ttl=60)
    return session


def persist(call: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Repeat *call* until the broker can be reached; return what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except BrokerUnavailable:
            assert time.monotonic() < deadline, "the broker does not come back"
            time.sleep(0.02)


# --- the table -----------------------------------------------------------------------------


def test_no_state_is_forgotten_here() -> None:
    """The table of this test names every entry of the table it tests."""
    assert set(STATES) == set(SAID)


@pytest.mark.parametrize(("state", "remedy"), SAID.items())
def test_states(state: str, remedy: Remedy) -> None:
    """An error of the server means what its SQLSTATE, or the class of it, says; each has advice."""
    error = errors.Error("words")
    error.sqlstate = {2: f"{state}999", 0: "P0001"}.get(len(state), state)

    assert remedy is judge(error).remedy
    assert len(judge(error).advice) > 10


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (psycopg.OperationalError("server closed the connection unexpectedly"), LOST),
        (psycopg.OperationalError("connection failed: Connection refused"), LOST),
        (psycopg.OperationalError('FATAL:  password authentication failed for user "x"'), REFUSED),
        (psycopg.OperationalError('FATAL:  database "x" does not exist'), REFUSED),
        (psycopg.OperationalError("FATAL:  the database system is starting up"), RETRY),
        (psycopg.OperationalError("FATAL:  the database system is in recovery mode"), RETRY),
        (psycopg.OperationalError("FATAL:  sorry, too many clients already"), RETRY),
        (psycopg.OperationalError("session is read-only"), RECONNECT),
        (psycopg.DataError("cannot contain NUL"), REFUSED),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"), REFUSED),
        (psycopg.ProgrammingError("odd"), REFUSED),
        (ConnectionResetError(104, "reset"), LOST),
        (TimeoutError("late"), LOST),
    ],
    ids=lambda value: value.name if isinstance(value, Remedy) else str(value)[:40],
)
def test_errors_without_a_state(error: BaseException, remedy: Remedy) -> None:
    """What the driver says by itself, above all when it cannot connect, is known by its words."""
    told = translated(error, "host:1/db")

    assert remedy is judge(error).remedy
    assert isinstance(told, BrokerError)
    assert isinstance(told, BrokerUnavailable) == (remedy is not REFUSED)
    assert "host:1/db" in str(told)


def test_nobody_there_is_said_in_short() -> None:
    """libpq's advice about a refused connection stands in the message already."""
    refused = psycopg.OperationalError("connection failed: Connection refused\n\tIs the server …?")

    assert "PostgreSQL at h:1/x: connection refused; is PostgreSQL running there?" == str(
        translated(refused, "h:1/x")
    )


def test_a_server_that_is_not_there_has_got_nothing() -> None:
    """An enqueue that found nobody listening says that nothing was sent."""
    with pytest.raises(BrokerUnavailable) as caught:
        PostgresBroker("postgresql://127.0.0.1:1/x").enqueue([Envelope("1", "mail", b"{}")])

    assert caught.value.unsent


# --- the server ----------------------------------------------------------------------------


def test_a_restart_loses_nothing_that_was_said(own_server: PostgresServer) -> None:
    """After a crash of the server all that was acknowledged is so, and work goes on within 5 s."""
    broker = PostgresBroker(own_server.url)
    session = opened(broker)
    broker.enqueue(jobs(20))
    done = broker.dequeue(session, MAIL, limit=5, wait=0)
    held = broker.dequeue(session, MAIL, limit=5, wait=0)
    assert [] == list(broker.ack(done))
    own_server.kill()
    with pytest.raises(BrokerUnavailable):
        broker.enqueue(jobs(1, "down"))
    own_server.start()
    up = time.monotonic()
    persist(lambda: broker.heartbeat(session, ttl=60))
    assert time.monotonic() - up < 5

    assert [] == list(broker.release(held[:2]))
    assert [] == list(broker.ack(held[2:]))
    assert 20 - 5 - 3 == broker.count(State.READY)
    assert 0 == broker.count(State.RUNNING)
    broker.close()


def test_backends_that_are_ended_at_any_moment(own_server: PostgresServer) -> None:
    """While connections are ended twenty times a second, no job is lost, and each is acked once."""
    broker = PostgresBroker(own_server.url)
    broker.migrate()
    enough, stop = threading.Event(), threading.Event()
    stored: list[str] = []
    acked: list[str] = []
    problems: list[BaseException] = []
    admin = own_server.connect()

    def produce() -> None:
        # There is work for as long as it takes to end enough of its connections.
        for number in itertools.count():
            if number >= 150 and enough.is_set():
                break
            batch = jobs(10, f"batch{number:04}")
            persist(lambda batch=batch: broker.enqueue(batch))
            stored.extend(job.id for job in batch)

    def consume() -> None:
        session = Session(str(uuid.uuid4()))
        persist(lambda: _open(broker, session))
        while not stop.is_set():
            try:
                lent = broker.dequeue(session, MAIL, limit=7, wait=0.05)
            except BrokerUnavailable:
                # What was lent without our knowledge is given back, as the engine does.
                persist(lambda: broker.release(broker.held(session)))
                continue
            for delivery in lent:
                _ack(broker, delivery, acked)

    def guarded(call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                problems.append(error)

        return run

    producer = threading.Thread(target=guarded(produce))
    threads = [producer, *(threading.Thread(target=guarded(consume)) for _ in range(2))]
    for thread in threads:
        thread.start()
    ended = 0
    deadline = time.monotonic() + 60
    while not problems and time.monotonic() < deadline:
        if not producer.is_alive() and set(acked) >= set(stored):
            break
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
            "pid <> pg_backend_pid() AND backend_type = 'client backend' AND random() < 0.7"
        )
        ended += (admin.execute(query).fetchone() or (0,))[0]
        if ended >= 20:
            enough.set()
        time.sleep(0.05)
    enough.set()
    stop.set()
    for thread in threads:
        thread.join(30)
    admin.close()

    assert [] == problems
    assert set(stored) == set(acked)
    assert 0 == persist(lambda: broker.count(State.READY))
    assert ended >= 20
    broker.close()


def _open(broker: PostgresBroker, session: Session) -> None:
    try:
        broker.open(session, ttl=60)
    except BrokerError as error:
        if "opened before" not in str(error):
            raise  # else the first try had arrived


def _ack(broker: PostgresBroker, delivery: Any, acked: list[str]) -> None:
    """Ack until an answer comes; after a lost one "no longer ours" means that it was done."""
    unsure = False
    while True:
        try:
            lost = broker.ack([delivery])
        except BrokerUnavailable:
            unsure = True
            time.sleep(0.01)
            continue
        assert not lost or unsure, "a good loan was lost"
        acked.append(delivery.envelope.id)
        return


def test_a_standby_takes_over(tmp_path: Path, own_server: PostgresServer) -> None:
    """With two hosts in the URL and a standby that confirms, a failover loses nothing that was said."""
    primary = own_server
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    standby = PostgresServer(tmp_path / "standby")
    standby.run(
        "pg_basebackup", "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast", "-d",
        f"host=127.0.0.1 port={primary.port} user=postgres application_name=standby",
    )  # fmt: skip
    with standby:
        primary.execute("SELECT pg_reload_conf()")
        broker = PostgresBroker(
            f"postgresql://postgres@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/postgres"
        )
        session = opened(broker)
        stored: list[str] = []
        enough = threading.Event()

        def produce() -> None:
            number = 0
            while not enough.is_set():
                batch = jobs(3, f"n{number:05}")
                persist(lambda b=batch: broker.enqueue(b), 30)
                stored.extend(envelope.id for envelope in batch)
                number += 1

        producer = threading.Thread(target=produce)
        producer.start()
        while len(stored) < 100:
            time.sleep(0.01)
        primary.kill()
        before = len(stored)
        standby.run("pg_ctl", "promote", "-D", str(standby.data), "-w")
        # It waits for a standby of its own, if it is told to.
        standby.execute("ALTER SYSTEM RESET synchronous_standby_names")
        standby.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 20
        while len(stored) < before + 100 and time.monotonic() < deadline:
            time.sleep(0.01)
        enough.set()
        producer.join(30)
        there: set[str] = set()
        while lent := persist(lambda: broker.dequeue(session, MAIL, limit=500, wait=0)):
            there |= {delivery.envelope.id for delivery in lent}
            broker.ack(lent)

        assert len(stored) >= before + 100
        assert [] == [name for name in stored if name not in there]
        broker.close()


# --- the way there -------------------------------------------------------------------------


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Any:
    """A way to the server that can be broken."""
    with Proxy(("127.0.0.1", postgres_server.port)) as proxy:
        yield proxy


def through(proxy: Proxy, **options: Any) -> PostgresBroker:
    """Return a broker behind *proxy*, with a namespace of its own, that has connected."""
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
    broker = PostgresBroker(url, **{"namespace": uuid.uuid4().hex, "notify": "off", **options})
    broker.migrate()
    return broker


def test_an_enqueue_whose_answer_is_lost_is_stored_once(proxy: Proxy) -> None:
    """The client repeats it under the same ids, and each job is there once."""
    broker = through(proxy)
    for number in range(5):
        proxy.cut_before_reply(1)
        persist(lambda n=number: broker.enqueue(jobs(3, f"batch{n}")))
        assert not proxy.armed
    broker.enqueue(jobs(3, "batch0"))

    assert 15 == broker.count(State.READY)
    broker.close()


def test_an_ack_whose_answer_is_lost_is_unknown_and_then_done(proxy: Proxy) -> None:
    """The first answer that did not come is no lost loan; asked again, the loan is over."""
    broker = through(proxy)
    session = opened(broker)
    broker.enqueue(jobs(2))
    lent = broker.dequeue(session, MAIL, limit=2, wait=0)
    proxy.cut_before_reply(1)
    with pytest.raises(BrokerUnavailable):
        broker.ack(lent)

    assert lent == list(persist(lambda: broker.ack(lent)))
    assert [] == list(broker.queues())
    broker.close()


def test_a_loan_whose_answer_is_lost_can_be_found(proxy: Proxy) -> None:
    """The session may ask what it holds, and give back what it never saw."""
    broker = through(proxy)
    session = opened(broker)
    broker.enqueue(jobs(2))
    proxy.cut_before_reply(1)
    with pytest.raises(BrokerUnavailable):
        broker.dequeue(session, MAIL, limit=2, wait=0)
    held = persist(lambda: broker.held(session))

    assert ["job-00000", "job-00001"] == sorted(delivery.envelope.id for delivery in held)
    assert [] == list(broker.release(held))
    broker.close()


def test_nothing_waits_for_ever(proxy: Proxy) -> None:
    """A server that answers nothing more, over old connections or new ones, is unavailable in time."""
    broker = through(proxy, timeout=0.5, connect_timeout=2)
    proxy.blackhole()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            broker.count(State.READY)
        assert time.monotonic() - began < 4
    proxy.heal()
    assert 0 == persist(lambda: broker.count(State.READY))
    broker.close()


def test_a_killed_server_process_is_noticed(own_server: PostgresServer) -> None:
    """When a backend crashes, and the server throws everybody out for it, work goes on by itself."""
    broker = PostgresBroker(own_server.url)
    session = opened(broker)
    broker.enqueue(jobs(3))
    with broker._connections.lend() as connection:
        os.kill(connection.info.backend_pid, 9)
    lent = persist(lambda: broker.dequeue(session, MAIL, limit=3, wait=1))

    assert 3 == len(lent) or 3 == len(broker.held(session))
    with pytest.raises(SessionLost):
        broker.dequeue(Session("nobody"), MAIL, limit=1, wait=0)
    broker.close()
