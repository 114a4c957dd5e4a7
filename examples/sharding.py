"""Spread jobs over several brokers, chosen for each call while the program runs.

    SHARDS="redis://one.example/0 redis://two.example/0" python -c \
        "import sharding; sharding.client_for('Ada').enqueue(sharding.greet, 'Ada')"

Each server needs workers of its own:

    goose worker sharding --broker redis://one.example/0
    goose worker sharding --broker redis://two.example/0

All jobs of one customer go to one server, and wait there in one line. If that server is down,
enqueues for its customers raise `goose.EnqueueError`, and all others go on. `goose jobs`,
`goose dead` and `goose queues` look at one server at a time, by the same ``--broker``.
"""

import hashlib
import os

import goose

shards = os.environ.get("SHARDS", "").split()
"""URLs of brokers. May be changed at any time; jobs that are stored stay where they are, so
keep the workers of a server that leaves until it is empty."""


def shard_of(customer: str) -> str:
    """Return the broker of *customer*: when one is added or leaves, few customers move."""
    if not shards:
        raise LookupError('there are no shards; set SHARDS="redis://one redis://two"')
    return max(shards, key=lambda url: hashlib.sha256(f"{url} {customer}".encode()).digest())


def client_for(customer: str) -> goose.Client:
    """Return a client for one call; a broker is connected once, however often it is named."""
    return goose.using(broker=shard_of(customer))


def greet(customer: str) -> None:
    print(f"Hello {customer}", flush=True)
