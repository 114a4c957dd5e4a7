"""The Redis broker keeps every promise of the suite, on Redis and on Valkey."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from fakeredis import FakeRedis, FakeServer

from goose.brokers.base import Broker
from goose.brokers.redis import RedisBroker
from goose.testing import BrokerSuite
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import RedisCluster
from tests.servers.redis_sentinel import RedisSentinel


class TestOnRedis(BrokerSuite):
    """On redis-server as Debian has it, each test in a namespace of its own."""

    lull = 0.01
    ttl = 0.05
    delay = 0.1
    patience = 5.0

    @pytest.fixture(autouse=True)
    def server(self, redis_server: RedisServer) -> None:
        """The server of the tests to come."""
        self.url = redis_server.url

    def connect(self, namespace: str, **options: Any) -> RedisBroker:
        """Return a broker of that namespace."""
        return RedisBroker(self.url, namespace=namespace, **options)

    def make_broker(self) -> RedisBroker:
        return self.connect(uuid.uuid4().hex)

    def reopen(self, broker: Broker) -> RedisBroker:
        return self.connect(self.namespace(broker))

    def other_namespace(self, broker: Broker) -> RedisBroker:
        return self.connect(f"not-{self.namespace(broker)}")

    def make_keeping(self, *, dead_max_age: float, dead_max_count: int) -> RedisBroker:
        return self.connect(
            uuid.uuid4().hex, dead_max_age=dead_max_age, dead_max_count=dead_max_count
        )

    def namespace(self, broker: Broker) -> str:
        """Return where *broker* keeps its jobs."""
        assert isinstance(broker, RedisBroker)
        return broker.options.namespace


class TestOnValkey(TestOnRedis):
    """On Valkey, which is Redis's sibling."""

    @pytest.fixture(autouse=True)
    def server(self, valkey: RedisServer) -> None:
        """The server of the tests to come."""
        self.url = valkey.url


class TestOnCluster(TestOnRedis):
    """On a cluster of three, where each queue is in a slot of its own."""

    @pytest.fixture(autouse=True)
    def server(self, redis_cluster: RedisCluster) -> None:
        """The servers of the tests to come."""
        self.url = redis_cluster.url


class TestBehindSentinel(TestOnRedis):
    """On the master that sentinels name; what is enqueued is on its replica too."""

    @pytest.fixture(autouse=True)
    def server(self, redis_sentinel: RedisSentinel) -> None:
        """The servers of the tests to come."""
        self.url = f"{redis_sentinel.url}?wait=1"


class TestOnFakeredis(TestOnRedis):
    """Through a client of fakeredis, which runs the same scripts inside of this process."""

    @pytest.fixture(autouse=True)
    def server(self) -> None:
        """A server of each test's own."""
        self.fake = FakeServer()

    def connect(self, namespace: str, **options: Any) -> RedisBroker:
        return RedisBroker(FakeRedis(server=self.fake), namespace=namespace, **options)
