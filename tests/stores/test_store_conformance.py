"""Every store keeps every promise of the suite."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path

import psycopg
import pytest

from goose.brokers.postgres import PostgresBroker
from goose.stores.base import Add, Put, Store
from goose.stores.memory import MemoryStore
from goose.stores.postgres import PostgresStore
from goose.stores.redis import RedisStore
from goose.stores.sqlite import SQLiteStore
from goose.testing import StoreSuite
from tests.brokers.postgres.roles import grant, make_roles
from tests.servers.pgbouncer import Pgbouncer
from tests.servers.postgres import PostgresServer


class TestMemoryStore(StoreSuite):
    """Under a clock that the tests turn."""

    made = itertools.count()

    def make_store(self) -> MemoryStore:
        self.time = 1_000_000.0
        self.url = f"memory://store-suite-{next(self.made)}"
        return MemoryStore(self.url, clock=self.clock)

    def clock(self) -> float:
        return self.time

    def reopen(self, store: Store) -> MemoryStore:
        return MemoryStore(self.url, clock=self.clock)

    def other_namespace(self, store: Store) -> MemoryStore:
        return MemoryStore(f"{self.url}?namespace=other", clock=self.clock)

    def advance(self, store: Store, seconds: float) -> None:
        self.time += seconds


class TestSQLiteStore(StoreSuite):
    """In a file of each test's own, under a clock that the tests turn."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        """Where the file is, and what time it is."""
        self.path = tmp_path / "kept.db"
        self.time = 1_000_000.0

    def clock(self) -> float:
        return self.time

    def make_store(self) -> SQLiteStore:
        return SQLiteStore(self.path, wall=self.clock, synchronous="normal")

    def reopen(self, store: Store) -> SQLiteStore:
        return self.make_store()

    def other_namespace(self, store: Store) -> SQLiteStore:
        return SQLiteStore(
            f"sqlite:///{self.path}?namespace=other&synchronous=normal", wall=self.clock
        )

    def advance(self, store: Store, seconds: float) -> None:
        self.time += seconds

    def test_what_is_over_is_swept_away(self) -> None:
        """Rows that are over leave the file with the writes that come after."""
        store = self.make_store()
        for number in range(30):
            store.apply([Put(f"k{number}", b"", ttl=1), Put(f"k{number}", b"", ttl=1)])
            store.apply([Add(f"s{number}", "member", ttl=1)])
        self.time += 2
        for _ in range(4):
            store.put("later", b"")

        count = (
            "SELECT (SELECT count(*) FROM goose_store), (SELECT count(*) FROM goose_store_members)"
        )
        assert (1, 0) == store._read(lambda connection: connection.execute(count).fetchone())
        store.close()


class TestRedisStore(StoreSuite):
    """On redis-server, by its own clock, each test in a namespace of its own."""

    @pytest.fixture(autouse=True)
    def place(self, redis_url: str) -> None:
        """The URL and the namespace of the test to come."""
        self.url, self.namespace = redis_url, uuid.uuid4().hex

    def make_store(self) -> RedisStore:
        return RedisStore(self.url, namespace=self.namespace)

    def reopen(self, store: Store) -> RedisStore:
        return self.make_store()

    def other_namespace(self, store: Store) -> RedisStore:
        return RedisStore(self.url, namespace=f"not-{self.namespace}")

    def test_what_is_over_is_swept_away(self) -> None:
        """What is over leaves the server with the writes that come after."""
        store = self.make_store()
        for number in range(30):
            store.put(f"k{number}", b"", ttl=self.ttl)
        self.advance(store, self.ttl * 1.5)
        for _ in range(2):
            store.put("later", b"")

        [shard] = store._shards
        sizes = [(b"HLEN", f"{shard}:kept"), (b"ZCARD", f"{shard}:kept:names")]
        assert [1, 1] == store._ready().ask(sizes)
        store.close()


class TestOnCluster(TestRedisStore):
    """On a cluster of three, the store spread over its slots."""

    @pytest.fixture(autouse=True)
    def place(self, cluster_url: str) -> None:
        """The URL and the namespace of the test to come."""
        self.url, self.namespace = cluster_url, uuid.uuid4().hex

    test_what_is_over_is_swept_away = None


class TestPostgresStore(StoreSuite):
    """On PostgreSQL, by its own clock, each test in a schema of its own."""

    @pytest.fixture(autouse=True)
    def place(self, postgres_server: PostgresServer) -> None:
        """The URL and the namespace of the test to come."""
        self.url, self.namespace = postgres_server.url, uuid.uuid4().hex

    def make_store(self) -> PostgresStore:
        return PostgresStore(self.url, namespace=self.namespace)

    def reopen(self, store: Store) -> PostgresStore:
        return PostgresStore(self.url, namespace=self.namespace)

    def other_namespace(self, store: Store) -> PostgresStore:
        return PostgresStore(self.url, namespace=f"not_{self.namespace}")

    def test_what_is_over_is_swept_away(self) -> None:
        """Rows that are over leave the tables with the writes that come after."""
        store = self.make_store()
        for number in range(30):
            store.put(f"k{number}", b"", ttl=self.ttl)
            store.add(f"s{number}", "member", ttl=self.ttl)
        self.advance(store, self.ttl * 1.5)
        for _ in range(4):
            store.put("later", b"")

        schema = store.options.schema
        with psycopg.connect(self.url) as connection:
            for table, left in (("store", 1), ("store_members", 0)):
                query = f"SELECT count(*) FROM {schema}.{table}".encode()
                assert (left,) == connection.execute(query).fetchone()
        store.close()


class TestPostgresStoreBehindPgbouncer(TestPostgresStore):
    """Through a pooler that gives each transaction another connection."""

    @pytest.fixture(autouse=True)
    def place(self, pgbouncer: Pgbouncer) -> None:
        """The URL, by way of the pooler, and the namespace of the test to come."""
        self.url, self.namespace = pgbouncer.url, uuid.uuid4().hex

    test_what_is_over_is_swept_away = None


class TestPostgresStoreAsClient(TestPostgresStore):
    """As the role that may do least, on tables that their owner made."""

    @pytest.fixture(autouse=True)
    def place(self, postgres_server: PostgresServer) -> None:
        """The URL and the namespace of the test to come, with the roles."""
        self.owner, self.namespace = postgres_server.url, uuid.uuid4().hex
        self.url = postgres_server.url_of("goose_client")
        make_roles(postgres_server)

    def make_store(self) -> PostgresStore:
        return self.as_client(self.namespace)

    def other_namespace(self, store: Store) -> PostgresStore:
        return self.as_client(f"not_{self.namespace}")

    def as_client(self, namespace: str) -> PostgresStore:
        """Return the store of that namespace, whose tables are there."""
        owner = PostgresBroker(self.owner, namespace=namespace)
        owner.migrate()
        with psycopg.connect(self.owner, autocommit=True) as connection:
            grant(connection, owner.options.schema)
        owner.close()
        return PostgresStore(self.url, namespace=namespace, migrate="off")

    test_what_is_over_is_swept_away = None
