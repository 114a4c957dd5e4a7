"""An outbox in every kind of database, and a broker to move its jobs to."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from goose.brokers.base import State
from goose.brokers.memory import MemoryBroker
from goose.features.outbox import Database, Relay, Table
from goose.metrics.fanout import Fanout
from tests.servers.mariadb import MariaServer
from tests.servers.postgres import QUICK, PostgresServer


@dataclass
class Place:
    """A database with an outbox."""

    url: str
    name: str

    def table(self) -> Table:
        """Return the outbox, over a connection of its own."""
        return Table(Database(self.url), self.name)

    @property
    def alchemy_url(self) -> str:
        """Its address in SQLAlchemy's words."""
        return self.url.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server that is shared: tests use tables of their own."""
    with PostgresServer(tmp_path_factory.mktemp("postgres"), config=QUICK) as server:
        yield server


@pytest.fixture(scope="session")
def maria_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaServer]:
    """The same of MariaDB."""
    with MariaServer(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


def place_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    """Return a place in a database of that kind, whose tables are there."""
    url = f"sqlite:///{folder}/app.db"
    if kind != "sqlite":
        url = request.getfixturevalue(f"{kind}_server").url
    place = Place(url, f"t{uuid.uuid4().hex}")
    table = place.table()
    table.migrate()
    table.database.close()
    return place


@pytest.fixture(params=["sqlite", "postgres", "maria"])
def place(request: pytest.FixtureRequest, own_folder: Path) -> Place:
    """An outbox in each kind of database."""
    return place_of(request.param, request, own_folder)


@pytest.fixture
def sqlite(request: pytest.FixtureRequest, own_folder: Path) -> Place:
    """An outbox in an SQLite file, for what does not depend on the database."""
    return place_of("sqlite", request, own_folder)


@pytest.fixture
def broker() -> MemoryBroker:
    """Where jobs go."""
    return MemoryBroker()


@pytest.fixture
def relaying(broker: MemoryBroker) -> Iterator[Callable[..., Relay]]:
    """Makes relays, and closes them."""
    made: list[Relay] = []

    def make(place: Place, to: object = None, **options: object) -> Relay:
        given = {"metrics": Fanout(), **options}
        made.append(Relay(to or broker, place.table(), **given))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for relay in made:
        relay.close()


def ready(broker: MemoryBroker, queue: str | None = None) -> list[str]:
    """Return the ids of the ready jobs, in their order."""
    return [stored.envelope.id for stored in broker.page(State.READY, queue, limit=10_000).items]
