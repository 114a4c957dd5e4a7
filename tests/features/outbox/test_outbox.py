"""Jobs in an outbox: every kind of connection, every kind of database."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import django.conf
import psycopg
import pytest
import sqlalchemy
from django.db import transaction
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import goose
from goose.brokers.base import State
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerError, ConfigError
from goose.features.outbox import Database, Relay, Table, table_for
from goose.jobs import Envelope
from tests.features.outbox.conftest import Place, ready
from tests.servers.postgres import PostgresServer


def greet(name: str) -> None: ...


@pytest.fixture
def client(broker: MemoryBroker) -> goose.Client:
    return goose.Client(broker)


def named(place: Place) -> None:
    """Have clients use the table of *place*."""
    goose.configure(outbox_table=place.name)


@pytest.fixture(autouse=True)
def _forgotten() -> Any:
    yield
    goose.configure()


def enqueue(client: goose.Client, connection: Any) -> None:
    """Enqueue three ready jobs and a later one by *connection*."""
    bound = client.using(outbox=connection)
    bound.enqueue(greet, "Ada")
    bound.enqueue_many(greet, [("Grace",), ("Alan",)])
    bound.enqueue_in(1000, greet, "Edsger")


def counts(place: Place) -> int:
    """Return how many rows another connection sees."""
    with closing(place.table().database) as database:
        return sum(figures.waiting for figures in Table(database, place.name).figures())


def test_sqlalchemy(place: Place, client: goose.Client) -> None:
    """On every database, jobs exist if and only if the transaction of SQLAlchemy's connection commits."""
    named(place)
    engine = sqlalchemy.create_engine(place.alchemy_url)
    with engine.connect() as connection:
        enqueue(client, connection)
        connection.rollback()
        assert 0 == counts(place)
        enqueue(client, connection)
        connection.commit()
    assert 4 == counts(place)
    with Session(engine) as session:
        enqueue(client, session)
        session.rollback()
        enqueue(client, session)
        session.commit()
    assert 8 == counts(place)
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(ConfigError, match="AUTOCOMMIT"),
    ):
        enqueue(client, connection)
    engine.dispose()


def test_a_job_is_moved_as_it_was_enqueued(
    place: Place, client: goose.Client, broker: MemoryBroker, relaying: Callable[..., Relay]
) -> None:
    """Id, queue, group, bytes and order reach the broker; a delay counts from the enqueue."""
    named(place)
    engine = sqlalchemy.create_engine(place.alchemy_url)
    bound = client.using(queue="mail", group="é-group")
    with engine.connect() as connection:
        within = bound.using(outbox=connection)
        jobs = [
            within.enqueue(greet, name) for name in ("Ada", "\u00e9\u4e16\U0001f600", "x" * 70_000)
        ]
        later = within.enqueue_in(100, greet, "late")
        within.submit(jobs)  # again, under the same ids
        connection.commit()
    relay = relaying(place)
    assert 4 == relay.move()
    assert 0 == relay.move()

    assert [job.id for job in jobs] == ready(broker, "mail")
    expected = [goose.jobs.seal(job) for job in jobs]
    found = [broker.find(job.id).envelope for job in jobs]  # type: ignore[union-attr]
    assert [(each.body, each.group) for each in expected] == [(e.body, e.group) for e in found]
    [stored] = broker.page(State.SCHEDULED).items
    assert later.id == stored.envelope.id
    assert time.time() + 100 == pytest.approx(stored.at, abs=5)
    engine.dispose()


@pytest.mark.parametrize("place", ["postgres", "maria"], indirect=True)  # SQLite: one at a time
def test_a_later_number_that_commits_first_skips_nobody(
    place: Place, client: goose.Client, broker: MemoryBroker, relaying: Callable[..., Relay]
) -> None:
    """A row whose transaction commits after a later row was moved is moved all the same."""
    named(place)
    engine = sqlalchemy.create_engine(place.alchemy_url)
    relay = relaying(place)
    with engine.connect() as slow, engine.connect() as quick:
        first = client.using(outbox=slow).enqueue(greet, "first")
        second = client.using(outbox=quick).enqueue(greet, "second")
        quick.commit()
        assert 1 == relay.move()
        slow.commit()
        assert 1 == relay.move()

    assert [second.id, first.id] == ready(broker)
    engine.dispose()


def test_psycopg(
    postgres_server: PostgresServer, request: Any, own_folder: Any, client: goose.Client
) -> None:
    """The same by psycopg, whatever kind of rows the connection makes; autocommit is refused."""
    from tests.features.outbox.conftest import place_of

    place = place_of("postgres", request, own_folder)
    named(place)
    with postgres_server.connect(autocommit=False, row_factory=dict_row) as connection:
        enqueue(client, connection)
        connection.rollback()
        enqueue(client, connection)
        assert 0 == counts(place)
    assert 4 == counts(place)
    with postgres_server.connect() as connection, pytest.raises(ConfigError, match="autocommit"):
        enqueue(client, connection)


