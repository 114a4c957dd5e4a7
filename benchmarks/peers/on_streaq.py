"""streaQ: uvloop, nothing kept of results, nothing logged."""

import os
from collections.abc import Sequence

import jobs
from streaq import Worker

worker = Worker(
    redis_url=os.environ["BENCH_URL"],
    concurrency=int(os.environ.get("BENCH_CONCURRENCY", "100")),
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(ttl=0, silent=True)
async def noop(place: int) -> None:
    jobs.noop(place)


@worker.task(ttl=0, silent=True)
async def stamp(place: int) -> None:
    jobs.stamp(place)


@worker.task(ttl=0, silent=True)
async def nap(place: int) -> None:
    await jobs.nap(place)


tasks = {"noop": noop, "stamp": stamp, "nap": nap}


async def send(kind: str, place: int) -> None:
    await tasks[kind].enqueue(place)


async def bulk(kind: str, places: Sequence[int]) -> None:
    await worker.enqueue_many([tasks[kind].enqueue(place) for place in places])


if __name__ == "__main__":
    import produce

    produce.main(send, bulk=bulk, around=worker)
