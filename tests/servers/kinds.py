"""A broker of each kind that worker processes can share, for tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.postgres import QUICK, PostgresServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer

KINDS = ("sqlite", "redis", "rabbitmq", "postgres")


@contextmanager
def address(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty broker of that *kind*, while inside; its server is the caller's own."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/jobs.db"
    elif kind == "redis":
        with RedisServer(folder / "redis") as redis:
            yield redis.url
    elif kind == "rabbitmq":
        with RabbitServer(folder / "rabbitmq") as rabbit:
            yield rabbit.url
    else:
        with PostgresServer(folder / "postgres", config=QUICK) as postgres:
            yield postgres.url
