"""Functions that write to the table of effects by the connection of their job."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import goose

between: list[Callable[[], object]] = []
"""Called by `write` once it has written."""
seen: list[Any] = []
client: list[goose.Client] = []
"""Of the broker that the jobs are on."""


def insert(name: str) -> None:
    """Write an effect."""
    goose.current().connection.execute(f"INSERT INTO effects VALUES ('{name}')")


@goose.job(transactional=True, retry=goose.Retry(max_retries=3, backoff=1000.0))
def write(name: str, ending: str = "") -> str:
    """Write, and end as told."""
    insert(name)
    for call in between:
        call()
    match ending:
        case "fail":
            raise ValueError("no")
        case "bury":
            raise goose.Bury("no")
        case "postpone":
            raise goose.Postpone(60)
        case "skip":
            raise goose.Skip("no")
        case "commit":
            goose.current().connection.commit()
        case "COMMIT":
            goose.current().connection.execute("COMMIT")
        case "swallow":
            with contextlib.suppress(Exception):
                goose.current().connection.execute("SELECT nonsense FROM nowhere")
        case "enqueue":
            client[0].using(connection=goose.current().connection).enqueue(plain, name)
        case _:
            pass
    return name


@goose.job(transactional=True)
def nested() -> None:
    """Write inside of blocks that fail, and of one that does not."""
    connection: Any = goose.current().connection
    block = getattr(connection, "transaction", lambda: connection)
    for name in ("kept", "undone"):
        with contextlib.suppress(ZeroDivisionError), block():
            insert(name)
            assert name == "kept" or 1 / 0


@goose.job(transactional=True)
def look(query: str) -> None:
    """Keep what a query finds."""
    seen.append(goose.current().connection.execute(query).fetchall())


def plain(name: str) -> None:
    """Ask for a connection without having one."""
    seen.append(goose.current().connection)
