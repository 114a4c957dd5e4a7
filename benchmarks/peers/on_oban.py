"""Oban: its pool of psycopg connections, jobs made by its decorator, a queue with a limit of 50.

``python on_oban.py setup`` makes its tables, ``work`` runs a worker. Needs Python 3.12 or later.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence

import jobs
import produce
from oban import Oban, job
from oban.schema import install


@job()
async def noop(place: int) -> None:
    jobs.noop(place)


@job()
async def stamp(place: int) -> None:
    jobs.stamp(place)


functions = {"noop": noop, "stamp": stamp}
found: dict[str, Oban] = {}


@contextlib.asynccontextmanager
async def connected(**queues: int) -> AsyncIterator[None]:
    pool = await Oban.create_pool(os.environ["BENCH_DATABASE"], min_size=2, max_size=16)
    try:
        async with Oban(pool=pool, queues=queues or None) as found["oban"]:
            yield
    finally:
        await pool.close()


async def send(kind: str, place: int) -> None:
    await found["oban"].enqueue(functions[kind].new(place))


async def bulk(kind: str, places: Sequence[int]) -> None:
    await found["oban"].enqueue_many([functions[kind].new(place) for place in places])


async def setup() -> None:
    pool = await Oban.create_pool(os.environ["BENCH_DATABASE"])
    await install(pool)
    await pool.close()


async def work() -> None:
    async with connected(default=int(os.environ["BENCH_CONCURRENCY"])):
        await asyncio.Event().wait()


if __name__ == "__main__":
    if sys.argv[1] in ("setup", "work"):
        asyncio.run(setup() if sys.argv[1] == "setup" else work())
    else:
        produce.main(send, bulk=bulk, around=connected())
