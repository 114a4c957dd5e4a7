"""How the tables come into a database, and how their versions go together."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from goose.brokers.base import State
from goose.brokers.postgres import PostgresBroker, statements
from goose.errors import BrokerError
from goose.jobs import Envelope
from goose.stores.postgres import PostgresStore
from tests.servers.pgbouncer import Pgbouncer
from tests.servers.postgres import PostgresServer


def test_many_begin_at_once_behind_a_pooler(pgbouncer: Pgbouncer) -> None:
    """Programs that make the tables at the same moment get along, whichever backend they are given."""
    for _ in range(5):
        namespace = uuid.uuid4().hex
        crowd = [PostgresBroker(pgbouncer.url, namespace=namespace) for _ in range(6)]
        with ThreadPoolExecutor(len(crowd)) as pool:
            list(pool.map(PostgresBroker.migrate, crowd))
        for broker in crowd:
            broker.close()


def test_tables_of_an_earlier_version_go_on(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What needs newer tables than there are says so, or makes them; what is there stays."""
    namespace = uuid.uuid4().hex
    with closing(PostgresBroker(postgres_server.url, namespace=namespace)) as first:
        with monkeypatch.context() as earlier:
            earlier.setattr(statements, "_VERSIONS", ("schema",))
            postgres_server.execute(first.migration())
        old = PostgresBroker(postgres_server.url, namespace=namespace, migrate="off")
        with closing(old), pytest.raises(BrokerError, match="tables of version 1, not 4"):
            old.enqueue([Envelope("a", "mail", b"")])
        careful = PostgresStore(postgres_server.url, namespace=namespace, migrate="off")
        with closing(careful), pytest.raises(BrokerError, match="tables of version 1, not 2"):
            careful.put("k", b"1")
        with closing(first.open_store()) as store:
            assert isinstance(store, PostgresStore)
            assert store.put("k", b"1")
        first.enqueue([Envelope("a", "mail", b"")])
        assert 1 == first.count(State.READY)
