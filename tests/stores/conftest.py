"""Servers for the tests of the Redis store, started once for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.redis import QUICK, RedisServer
from tests.servers.redis_cluster import RedisCluster


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A redis-server that is shared: tests use namespaces of their own."""
    with RedisServer(tmp_path_factory.mktemp("redis"), config=QUICK) as server:
        yield server.url


@pytest.fixture(scope="session")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three servers that share the slots between them."""
    with RedisCluster(tmp_path_factory.mktemp("cluster"), config=QUICK) as cluster:
        yield cluster.url
