"""Chancy: its asyncio executor, eager polling. ``setup`` makes its tables, ``work`` runs a worker."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Sequence

import jobs
import produce
from chancy import Chancy, Job, Queue, Worker

chancy = Chancy(os.environ["BENCH_DATABASE"])


async def noop(place: int) -> None:
    jobs.noop(place)


async def stamp(place: int) -> None:
    jobs.stamp(place)


functions = {"noop": noop, "stamp": stamp}


def made(kind: str, place: int) -> Job:
    return Job(func=f"on_chancy.{kind}", kwargs={"place": place})


async def send(kind: str, place: int) -> None:
    await chancy.push(made(kind, place))


async def bulk(kind: str, places: Sequence[int]) -> None:
    async for _ in chancy.push_many([made(kind, place) for place in places]):
        pass


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[None]:
    async with chancy:
        yield


async def setup() -> None:
    async with chancy:
        await chancy.migrate()
        await chancy.declare(
            Queue(
                "default",
                concurrency=50,
                executor=Chancy.Executor.Async,
                polling_interval=1,
                eager_polling=True,
            )
        )


async def work() -> None:
    async with chancy, Worker(chancy) as worker:
        await worker.wait_for_shutdown()


if __name__ == "__main__":
    if sys.argv[1] in ("setup", "work"):
        asyncio.run(setup() if sys.argv[1] == "setup" else work())
    else:
        produce.main(send, bulk=bulk, around=connected())
