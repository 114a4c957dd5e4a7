"""Servers for the tests of features, and the places they are tested at."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.features.places import ALL, PLACES, Place
from tests.servers.postgres import QUICK as FAST
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import QUICK, RedisServer

HOUR = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give crashes everywhere their time: on some servers there are hundreds of them in one test."""
    for item in items if ALL else ():
        item.add_marker(pytest.mark.timeout(HOUR), append=False)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A redis-server for the tests of one file."""
    with RedisServer(tmp_path_factory.mktemp("redis"), config=QUICK) as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server for the tests of one file."""
    with PostgresServer(tmp_path_factory.mktemp("postgres"), config=FAST) as server:
        yield server.url


@pytest.fixture(scope="session")
def rabbit_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A RabbitMQ node for the tests of one file."""
    with RabbitServer(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server.url


@pytest.fixture(params=PLACES)
def new_place(request: Any, tmp_path: Path) -> Iterator[Callable[[], Place]]:
    """What makes fresh places, all of one kind."""
    kind, _, keeper = request.param.partition("+")
    made: list[Place] = []

    def url(kind: str) -> str:
        number = next(numbers)
        if kind == "memory":
            return f"memory://feature-{uuid.uuid4()}"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{number}.db?synchronous=normal"
        name = {"redis": "redis_url", "rabbitmq": "rabbit_url", "postgres": "postgres_url"}[kind]
        return f"{request.getfixturevalue(name)}?namespace={uuid.uuid4().hex}"

    def make() -> Place:
        made.append(Place(request.param, url(kind), url(keeper) if keeper else None))
        return made[-1]

    numbers = itertools.count()
    yield make
    for place in made:
        place.close()


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    """A broker with a store."""
    return new_place()
