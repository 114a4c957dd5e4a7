"""Jobs in a transaction of the caller's own, by every kind of connection."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import django.conf
import psycopg
import pytest
import sqlalchemy
from django.db import transaction
from django.db.backends.postgresql.base import DatabaseWrapper
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import goose
from goose.brokers.base import State
from goose.brokers.postgres import PostgresBroker
from goose.errors import BrokerError, ConfigError
from goose.jobs import Envelope
from tests.servers.postgres import PostgresServer


def greet(name: str) -> None: ...


@pytest.fixture
def broker(postgres_server: PostgresServer) -> Iterator[PostgresBroker]:
    """A broker with a namespace of its own, whose tables are there."""
    broker = PostgresBroker(postgres_server.url, namespace=uuid.uuid4().hex)
    broker.migrate()
    yield broker
    broker.close()


def alchemy_url(server: PostgresServer) -> str:
    """Return the server's address in SQLAlchemy's words."""
    return server.url.replace("postgresql://", "postgresql+psycopg://")


def counts(broker: PostgresBroker) -> tuple[int, int]:
    """Return how many jobs are ready and scheduled."""
    return broker.count(State.READY), broker.count(State.SCHEDULED)


def enqueue(connection: Any, broker: PostgresBroker) -> None:
    """Enqueue three ready jobs and a later one by *connection*."""
    client = goose.using(broker=broker, connection=connection)
    client.enqueue(greet, "Ada")
    client.enqueue_many(greet, [("Grace",), ("Alan",)])
    client.enqueue_in(1000, greet, "Edsger")


def test_psycopg(postgres_server: PostgresServer, broker: PostgresBroker) -> None:
    """Jobs exist if and only if the transaction of a psycopg connection commits."""
    with postgres_server.connect(autocommit=False) as connection:
        enqueue(connection, broker)
        assert (0, 0) == counts(broker)
        connection.rollback()
        assert (0, 0) == counts(broker)
        enqueue(connection, broker)
    assert (3, 1) == counts(broker)
    with postgres_server.connect() as connection, connection.transaction():
        enqueue(connection, broker)
        assert (3, 1) == counts(broker)
    assert (6, 2) == counts(broker)


def test_autocommit_is_refused(postgres_server: PostgresServer, broker: PostgresBroker) -> None:
    """A connection that commits each statement by itself has no transaction to join."""
    with postgres_server.connect() as connection, pytest.raises(ConfigError, match="autocommit"):
        enqueue(connection, broker)
    assert (0, 0) == counts(broker)


def test_async_psycopg(postgres_server: PostgresServer, broker: PostgresBroker) -> None:
    """The same for psycopg's connection that is awaited; the verbs that do not await refuse it."""

    async def main() -> None:
        connection = await psycopg.AsyncConnection.connect(postgres_server.url)
        async with connection:
            with pytest.raises(ConfigError, match=r"goose\.aio"):
                enqueue(connection, broker)
            client = goose.aio.using(broker=broker, connection=connection)
            for end in (connection.rollback, connection.commit):
                await client.enqueue(greet, "Ada")
                await client.enqueue_in(1000, greet, "Grace")
                assert (0, 0) == counts(broker)
                await end()
        assert (1, 1) == counts(broker)

    asyncio.run(main())


def test_sqlalchemy(postgres_server: PostgresServer, broker: PostgresBroker) -> None:
    """The same for a connection and a session of SQLAlchemy, which know of what was begun."""
    engine = sqlalchemy.create_engine(alchemy_url(postgres_server))
    with engine.connect() as connection:
        enqueue(connection, broker)
        connection.rollback()
        assert (0, 0) == counts(broker)
        enqueue(connection, broker)
        connection.commit()
    assert (3, 1) == counts(broker)
    with Session(engine) as session:
        enqueue(session, broker)
        session.rollback()
        enqueue(session, broker)
        assert (3, 1) == counts(broker)
        session.commit()
    assert (6, 2) == counts(broker)
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(ConfigError, match="AUTOCOMMIT"),
    ):
        enqueue(connection, broker)
    engine.dispose()


