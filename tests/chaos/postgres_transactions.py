"""Business transactions with jobs in them, while clients and the server are killed.

In the end each row of business has its job and each job its row: a job exists if and only if
its transaction committed, whatever was killed in between, and whatever its client was told.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from goose.brokers.postgres import PostgresBroker
from tests.chaos.fleet import ROOT
from tests.servers.postgres import PostgresServer

FEWEST = 2
"""Crashes of the server, and kills of clients, that there are in any case."""
PATIENCE = 600.0
"""Seconds in which the transactions must have been made."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What there was in the end."""

    rows: int
    without_job: list[str]
    without_row: list[str]
    clients_killed: int
    crashes: int
    backends_ended: int

    @property
    def ok(self) -> bool:
        """Whether every row has its job and every job its row."""
        return not self.without_job and not self.without_row

    def lines(self) -> list[str]:
        """Return a report, a fact a line."""
        return [
            f"committed           {self.rows:,} transactions",
            f"clients killed      {self.clients_killed}",
            f"crashes             {self.crashes} of the server",
            f"backends ended      {self.backends_ended}",
            f"row without job     {len(self.without_job)} {self.without_job[:5]}",
            f"job without row     {len(self.without_row)} {self.without_row[:5]}",
        ]


def run(
    folder: Path,
    transactions: int,
    *,
    clients: int = 4,
    crash_every: float = 5.0,
    seed: int = 1,
    say: Callable[[str], object] = lambda _: None,
) -> Outcome:
    """Have *clients* processes make so many transactions that commit, and return what is left.

    Args:
        folder: For logs.
        transactions: How many must have committed, at least.
        clients: Processes at a time; one of them is killed every three seconds or so.
        crash_every: Seconds between two crashes of the server, on average.
        seed: Of all chance.
        say: Told what happens.
    """
    chance = random.Random(seed)
    with PostgresServer(folder / "server") as server:
        broker = PostgresBroker(server.url)
        broker.migrate()
        broker.close()
        server.execute("CREATE TABLE business (name text)")
        started = 0

        def start() -> subprocess.Popen[bytes]:
            nonlocal started
            started += 1
            command = [sys.executable, "-m", "tests.chaos.transacting", server.url]
            return subprocess.Popen([*command, f"c{started}", f"{seed}/{started}"], cwd=ROOT)

        crew = [start() for _ in range(clients)]
        killed = crashes = ended = done = 0
        next_crash = time.monotonic() + crash_every
        deadline = time.monotonic() + PATIENCE
        try:
            while done < transactions or crashes < FEWEST or killed < FEWEST or not ended:
                assert time.monotonic() < deadline, f"only {done} transactions committed"
                time.sleep(chance.uniform(0.1, 0.3))
                assert all(client.poll() is None for client in crew), "a client ended by itself"
                what = chance.random()
                if time.monotonic() > next_crash:
                    server.kill()
                    server.start()
                    crashes += 1
                    next_crash = time.monotonic() + chance.uniform(0.5, 1.5) * crash_every
                elif what < 0.3:
                    ended += server.end_backends()
                elif what < 0.37:
                    victim = chance.randrange(clients)
                    crew[victim].kill()
                    crew[victim].wait(10)
                    crew[victim] = start()
                    killed += 1
                with contextlib.suppress(psycopg.OperationalError):
                    done = server.execute("SELECT count(*) FROM business")[0][0]
                    say(f"{done:,} transactions committed")
        finally:
            for client in crew:
                client.kill()
                client.wait(10)
        rows = {name for (name,) in server.execute("SELECT name FROM business")}
        body = "convert_from(body, 'UTF8')::jsonb -> 'args' ->> 0"
        jobs = {name for (name,) in server.execute(f"SELECT {body} FROM goose.jobs")}
    return Outcome(len(rows), sorted(rows - jobs), sorted(jobs - rows), killed, crashes, ended)
