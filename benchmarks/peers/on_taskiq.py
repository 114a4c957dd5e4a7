"""Taskiq on a Redis list or stream (``$BENCH_TASKIQ``), no results."""

import os

import jobs
from taskiq_redis import ListQueueBroker, RedisStreamBroker

URL = os.environ["BENCH_REDIS"]
broker = RedisStreamBroker(URL) if os.environ["BENCH_TASKIQ"] == "stream" else ListQueueBroker(URL)


@broker.task
async def noop(place: int) -> None:
    jobs.noop(place)


@broker.task
async def stamp(place: int) -> None:
    jobs.stamp(place)


@broker.task
async def nap(place: int) -> None:
    await jobs.nap(place)


async def send(kind: str, place: int) -> None:
    await tasks[kind].kiq(place)


tasks = {"noop": noop, "stamp": stamp, "nap": nap}

if __name__ == "__main__":
    import produce

    produce.main(send, connect=broker.startup)
