"""The connections to Redis: how many there are, whatever befalls those who have them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.connection import ConnectionPool

from goose.brokers.redis import connections
from goose.brokers.redis.connections import Connections, talk
from goose.errors import BrokerUnavailable
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
    first, _ = [pool.take(look=True) for _ in range(LIMIT)]
    with pytest.raises(BrokerUnavailable, match=r"all 2 connections .* raise pool="):
        pool.take(look=True)
    pool.give(first)

    assert first is pool.take(look=True)


def test_who_is_stopped_at_any_step_costs_no_place(pool: Connections) -> None:
    """A caller that is interrupted as he takes a connection or gives it back does not use up the limit."""
    assert 20 < stop_everywhere(lambda: ping(pool), connections)
    pool.drop()
    assert 20 < stop_everywhere(lambda: ping(pool), connections)

    both = [pool.take(look=True) for _ in range(LIMIT)]
    assert [[b"PONG"]] * LIMIT == [talk(one.connection, [(b"PING",)]) for one in both]


def test_those_that_are_dropped_make_room(pool: Connections) -> None:
    """After an outage as many connections can be made as there were."""
    dropped = [pool.take(look=True) for _ in range(LIMIT)]
    for one in dropped:
        pool.give(one)
    pool.drop()

    del one
    old = {id(loan.connection): loan.connection for loan in dropped}
    dropped.clear()

    assert not any(id(pool.take(look=True).connection) in old for _ in range(LIMIT))
