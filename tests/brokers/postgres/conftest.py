"""Servers for the tests of the PostgreSQL broker, started once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.pgbouncer import Pgbouncer
from tests.servers.postgres import QUICK, PostgresServer


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that is shared: tests use namespaces of their own."""
    with PostgresServer(tmp_path_factory.mktemp("postgres"), config=QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[Pgbouncer]:
    """A pooler in front of that server."""
    with Pgbouncer(postgres_server) as pooler:
        yield pooler


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server of one test's own, to be killed and changed."""
    with PostgresServer(tmp_path / "server") as server:
        yield server