def test_async_sqlalchemy(postgres_server: PostgresServer, broker: PostgresBroker) -> None:
    """The same for the kinds of SQLAlchemy that are awaited."""

    async def main() -> None:
        engine = create_async_engine(alchemy_url(postgres_server))
        async with AsyncSession(engine) as session:
            client = goose.aio.using(broker=broker, connection=session)
            for end in (session.rollback, session.commit):
                await client.enqueue(greet, "Ada")
                await client.enqueue_many(greet, [("Grace",), ("Alan",)])
                assert (0, 0) == counts(broker)
                await end()
        async with engine.begin() as connection:
            await goose.aio.using(broker=broker, connection=connection).enqueue(greet, "Edsger")
        assert (4, 0) == counts(broker)
        await engine.dispose()

    asyncio.run(main())


@pytest.fixture
def django_connection(postgres_server: PostgresServer) -> Iterator[Any]:
    """A connection of Django's, as a project would have it."""
    if not django.conf.settings.configured:
        django.conf.settings.configure(USE_TZ=True)
        django.setup()
    found = DatabaseWrapper(
        {
            "ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres",
            "PASSWORD": "", "HOST": "127.0.0.1", "PORT": str(postgres_server.port),
            "ATOMIC_REQUESTS": False, "AUTOCOMMIT": True, "CONN_MAX_AGE": 0, "OPTIONS": {},
            "CONN_HEALTH_CHECKS": False, "TIME_ZONE": None, "TEST": {},
        },
        "default",
    )  # fmt: skip
    django.db.connections["default"] = found
    yield found
    found.close()
    del django.db.connections["default"]


def test_django(django_connection: Any, broker: PostgresBroker) -> None:
    """The same for a connection of Django's, inside of ``atomic`` and only there."""
    with pytest.raises(ConfigError, match="atomic"):
        enqueue(django_connection, broker)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        enqueue(django_connection, broker)
        raise ZeroDivisionError
    assert (0, 0) == counts(broker)
    with transaction.atomic():
        enqueue(django.db.connection, broker)
        assert (0, 0) == counts(broker)
    assert (3, 1) == counts(broker)


def test_another_database_is_refused(
    postgres_server: PostgresServer, broker: PostgresBroker
) -> None:
    """A connection of another database is refused, whether Goose has tables there or not."""
    for name in ("bare", "other"):
        postgres_server.execute(f"CREATE DATABASE {name}")
    other = postgres_server.url_of("postgres", "other")
    twin = PostgresBroker(other, namespace=broker.options.namespace)
    twin.migrate()
    twin.close()
    with psycopg.connect(other) as connection, pytest.raises(ConfigError, match="another"):
        enqueue(connection, broker)
    bare = postgres_server.url_of("postgres", "bare")
    with psycopg.connect(bare) as connection, pytest.raises(goose.EnqueueError, match="no tables"):
        enqueue(connection, broker)
    with pytest.raises(ConfigError, match="a object; give one"):
        enqueue(object(), broker)


def test_what_cannot_be_stored_is_said(
    postgres_server: PostgresServer, broker: PostgresBroker
) -> None:
    """A text with NUL, which PostgreSQL cannot hold, is refused before and inside of a transaction."""
    bad = [Envelope("nul\0", "mail", b""), Envelope("surrogate \ud800", "mail", b"")]
    for envelope in bad:
        with postgres_server.connect(autocommit=False) as connection:
            with pytest.raises(BrokerError, match="cannot store"):
                broker.enqueue_within(connection, [envelope])
            with pytest.raises(BrokerError, match="cannot store"):
                broker.enqueue([envelope])


@pytest.mark.parametrize("kind", ["psycopg", "alchemy"])
def test_a_commit_may_wake_workers(
    postgres_server: PostgresServer, broker: PostgresBroker, kind: str
) -> None:
    """With ``notify=in_transaction`` the commit itself notifies, with the queue's name; else it does not."""
    waking = PostgresBroker(
        postgres_server.url, namespace=broker.options.namespace, notify="in_transaction"
    )
    engine = sqlalchemy.create_engine(alchemy_url(postgres_server))
    with postgres_server.connect() as ear:
        ear.execute(f'LISTEN "{broker.options.schema}"')
        for each in (broker, waking):
            with (
                postgres_server.connect(autocommit=False)
                if kind == "psycopg"
                else engine.begin() as connection
            ):
                goose.using(broker=each, connection=connection, queue="mail").enqueue(greet, "Ada")
        heard = [notice.payload for notice in ear.notifies(timeout=5, stop_after=1)]
        heard += [notice.payload for notice in ear.notifies(timeout=0.05)]
    assert ["mail"] == heard
    waking.close()
    engine.dispose()