def test_what_is_awaited(
    postgres_server: PostgresServer, request: Any, own_folder: Any, client: goose.Client
) -> None:
    """The same for psycopg's and SQLAlchemy's connections that are awaited, also over aiosqlite."""
    from tests.features.outbox.conftest import place_of

    place = place_of("postgres", request, own_folder)
    other = place_of("sqlite", request, own_folder)

    async def both_ends(connection: Any) -> None:
        bound = client.aio.using(outbox=connection)
        for end in (connection.rollback, connection.commit):
            await bound.enqueue(greet, "Ada")
            await bound.enqueue_many(greet, [("Grace",), ("Alan",)])
            await end()

    async def main() -> None:
        named(place)
        connection = await psycopg.AsyncConnection.connect(postgres_server.url)
        async with connection:
            with pytest.raises(ConfigError, match=r"goose\.aio"):
                client.using(outbox=connection).enqueue(greet, "Ada")
            await both_ends(connection)
        assert 3 == counts(place)
        for found, url in (
            (place, place.alchemy_url),
            (other, other.url.replace("sqlite://", "sqlite+aiosqlite://")),
        ):
            named(found)
            engine = create_async_engine(url)
            async with AsyncSession(engine) as session:
                await both_ends(session)
            await engine.dispose()
        assert (6, 3) == (counts(place), counts(other))

    asyncio.run(main())


def test_sqlite3(sqlite: Place, client: goose.Client) -> None:
    """The same by `sqlite3`; a transaction is begun if none is open, unless nothing would commit it."""
    named(sqlite)
    path = sqlite.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        enqueue(client, connection)
        connection.rollback()
        enqueue(client, connection)
        assert 0 == counts(sqlite)
        connection.commit()
    assert 4 == counts(sqlite)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(ConfigError, match="autocommit"):
            enqueue(client, connection)
        connection.execute("BEGIN IMMEDIATE")
        enqueue(client, connection)
        connection.execute("COMMIT")
    assert 8 == counts(sqlite)


def test_django(sqlite: Place, client: goose.Client) -> None:
    """The same by a connection of Django's, inside of ``atomic`` and only there."""
    from django.db.backends.sqlite3.base import DatabaseWrapper

    if not django.conf.settings.configured:
        django.conf.settings.configure(USE_TZ=True)
        django.setup()
    named(sqlite)
    found = DatabaseWrapper(
        {
            "ENGINE": "django.db.backends.sqlite3", "NAME": sqlite.url.removeprefix("sqlite:///"),
            "ATOMIC_REQUESTS": False, "AUTOCOMMIT": True, "CONN_MAX_AGE": 0, "OPTIONS": {},
            "CONN_HEALTH_CHECKS": False, "TIME_ZONE": None, "TEST": {},
        },
        "default",
    )  # fmt: skip
    django.db.connections["default"] = found
    try:
        with pytest.raises(ConfigError, match="atomic"):
            enqueue(client, found)
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            enqueue(client, django.db.connection)
            raise ZeroDivisionError
        assert 0 == counts(sqlite)
        with transaction.atomic():
            enqueue(client, django.db.connection)
        assert 4 == counts(sqlite)
    finally:
        found.close()
        del django.db.connections["default"]


def test_a_missing_table_is_said(
    place: Place, client: goose.Client, relaying: Callable[..., Relay]
) -> None:
    """Where there is no table, client and relay say how to make it, and the transaction lives on."""
    goose.configure(outbox_table="nowhere")
    engine = sqlalchemy.create_engine(place.alchemy_url)
    with engine.connect() as connection:
        with pytest.raises(goose.EnqueueError, match="goose outbox migrate") as caught:
            client.using(outbox=connection).enqueue(greet, "Ada")
        assert {"not_stored"} == set(caught.value.jobs.values())
        assert 1 == connection.execute(sqlalchemy.text("SELECT 1")).scalar()
    engine.dispose()
    place.name = "nowhere"
    with pytest.raises(BrokerError, match="goose outbox migrate"):
        relaying(place).move()


def test_what_makes_no_sense_is_refused(client: goose.Client, sqlite: Place) -> None:
    """Two transactions at once, a cron entry in one, no connection at all, and names of no table."""
    with closing(sqlite3.connect(":memory:")) as connection:
        with pytest.raises(ConfigError, match="not both"):
            client.using(outbox=connection, connection=connection)
        with pytest.raises(goose.Unsupported, match="cron entry"):
            client.using(outbox=connection).cron("name", "* * * * *", greet, "Ada")
    with pytest.raises(ConfigError, match="a object; give one"):
        client.using(outbox=object()).enqueue(greet, "Ada")
    with pytest.raises(ConfigError, match="cannot name an outbox table"):
        table_for("a b", "redis://host")
    for url, words in (("app.db", "not a URL"), ("mongodb://host/db", "MySQL or MariaDB")):
        with pytest.raises(ConfigError, match=words):
            Database(url)


def test_namespaces_have_tables_of_their_own() -> None:
    """What belongs to two namespaces never meets in one table."""
    assert "goose_outbox" == table_for(None, "redis://host/0")
    assert "goose_outbox_shop_2" == table_for(None, "redis://host/0?namespace=Shop-2")
    assert "mine" == table_for("mine", "redis://host/0?namespace=shop")


def test_all_of_a_chunk_or_none(sqlite: Place) -> None:
    """A chunk of which one job cannot be stored leaves nothing behind, in a transaction that goes on."""
    outbox = goose.features.outbox.Outbox(sqlite.name)
    good = Envelope("good", "mail", b"{}")
    with closing(sqlite3.connect(sqlite.url.removeprefix("sqlite:///"))) as connection:
        connection.execute("CREATE TABLE business (name)")
        connection.execute("INSERT INTO business VALUES ('one')")
        with pytest.raises(BrokerError, match="did not take them"):
            outbox.enqueue_within(connection, [good, Envelope("bad", "mail", None)])  # type: ignore[arg-type]
        connection.commit()
    assert 0 == counts(sqlite)
