"""Goose: everything as it is unless told otherwise; by tasks instead of threads with ``$BENCH_TASKS``."""

import os
from collections.abc import Sequence

import jobs
import produce

import goose

client = goose.Client(os.environ["GOOSE_BROKER"])
tasks = client.aio
functions = {"noop": jobs.noop, "stamp": jobs.stamp, "nap": jobs.nap}


def send(kind: str, place: int) -> None:
    client.enqueue(functions[kind], place)


def bulk(kind: str, places: Sequence[int]) -> None:
    client.enqueue_many(functions[kind], [(place,) for place in places])


async def asend(kind: str, place: int) -> None:
    await tasks.enqueue(functions[kind], place)


async def abulk(kind: str, places: Sequence[int]) -> None:
    await tasks.enqueue_many(functions[kind], [(place,) for place in places])


if __name__ == "__main__":
    if os.environ.get("BENCH_TASKS"):
        produce.main(asend, bulk=abulk)
    else:
        produce.main(send, bulk=bulk)
