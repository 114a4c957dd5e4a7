"""Where transactional jobs are tested: a SQLite file, and a PostgreSQL server for all tests."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

import goose
from goose.brokers.postgres import PostgresBroker
from goose.brokers.sqlite import SQLiteBroker
from tests.servers.postgres import QUICK, PostgresServer


@dataclass
class Place:
    """A broker, and the table beside its jobs that functions write to."""

    broker: SQLiteBroker | PostgresBroker
    execute: Callable[[str], list[Any]]
    """Runs a statement, in a transaction of its own."""

    @property
    def client(self) -> goose.Client:
        """Enqueues here."""
        return goose.Client(self.broker)

    def effects(self) -> list[str]:
        """Return what functions have written, for good."""
        return sorted(name for (name,) in self.execute("SELECT name FROM effects"))


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that is shared: tests use namespaces of their own."""
    with PostgresServer(tmp_path_factory.mktemp("postgres"), config=QUICK) as server:
        yield server


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Iterator[Place]:
    """A file of the test's own."""
    path = tmp_path / "jobs.db"
    broker = SQLiteBroker(path, synchronous="normal")
    broker.migrate()

    def execute(query: str) -> list[Any]:
        connection = sqlite3.connect(path)
        with connection:
            rows = connection.execute(query).fetchall()
        connection.close()
        return rows

    execute("CREATE TABLE effects (name TEXT)")
    yield Place(broker, execute)
    broker.close()


@pytest.fixture
def postgres_place(postgres_server: PostgresServer) -> Iterator[Place]:
    """A database of the test's own."""
    name = f"test_{uuid.uuid4().hex}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    url = postgres_server.url_of("postgres", name)

    def execute(query: str) -> list[Any]:
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    broker = PostgresBroker(url)
    broker.migrate()
    execute("CREATE TABLE effects (name text)")
    yield Place(broker, execute)
    broker.close()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of the two."""
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found
