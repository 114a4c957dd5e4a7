"""Async functions that write to the table of effects by the connection of their job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import goose

between: list[Callable[[], Awaitable[object]]] = []
"""Awaited by `awrite` once it has written."""


@goose.job(transactional=True, retry=goose.Retry(max_retries=3, backoff=1000.0))
async def awrite(name: str, ending: str = "") -> str:
    """Write, and end as told."""
    await goose.current().connection.execute(f"INSERT INTO effects VALUES ('{name}')")
    for call in between:
        await call()
    if ending == "fail":
        raise ValueError("no")
    return name
