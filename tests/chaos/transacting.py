"""A program that does business: each transaction writes a row and enqueues its job, or rolls both back.

Usage: python -m tests.chaos.transacting URL connection|outbox PREFIX SEED
Goes on, whatever fails, until it is ended.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import sys
import time

import psycopg

import goose
from tests.chaos import jobs

BUSINESS = "business"
"""What the database's server calls the connections on which it is done."""
Connection = psycopg.Connection[tuple[object, ...]] | sqlite3.Connection
_FAILED = (psycopg.Error, sqlite3.Error, goose.EnqueueError, goose.BrokerError)


def main(url: str, by: str, prefix: str, seed: str) -> None:
    """Do business for ever."""
    chance = random.Random(seed)
    client = goose.Client(url)
    number = 0
    while True:
        # What failed is not repeated: whether it is stored or not, both must be so.
        with contextlib.suppress(*_FAILED), contextlib.closing(_connect(url)) as connection:
            while True:
                number += 1
                _transact(connection, client, by, f"{prefix}-{number}", chance)
        time.sleep(0.05)


def _connect(url: str) -> Connection:
    if not url.startswith("sqlite:"):
        return psycopg.connect(url, connect_timeout=3, application_name=BUSINESS)
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=15)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def _transact(
    connection: Connection,
    client: goose.Client,
    by: str,
    name: str,
    chance: random.Random,
) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("BEGIN IMMEDIATE")
    first = [
        lambda: connection.execute(f"INSERT INTO business VALUES ('{name}')"),
        lambda: client.using(**{by: connection}).enqueue(jobs.work, name, 0.0),
    ]
    chance.shuffle(first)
    for step in first:
        step()
    if chance.random() < 0.3:
        connection.rollback()
    else:
        connection.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
