"""What only Goose is asked for: how its table grows, and what a held snapshot costs.

Both work at the broker itself, in one process: 500 jobs are stored, then lent and acked by 100,
again and again, so that the queue is short and everything else in the table is what is left of
jobs that are done.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from goose._ids import new_id
from goose.brokers.base import Session, Share
from goose.brokers.postgres import PostgresBroker
from goose.jobs import Envelope
from tests.servers.postgres import PostgresServer

BODY = b"x" * 175
DEPTH = 20_000
"""Jobs that wait all the time."""
SHARES = [Share("default")]
Figures = dict[str, float]


class _Mill:
    """A broker with a queue of `DEPTH` jobs, through which further ones go."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        server.execute("DROP DATABASE IF EXISTS bench WITH (FORCE)")
        server.execute("CREATE DATABASE bench")
        self.broker = PostgresBroker(server.url_of("postgres", "bench"), namespace=name)
        self.session = Session(name)
        self.broker.open(self.session, ttl=36_000)
        for _ in range(DEPTH // 500):
            self._store()

    def _store(self) -> None:
        self.broker.enqueue([Envelope(new_id(), "default", BODY) for _ in range(500)])

    def turn(self, jobs: int) -> None:
        """Put so many jobs through."""
        for _ in range(jobs // 500):
            self.broker.promote_due(limit=500)  # as every worker does, once a second or more
            self._store()
            for _ in range(5):
                self.broker.ack(self.broker.dequeue(self.session, SHARES, limit=100, wait=1.0))


def table(server: PostgresServer, options: argparse.Namespace) -> Figures:
    """Put millions of jobs through; the size of table and indexes, in proportion to a fresh copy's."""
    mill = _Mill(server, "growth")
    where = server.url_of("postgres", "bench")
    mill.turn(options.through)
    with PostgresBroker(where, namespace="growth")._connections.lend() as connection:  # noqa: SLF001
        size = "SELECT pg_total_relation_size('goose_growth.jobs')"
        [grown] = connection.execute(size).fetchone() or (0,)
        connection.execute("SET statement_timeout = 0")
        connection.execute("VACUUM FULL goose_growth.jobs", prepare=False)
        [live] = connection.execute(size).fetchone() or (1,)
    mill.broker.close()
    return {"table of its live size": grown / live, "table MB": grown / 1e6, "live MB": live / 1e6}


def snapshot(server: PostgresServer, options: argparse.Namespace) -> Figures:
    """Compare the rate before, and at the end of so many seconds with a snapshot held elsewhere."""
    import psycopg

    mill = _Mill(server, "held")
    mill.turn(20_000)
    before = _rate(mill, 30_000)
    with psycopg.connect(server.url_of("postgres", "bench")) as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT 1")
        began, slowest = time.monotonic(), before
        while time.monotonic() - began < options.held:
            slowest = min(slowest, _rate(mill, 30_000))
        after = _rate(mill, 30_000)
        holder.rollback()
    mill.broker.close()
    return {"rate with a held snapshot": after / before, "slowest held": slowest / before}


def _rate(mill: _Mill, jobs: int) -> float:
    start = time.perf_counter()
    mill.turn(jobs)
    return jobs / (time.perf_counter() - start)


MEASURES: dict[str, Callable[[PostgresServer, argparse.Namespace], Figures]] = {
    "table": table,
    "snapshot": snapshot,
}
