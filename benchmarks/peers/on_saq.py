"""SAQ: nothing kept of jobs (ttl=-1)."""

import os
from typing import Any

import jobs
from saq import Queue

queue = Queue.from_url(os.environ["BENCH_URL"])


async def noop(ctx: Any, *, place: int) -> None:
    jobs.noop(place)


async def stamp(ctx: Any, *, place: int) -> None:
    jobs.stamp(place)


async def nap(ctx: Any, *, place: int) -> None:
    await jobs.nap(place)


settings = {
    "queue": queue,
    "functions": [noop, stamp, nap],
    "concurrency": int(os.environ.get("BENCH_CONCURRENCY", "50")),
}


async def send(kind: str, place: int) -> None:
    await queue.enqueue(kind, place=place, ttl=-1)


if __name__ == "__main__":
    import produce

    produce.main(send, connect=queue.connect)
