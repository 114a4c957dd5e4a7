"""The connections to PostgreSQL: how many there are, whatever befalls those who have them."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from goose.brokers import pooling
from goose.brokers.base import State
from goose.brokers.postgres import PostgresBroker, connections
from goose.brokers.postgres.connections import Connections
from goose.brokers.postgres.options import read
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope
from goose.testing.proxy import Proxy
from tests.servers.postgres import PostgresServer
from tests.stopping import stop_everywhere

LIMIT = 2


@pytest.fixture
def pool(postgres_server: PostgresServer) -> Iterator[Connections]:
    """Two connections, and little patience."""
    pool = Connections(read(postgres_server.url, {"pool": LIMIT, "timeout": 0.5}))
    yield pool
    pool.close()


def ask(pool: Connections) -> None:
    """Use one as a call does."""
    with pool.lend() as connection:
        assert (1,) == connection.execute("SELECT 1").fetchone()


def test_there_are_no_more_than_the_limit(pool: Connections) -> None:
    """Who comes when all are lent is told so, and how to have more; a free one is lent again."""
    with pool.lend():
        with (
            pool.lend() as last,
            pytest.raises(BrokerUnavailable, match=r"all 2 connections .* raise pool="),
        ):
            ask(pool)
        with pool.lend() as again:
            assert last is again


# The connection that was under way is closed as it is forgotten, which the driver remarks on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_is_stopped_at_any_step_costs_no_place(pool: Connections) -> None:
    """A caller that is interrupted as he takes a connection or gives it back does not use up the limit."""
    assert 30 < stop_everywhere(lambda: ask(pool), connections, pooling)
    pool.drop()
    assert 30 < stop_everywhere(lambda: ask(pool), connections, pooling)

    gc.collect()  # so that it is here that it remarks

    with pool.lend() as one, pool.lend() as other:
        assert [(1,), (1,)] == [each.execute("SELECT 1").fetchone() for each in (one, other)]


def test_those_that_are_dropped_or_broken_make_room(pool: Connections) -> None:
    """After an outage as many connections can be made as there were."""
    with pool.lend(), pool.lend():
        pass
    pool.drop()
    with pool.lend() as one, pool.lend() as other:
        one.close()
        other.execute("BEGIN")  # nobody may be lent that
    with pool.lend() as one, pool.lend() as other:
        assert psycopg.pq.TransactionStatus.IDLE == other.pgconn.transaction_status


def test_a_child_lets_go_of_what_a_thread_of_its_parent_has(pool: Connections) -> None:
    """Copies of connections, idle ones and lent ones, are closed in a child; the parent's go on."""
    go, has = threading.Event(), threading.Event()
    descriptors: list[int] = []
    answers: list[object] = []

    def hold() -> None:
        with pool.lend() as connection:
            descriptors.append(connection.pgconn.socket)
            has.set()
            go.wait(20)
            answers.append(connection.execute("SELECT 1").fetchone())

    thread = threading.Thread(target=hold)
    thread.start()
    assert has.wait(20)
    with pool.lend() as idle:
        descriptors.append(idle.pgconn.socket)
    inodes = {os.fstat(descriptor).st_ino for descriptor in descriptors}
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            ask(pool)
            own = {os.stat(f"/proc/self/fd/{name}").st_ino for name in _open()}
            code = len(inodes & own)
        os._exit(code)
    assert 0 == os.waitpid(child, 0)[1]
    go.set()
    thread.join(20)
    ask(pool)

    assert [(1,)] == answers


def _open() -> list[str]:
    names = os.listdir("/proc/self/fd")
    return [name for name in names if os.path.exists(f"/proc/self/fd/{name}")]


@pytest.mark.parametrize("count", [1, 2], ids=["alone", "among others"])
def test_an_enqueue_that_is_repeated_is_told_in_the_log(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture, count: int
) -> None:
    """Whose answer is lost is stored again under the same id, and the log says which job that was."""
    caplog.set_level(logging.INFO, "goose.brokers")
    with Proxy(("127.0.0.1", postgres_server.port)) as proxy:
        url = postgres_server.url.replace(f":{postgres_server.port}", f":{proxy.port}")
        broker = PostgresBroker(url, namespace=uuid.uuid4().hex, notify="off")
        broker.enqueue([Envelope(f"before-{n}", "mail", b"{}") for n in range(count)])
        proxy.cut_before_reply(1)
        again = [Envelope(f"again-{n}", "mail", b"{}") for n in range(count)]
        broker.enqueue(again)
        assert 2 * count == broker.count(State.READY)
        broker.close()

    told = [vars(each)["job_id"] for each in caplog.records if hasattr(each, "stored_again")]
    assert [job.id for job in again] == told
