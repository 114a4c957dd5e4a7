"""A server for the tests of features on Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.redis import QUICK, RedisServer


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A redis-server for the tests of one file."""
    with RedisServer(tmp_path_factory.mktemp("redis"), config=QUICK) as server:
        yield server.url
