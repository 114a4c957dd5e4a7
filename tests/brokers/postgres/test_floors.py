"""Looks for ready jobs stay quick while nothing can be cleaned up, and leave no job behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest

from goose.brokers.base import Session, Share
from goose.brokers.postgres import PostgresBroker, floors, upkeep
from goose.brokers.postgres.arrays import numbers, teach, texts
from goose.brokers.postgres.floors import Floors
from goose.brokers.postgres.statements import statement
from goose.jobs import Envelope
from tests.brokers.postgres.roles import grant, make_roles
from tests.servers.postgres import PostgresServer

MAIL = [Share("mail")]
BOTTOM = -(1 << 63)


@pytest.fixture
def broker(postgres_server: PostgresServer) -> Iterator[PostgresBroker]:
    """A broker with a namespace of its own."""
    broker = PostgresBroker(postgres_server.url, namespace=uuid.uuid4().hex)
    yield broker
    broker.close()


def opened(broker: PostgresBroker) -> Session:
    """Return a session that lives for the whole test."""
    session = Session(str(uuid.uuid4()))
    broker.open(session, ttl=60)
    return session


def jobs(count: int, prefix: str = "job") -> list[Envelope]:
    """Return *count* envelopes."""
    return [Envelope(f"{prefix}-{number:05}", "mail", b"body") for number in range(count)]


def test_only_slow_looks_raise_a_floor() -> None:
    """After a slow look from the front the next ones begin where it ended, for a while; a quick one ends that."""
    found = Floors()
    found.learn({"a": 7}, floors.SLOW / 2, whole=True)
    assert ([BOTTOM], True) == found.of(["a"])
    found.learn({"a": 7}, 10.0, whole=True)
    assert ([7, BOTTOM], False) == found.of(["a", "b"])
    assert ([BOTTOM], True) == found.of(["a"], whole=True)
    found.learn({"a": 9, "b": 3}, 0.0, whole=False)
    assert ([9, 3], False) == found.of(["a", "b"])
    found.clear(["a"])
    assert ([BOTTOM, 3], False) == found.of(["a", "b"])
    found.learn({"b": 5}, 0.0, whole=True)
    assert ([BOTTOM, BOTTOM], True) == found.of(["a", "b"])


@pytest.mark.parametrize("wait", [0, 0.1])
def test_a_job_below_the_floor_is_found(broker: PostgresBroker, wait: float) -> None:
    """However high the floor, a dequeue that finds nothing above it has looked from the front."""
    session = opened(broker)
    broker.enqueue(jobs(2))
    for _ in range(2):
        broker._floors.learn({"mail": 1 << 62}, 10.0, whole=True)
        assert 1 == len(broker.dequeue(session, MAIL, limit=1, wait=wait))


def test_what_is_given_back_comes_first_again(broker: PostgresBroker) -> None:
    """A release of this very process is in front at once, whatever the floor."""
    session = opened(broker)
    broker.enqueue(jobs(4))
    lent = broker.dequeue(session, MAIL, limit=2, wait=1)
    broker._floors.learn({"mail": 1 << 62}, 10.0, whole=True)
    broker.release(lent)
    again = broker.dequeue(session, MAIL, limit=3, wait=1)

    assert [f"job-{n:05}" for n in range(3)] == [delivery.envelope.id for delivery in again]


def test_lending_reads_little_under_a_held_snapshot(
    broker: PostgresBroker, postgres_server: PostgresServer
) -> None:
    """With thousands of entries that cannot be cleaned up, a look above the floor and an ack read few pages."""
    session = opened(broker)
    schema = broker.options.schema
    with postgres_server.connect(autocommit=False) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT 1")
        for turn in range(20):
            broker.enqueue(jobs(500, f"turn{turn:03}"))
            broker.ack(broker.dequeue(session, MAIL, limit=500, wait=1))
        broker.enqueue(jobs(1, "old"))
        [old] = broker.dequeue(session, MAIL, limit=1, wait=1)
        broker.enqueue(jobs(10, "new"))
        with broker._connections.lend() as connection:
            teach(connection.adapters)
            base = {"session": session.id, "epoch": 1, "queues": texts(["mail"]), "limit": 10}
            floor = postgres_server.execute(f'SELECT max(rank) - 9 FROM "{schema}".jobs')[0][0]
            reads = []
            for verb, values in (
                ("dequeue", {**base, "floors": numbers([BOTTOM]), "receipt": 1}),
                ("dequeue", {**base, "floors": numbers([floor]), "receipt": 1}),
                ("ack", {"ids": texts([old.envelope.id]), "receipts": numbers([1]), "count": 1}),
            ):
                query = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement(verb, schema)
                with connection.transaction(force_rollback=True):
                    [told] = connection.execute(query, values).fetchone() or ()
                reads.append(
                    told[0]["Plan"]["Shared Hit Blocks"] + told[0]["Plan"]["Shared Read Blocks"]
                )
    whole, above, ack = reads

    assert above * 2 < whole, reads
    assert ack < 100, reads


def _vacuums(server: PostgresServer, broker: PostgresBroker) -> int:
    query = (
        "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'jobs' AND schemaname = %s"
    )
    return int(server.execute(query, [broker.options.schema])[0][0])


def test_a_worker_cleans_up_what_it_left_itself(
    broker: PostgresBroker, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has settled enough jobs has the table vacuumed, before the server has counted what is dead."""
    monkeypatch.setattr(upkeep, "_WASTE", 500)
    session = opened(broker)
    broker.enqueue(jobs(300))
    broker.promote_due(limit=1)
    broker.ack(broker.dequeue(session, MAIL, limit=200, wait=1))
    broker.promote_due(limit=1)
    before = _vacuums(postgres_server, broker)
    broker.ack(broker.dequeue(session, MAIL, limit=50, wait=1))
    broker.promote_due(limit=1)

    deadline = time.monotonic() + 20
    while _vacuums(postgres_server, broker) == 0:  # which is counted late, too
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert 0 == before


def test_workers_clean_up_what_done_jobs_left(
    broker: PostgresBroker, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upkeep has the table vacuumed once the server counts enough, by who owns it; others leave it."""
    monkeypatch.setattr(upkeep, "_WASTE", 500)
    session = opened(broker)
    schema = broker.options.schema
    broker.enqueue(jobs(1000))
    broker.ack(broker.dequeue(session, MAIL, limit=1000, wait=1))
    another = PostgresBroker(postgres_server.url, namespace=broker.options.namespace)
    deadline = time.monotonic() + 20
    while _vacuums(postgres_server, broker) == 0:
        assert time.monotonic() < deadline
        another._next_look = 0.0
        another.promote_due(limit=1)
    another.close()
    make_roles(postgres_server)
    with postgres_server.connect() as connection:
        grant(connection, schema)
    worker = PostgresBroker(
        postgres_server.url_of("goose_worker"), namespace=broker.options.namespace
    )
    assert [] == worker._rows("waste", {})
    worker.close()
