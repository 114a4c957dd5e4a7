"""Raw redis-py, without any library around it: what the server and its client can do at most.

One job is a string of 175 bytes, about what Goose stores. The worker moves up to 100 to a list
of its own, runs them, and removes each, in one pipeline each way.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import jobs
import produce
import redis

client: Any = redis.Redis.from_url(os.environ["BENCH_URL"])
kinds = {"noop": jobs.noop, "stamp": jobs.stamp}


def packed(kind: str, place: int) -> str:
    return f"{kind} {place} ".ljust(175, ".")


def send(kind: str, place: int) -> None:
    client.lpush("bench", packed(kind, place))


def bulk(kind: str, places: Sequence[int]) -> None:
    client.lpush("bench", *(packed(kind, place) for place in places))


def work() -> None:
    own = f"bench:{os.getpid()}"
    while True:
        value = client.blmove("bench", own, 5, "RIGHT", "LEFT")
        if value is None:
            continue
        pipe = client.pipeline(transaction=False)
        for _ in range(99):
            pipe.lmove("bench", own, "RIGHT", "LEFT")
        values = [value, *(found for found in pipe.execute() if found is not None)]
        for found in values:
            kind, place, _ = found.split(b" ")
            kinds[kind.decode()](int(place))
            pipe.lrem(own, -1, found)
        pipe.execute()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work()
    produce.main(send, bulk=bulk)
