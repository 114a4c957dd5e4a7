"""arq: polls every 10 ms instead of 500, nothing kept, nothing logged."""

import os
from typing import Any

import jobs
from arq import create_pool
from arq.connections import RedisSettings

REDIS = RedisSettings.from_dsn(os.environ["BENCH_URL"])


async def noop(ctx: Any, place: int) -> None:
    jobs.noop(place)


async def stamp(ctx: Any, place: int) -> None:
    jobs.stamp(place)


async def nap(ctx: Any, place: int) -> None:
    await jobs.nap(place)


class WorkerSettings:
    functions = (noop, stamp, nap)
    redis_settings = REDIS
    max_jobs = 200
    poll_delay = 0.01
    keep_result = 0
    log_results = False


class Producer:
    async def connect(self) -> None:
        self.pool = await create_pool(REDIS)

    async def send(self, kind: str, place: int) -> None:
        await self.pool.enqueue_job(kind, place)


if __name__ == "__main__":
    import produce

    producer = Producer()
    produce.main(producer.send, connect=producer.connect)
