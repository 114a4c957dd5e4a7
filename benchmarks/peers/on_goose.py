"""Goose: everything as it is unless told otherwise."""

import os
from collections.abc import Sequence

import jobs
import produce

import goose

client = goose.Client(os.environ["GOOSE_BROKER"])
functions = {"noop": jobs.noop, "stamp": jobs.stamp, "nap": jobs.nap}


def send(kind: str, place: int) -> None:
    client.enqueue(functions[kind], place)


def bulk(kind: str, places: Sequence[int]) -> None:
    client.enqueue_many(functions[kind], [(place,) for place in places])


if __name__ == "__main__":
    produce.main(send, bulk=bulk)
