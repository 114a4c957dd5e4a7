"""Servers for the tests of the Redis broker, started once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.redis import QUICK, RedisServer, valkey_server
from tests.servers.redis_cluster import RedisCluster
from tests.servers.redis_sentinel import RedisSentinel


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server that is shared: tests use namespaces of their own."""
    # A short wait is as long as a tick of the server.
    config = {**QUICK, "hz": "100"}
    with RedisServer(tmp_path_factory.mktemp("redis"), config=config) as server:
        yield server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The same of Valkey."""
    config = {**QUICK, "hz": "100"}
    folder = tmp_path_factory.mktemp("valkey")
    with RedisServer(folder, program=valkey_server(), config=config) as server:
        yield server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server of one test's own, to be killed and changed."""
    with RedisServer(tmp_path / "server") as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Three servers that share the slots between them."""
    config = {**QUICK, "hz": "100"}
    with RedisCluster(tmp_path_factory.mktemp("cluster"), config=config) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSentinel]:
    """A master, its replica, and the sentinels that watch them."""
    with RedisSentinel(tmp_path_factory.mktemp("sentinel"), config={**QUICK, "hz": "100"}) as group:
        yield group
