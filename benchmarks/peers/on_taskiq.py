"""Taskiq on a Redis list, a Redis stream or RabbitMQ (``$BENCH_TASKIQ``), no results."""

import os

import jobs
from taskiq_aio_pika import AioPikaBroker, Queue, QueueType
from taskiq_redis import ListQueueBroker, RedisStreamBroker

URL = os.environ["BENCH_URL"]
KIND = QueueType.QUORUM if os.environ.get("BENCH_QUORUM") else QueueType.CLASSIC
KINDS = {
    "list": lambda: ListQueueBroker(URL),
    "stream": lambda: RedisStreamBroker(URL),
    "rabbitmq": lambda: AioPikaBroker(URL, qos=200, task_queues=[Queue(type=KIND)]),
}
broker = KINDS[os.environ["BENCH_TASKIQ"]]()


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
