"""A RabbitMQ node for the tests of its broker, started once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.rabbitmq import RabbitServer


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
