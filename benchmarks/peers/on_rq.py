"""RQ: nothing kept of results; its worker does not fork (SimpleWorker)."""

import os
from collections.abc import Sequence

import jobs
import produce
from redis import Redis
from rq import Queue

queue = Queue(connection=Redis.from_url(os.environ["BENCH_URL"]))
functions = {"noop": jobs.noop, "stamp": jobs.stamp}


def send(kind: str, place: int) -> None:
    queue.enqueue(functions[kind], place, result_ttl=0)


def bulk(kind: str, places: Sequence[int]) -> None:
    function = functions[kind]
    queue.enqueue_many([Queue.prepare_data(function, (place,), result_ttl=0) for place in places])


if __name__ == "__main__":
    produce.main(send, bulk=bulk)
