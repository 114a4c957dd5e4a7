"""Business transactions with jobs in them on one SQLite file, while their programs are killed.

As `transactions`, where there is no server to crash: a job exists if and only if its
transaction committed. Every other look at the file is by a program that is not Goose.
"""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from goose.brokers.sqlite import SQLiteBroker
from tests.chaos.fleet import ROOT
from tests.chaos.transactions import Outcome


def run(
    folder: Path,
    transactions: int,
    *,
    clients: int = 4,
    kill_every: float = 0.7,
    kills: int = 2,
    seed: int = 1,
    say: Callable[[str], object] = lambda _: None,
) -> Outcome:
    """Have *clients* processes make so many transactions that commit, and return what is left.

    Args:
        folder: For the file.
        transactions: How many must have committed, at least.
        clients: Processes at a time.
        kill_every: Seconds between two kills of one of them, on average.
        kills: How many of those there must have been, at least.
        seed: Of all chance.
        say: Told what happens.
    """
    chance, path = random.Random(seed), folder / "business.db"
    broker = SQLiteBroker(path)
    broker.migrate()
    broker.close()
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as file:
        file.execute("PRAGMA wal_autocheckpoint = 0")
        file.execute("CREATE TABLE business (name TEXT)")
        started = 0

        def start() -> subprocess.Popen[bytes]:
            nonlocal started
            started += 1
            command = [
                sys.executable,
                "-m",
                "tests.chaos.transacting",
                f"sqlite:///{path}",
                "connection",
            ]
            return subprocess.Popen([*command, f"c{started}", f"{seed}/{started}"], cwd=ROOT)

        crew = [start() for _ in range(clients)]
        killed = done = seen = 0
        deadline = time.monotonic() + 600 + transactions / 20
        try:
            while done < transactions or killed < kills:
                assert time.monotonic() < deadline, f"only {done} transactions committed"
                time.sleep(chance.uniform(0.5, 1.5) * kill_every)
                assert all(client.poll() is None for client in crew), "a client ended by itself"
                (done,) = file.execute("SELECT count(*) FROM business").fetchone()
                say(f"{done:,} transactions committed")
                # A program that has only just started is in the middle of nothing.
                if done >= seen + clients:
                    victim = chance.randrange(clients)
                    crew[victim].kill()
                    crew[victim].wait(10)
                    crew[victim] = start()
                    killed, seen = killed + 1, done
        finally:
            for client in crew:
                client.kill()
                client.wait(10)
        rows = {name for (name,) in file.execute("SELECT name FROM business")}
        bodies = file.execute("SELECT body FROM goose_jobs").fetchall()
        jobs = Counter(json.loads(body)["args"][0] for (body,) in bodies)
        (sound,) = file.execute("PRAGMA integrity_check").fetchone()
    assert sound == "ok", sound
    lost, strange = sorted(rows - jobs.keys()), sorted(jobs.keys() - rows)
    twice = sum(jobs.values()) - len(jobs)
    return Outcome(len(rows), lost, strange, twice, {"clients killed": killed})
