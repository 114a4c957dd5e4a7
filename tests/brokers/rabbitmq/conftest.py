"""A RabbitMQ node for the tests of its broker, started once for all of them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.rabbitmq import RabbitMQBroker
from goose.testing.proxy import Proxy
from tests.servers.rabbitmq import RabbitServer

Connect = Callable[..., RabbitMQBroker]


@pytest.fixture(scope="session")
def rabbit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A node that is shared: tests use namespaces of their own."""
    with RabbitServer(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="module")
def own_rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A node of one module's own, to be killed and changed."""
    with RabbitServer(tmp_path_factory.mktemp("own-rabbitmq")) as server:
        yield server


@pytest.fixture
def rabbit(own_rabbit: RabbitServer) -> RabbitServer:
    """That node, running."""
    if own_rabbit.process is None:
        own_rabbit.start()
    return own_rabbit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the test's own."""
    return tmp_path


@pytest.fixture
def connect(rabbit: RabbitServer) -> Iterator[Connect]:
    """Returns brokers of one namespace on the node, closed after the test."""
    made: list[RabbitMQBroker] = []
    namespace = uuid.uuid4().hex

    def connect(url: str = "", **options: Any) -> RabbitMQBroker:
        options = {"namespace": namespace, "quarantine": 0.2, **options}
        made.append(RabbitMQBroker(url or rabbit.url, **options))
        return made[-1]

    yield connect
    for broker in made:
        broker.close()


@pytest.fixture
def proxy(rabbit: RabbitServer) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", rabbit.port)) as proxy:
        yield proxy
