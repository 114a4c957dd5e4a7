"""The PostgreSQL broker keeps every promise of the suite."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from goose.brokers.base import Broker
from goose.brokers.postgres import PostgresBroker
from goose.testing import BrokerSuite
from tests.brokers.postgres.roles import grant, make_roles
from tests.servers.pgbouncer import Pgbouncer
from tests.servers.postgres import PostgresServer


class TestOnPostgres(BrokerSuite):
    """On PostgreSQL as Debian has it, each test in a schema of its own."""

    lull = 0.01
    ttl = 0.05
    delay = 0.1
    patience = 5.0

    @pytest.fixture(autouse=True)
    def server(self, postgres_server: PostgresServer) -> None:
        """The server of the tests to come."""
        self.url = postgres_server.url

    def connect(self, namespace: str, **options: Any) -> PostgresBroker:
        """Return a broker of that namespace."""
        return PostgresBroker(self.url, namespace=namespace, **options)

    def make_broker(self) -> PostgresBroker:
        return self.connect(uuid.uuid4().hex)

    def reopen(self, broker: Broker) -> PostgresBroker:
        return self.connect(self.namespace(broker))

    def other_namespace(self, broker: Broker) -> PostgresBroker:
        return self.connect(f"not_{self.namespace(broker)}")

    def make_keeping(self, *, dead_max_age: float, dead_max_count: int) -> PostgresBroker:
        return self.connect(
            uuid.uuid4().hex, dead_max_age=dead_max_age, dead_max_count=dead_max_count
        )

    def connection(self, broker: Broker) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url)

    def namespace(self, broker: Broker) -> str:
        """Return where *broker* keeps its jobs."""
        assert isinstance(broker, PostgresBroker)
        return broker.options.namespace


class TestBehindPgbouncer(TestOnPostgres):
    """Through a pooler that gives each transaction another connection."""

    @pytest.fixture(autouse=True)
    def server(self, postgres_server: PostgresServer, pgbouncer: Pgbouncer) -> None:
        """The servers of the tests to come."""
        self.url = pgbouncer.url
        self.direct = postgres_server.url

    def connection(self, broker: Broker) -> psycopg.Connection[Any]:
        return psycopg.connect(self.direct)


class TestAsWorker(TestOnPostgres):
    """As a role that may do only what a worker needs, on tables that their owner made."""

    @pytest.fixture(autouse=True)
    def server(self, postgres_server: PostgresServer) -> None:
        """The server of the tests to come, with the roles."""
        self.owner = postgres_server.url
        self.url = postgres_server.url_of("goose_worker")
        make_roles(postgres_server)

    def connect(self, namespace: str, **options: Any) -> PostgresBroker:
        owner = PostgresBroker(self.owner, namespace=namespace)
        owner.migrate()
        with psycopg.connect(self.owner, autocommit=True) as connection:
            grant(connection, owner.options.schema)
        owner.close()
        return super().connect(namespace, migrate="off", **options)
