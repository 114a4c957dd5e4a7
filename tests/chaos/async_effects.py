"""As `effects`, for asyncio, which SQLite does not have."""

from __future__ import annotations

import asyncio

import goose
from tests.chaos.effects import _PATIENT


@goose.job(transactional=True, retry=_PATIENT)
async def apay(name: str, seconds: float) -> None:
    """Write one row, take *seconds*, write the other."""
    connection = goose.current().connection
    await connection.execute(f"INSERT INTO effects VALUES ('{name}', 'first')")
    await asyncio.sleep(seconds)
    await connection.execute(f"INSERT INTO effects VALUES ('{name}', 'second')")
