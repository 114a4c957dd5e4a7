"""The inspector on a long queue: whatever it does, others wait only for a moment."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Self

import pytest

from goose.brokers.base import Session, Share, State
from goose.brokers.redis import RedisBroker
from goose.jobs import Envelope
from tests.servers.redis import RedisServer

JOBS = 200_000
LONGEST = 1.0
"""Seconds another client may wait; a step takes milliseconds, and the rest is for a crowded machine.
Purging or listing everything in one step would take longer by itself."""


class Neighbour:
    """Another client, which says hello all the time and remembers its longest wait."""

    def __init__(self, server: RedisServer) -> None:
        self._client = server.new_client()
        self._stopping = False
        self.longest = 0.0
        self.calls = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            began = time.monotonic()
            self._client.ping()
            self.longest = max(self.longest, time.monotonic() - began)
            self.calls += 1


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server with a long queue."""
    with RedisServer(tmp_path_factory.mktemp("large")) as server:
        with closing(RedisBroker(server.url)) as broker:
            for first in range(0, JOBS, 10_000):
                broker.enqueue(
                    [Envelope(f"{n:036d}", "long", b"{}") for n in range(first, first + 10_000)]
                )
        yield server


@pytest.mark.timeout(180)
def test_nothing_the_inspector_does_holds_up_another_client(large: RedisServer) -> None:
    """Listing, counting, finding, moving and purging 200,000 jobs goes in short steps."""
    client: Any = large.client
    client.config_set("slowlog-log-slower-than", "100000")
    client.slowlog_reset()
    with closing(RedisBroker(large.url)) as broker, Neighbour(large) as neighbour:
        assert [JOBS] == [stats.counts[State.READY] for stats in broker.queues()]
        assert JOBS == broker.count(State.READY)
        page = broker.page(State.READY, limit=JOBS)
        assert 1_000 == len(page.items)
        middle = f"{broker.find(f'{JOBS // 2:036d}').at * 1e6:.0f} {JOBS // 2:036d}"  # type: ignore[union-attr]
        assert (
            f"{JOBS // 2 + 1:036d}" == broker.page(State.READY, after=middle).items[0].envelope.id
        )
        ids = [item.envelope.id for item in page.items]
        assert ids[::-1] == list(broker.prioritise(ids[::-1]))
        assert ids == list(broker.delete(ids, state=State.READY))
        _bury_and_replay(broker)
        assert JOBS - 1_000 == broker.purge(State.READY)
    slow = client.slowlog_get()

    assert [] == list(broker_queues(large))
    assert neighbour.calls > 100
    assert neighbour.longest < LONGEST
    assert [] == [entry["command"][:60] for entry in slow], "a step took the server over 0.1 s"


def _bury_and_replay(broker: RedisBroker) -> None:
    """Let some jobs die, and make them ready again."""
    session = Session("large")
    broker.open(session, ttl=600)
    lent = broker.dequeue(session, [Share("long")], limit=2_000, wait=0)
    broker.bury([(delivery, delivery.envelope) for delivery in lent])
    dead = [delivery.envelope.evolve(body=b"again") for delivery in lent]
    assert len(lent) == len(broker.replay(dead))
    broker.end(session)


def broker_queues(server: RedisServer) -> list[str]:
    """Return the queues that hold a job."""
    with closing(RedisBroker(server.url)) as broker:
        return [stats.queue for stats in broker.queues()]


def test_large_jobs_before_groups(redis_server: RedisServer) -> None:
    """An answer that is full before it comes to a queue with turns leaves that queue for the next."""
    with closing(RedisBroker(redis_server.url, namespace=uuid.uuid4().hex)) as broker:
        session = Session("large")
        broker.open(session, ttl=60)
        broker.enqueue([Envelope(f"large-{n}", "one", b"x" * 1_200_000) for n in range(2)])
        broker.enqueue([Envelope("plain", "two", b"")])
        broker.enqueue([Envelope("grouped", "two", b"", group="a")])
        came: list[str] = []
        for _ in range(5):
            lent = broker.dequeue(session, [Share("one"), Share("two")], limit=10, wait=0)
            came += [delivery.envelope.id for delivery in lent]
            broker.ack(lent)

        assert ["large-0", "large-1", "plain", "grouped"] == came


def test_nothing_is_left_of_groups_that_are_done(redis_server: RedisServer) -> None:
    """However many groups there were, an empty queue remembers none."""
    namespace = uuid.uuid4().hex
    with closing(RedisBroker(redis_server.url, namespace=namespace)) as broker:
        session = Session("groups")
        broker.open(session, ttl=60)
        for number in range(50):
            broker.enqueue([Envelope(f"j{number}", "mail", b"", group=f"group-{number}")])
        while lent := broker.dequeue(session, [Share("mail")], limit=7, wait=0):
            broker.ack(lent)
        left = redis_server.client.keys(f"goose:{{{namespace}:mail}}:*")

        assert [] == left
