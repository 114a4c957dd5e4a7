"""PgQueuer: a driver on a pool of asyncpg, uvloop, and its Python API for the worker.

``python on_pgqueuer.py setup`` makes its tables, ``work`` runs a worker.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import jobs
import produce
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

uvloop.install()
found: dict[str, Any] = {}


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["BENCH_DATABASE"], min_size=2, max_size=16) as pool:
        found["driver"] = AsyncpgPoolDriver(pool)
        found["queries"] = Queries(found["driver"])
        yield


async def send(kind: str, place: int) -> None:
    await found["queries"].enqueue(kind, b"%d" % place)


async def bulk(kind: str, places: Sequence[int]) -> None:
    count = len(places)
    await found["queries"].enqueue([kind] * count, [b"%d" % place for place in places], [0] * count)


async def setup() -> None:
    async with connected():
        await found["queries"].install()


async def work() -> None:
    async with connected():
        worker = PgQueuer(found["driver"])

        @worker.entrypoint("noop")
        async def noop(job: Job) -> None:
            jobs.noop(int(job.payload or 0))

        @worker.entrypoint("stamp")
        async def stamp(job: Job) -> None:
            jobs.stamp(int(job.payload or 0))

        await worker.run(batch_size=int(os.environ["BENCH_CONCURRENCY"]))


if __name__ == "__main__":
    if sys.argv[1] in ("setup", "work"):
        asyncio.run(setup() if sys.argv[1] == "setup" else work())
    else:
        produce.main(send, bulk=bulk, around=connected())
