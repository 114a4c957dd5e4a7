"""The connections to Redis: how many there are, whatever befalls those who have them."""

from __future__ import annotations

import gc
import logging
import uuid
from collections.abc import Iterator

import pytest
from redis.connection import ConnectionPool

from goose.brokers import pooling
from goose.brokers.base import State
from goose.brokers.redis import RedisBroker, connections
from goose.brokers.redis.connections import Connections, talk
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope
from goose.testing.proxy import Proxy
from tests.servers.redis import RedisServer
from tests.stopping import stop_everywhere

LIMIT = 2


@pytest.fixture
def pool(redis_server: RedisServer) -> Iterator[Connections]:
    """Two connections, and little patience."""
    pool = Connections(ConnectionPool.from_url(redis_server.url), LIMIT, 0.05)
    yield pool
    pool.close()


def ping(pool: Connections) -> None:
    """Use one as a call does."""
    loan = pool.take(look=True)
    connection = loan.connection
    at_rest = False
    try:
        assert [b"PONG"] == talk(connection, [(b"PING",)])
        at_rest = True
    finally:
        if not at_rest:
            connection.disconnect()
        pool.give(loan)


def test_there_are_no_more_than_the_limit(pool: Connections) -> None:
    """Who comes when all are lent is told so, and how to have more; a free one is lent again."""
    first, last = [pool.take(look=True) for _ in range(LIMIT)]
    with pytest.raises(BrokerUnavailable, match=r"all 2 connections .* raise pool="):
        pool.take(look=True)
    pool.give(first)

    assert first is pool.take(look=True)
    pool.give(first)
    pool.give(last)


# The connection that was under way is closed when the collector finds it, which is remarked on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_who_is_stopped_at_any_step_costs_no_place(pool: Connections) -> None:
    """A caller that is interrupted as he takes a connection or gives it back does not use up the limit."""
    assert 20 < stop_everywhere(lambda: ping(pool), connections, pooling)
    pool.drop()
    assert 20 < stop_everywhere(lambda: ping(pool), connections, pooling)
    gc.collect()  # so that it is here that it is remarked on

    both = [pool.take(look=True) for _ in range(LIMIT)]
    assert [[b"PONG"]] * LIMIT == [talk(one.connection, [(b"PING",)]) for one in both]
    for one in both:
        pool.give(one)


def test_errors_that_are_kept_take_no_place(redis_server: RedisServer) -> None:
    """After an outage as many connections can be made as there were, whoever keeps the errors of it."""
    with Proxy(("127.0.0.1", redis_server.port)) as proxy:
        broker = RedisBroker(f"redis://127.0.0.1:{proxy.port}", pool=LIMIT, timeout=0.5)
        broker.count(State.READY)
        proxy.refuse()
        kept: list[BaseException] = []
        for _ in range(2 * LIMIT):
            with pytest.raises(BrokerUnavailable) as caught:
                broker.count(State.READY)
            kept.append(caught.value)
        assert not [error for error in kept if "in use" in str(error)]
        proxy.heal()
        broker.count(State.READY)
        broker.close()


def test_an_enqueue_that_is_repeated_is_told_in_the_log(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whose answer is lost is stored again under the same id, and the log says which job that was."""
    caplog.set_level(logging.INFO, "goose.brokers")
    with Proxy(("127.0.0.1", redis_server.port)) as proxy:
        broker = RedisBroker(f"redis://127.0.0.1:{proxy.port}", namespace=uuid.uuid4().hex)
        broker.enqueue([Envelope("before", "mail", b"{}")])
        proxy.cut_before_reply(1)
        broker.enqueue([Envelope("again", "mail", b"{}")])
        assert 2 == broker.count(State.READY)
        broker.close()

    told = [vars(each)["job_id"] for each in caplog.records if hasattr(each, "stored_again")]
    assert ["again"] == told
