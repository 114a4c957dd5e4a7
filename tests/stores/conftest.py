"""Servers for the tests of stores, started once for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import postgres
from tests.servers.pgbouncer import Pgbouncer
from tests.servers.postgres import PostgresServer
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


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that is shared: tests use namespaces of their own."""
    folder = tmp_path_factory.mktemp("postgres")
    with PostgresServer(folder, config=postgres.QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[Pgbouncer]:
    """A pooler in front of that server."""
    with Pgbouncer(postgres_server) as pooler:
        yield pooler
