"""Business transactions with jobs in them, while clients, servers and relays are killed.

In the end each row of business has its job and each job its row: a job exists if and only if
its transaction committed, whatever was killed in between, and whatever its client was told.
The business is in PostgreSQL; its jobs are there too, or go through an outbox to another broker.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from goose.brokers import connect
from goose.brokers.base import Session, Sessions, Share
from goose.brokers.postgres import PostgresBroker
from goose.errors import BrokerError
from goose.features.outbox import Database, Table
from goose.jobs import decode
from tests.chaos.fleet import ROOT
from tests.chaos.transacting import BUSINESS
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import DURABLE, RedisServer

FEWEST = 2
"""Crashes of the server, and kills of clients and relays, that there are in any case."""
RELAYS = 2
"""Relays at a time."""
TTL = 3
"""Seconds after which a relay takes over from one that was killed."""
DRAINED = 180.0
"""Seconds in which the last jobs must have left the outbox."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What there was in the end."""

    rows: int
    without_job: list[str]
    without_row: list[str]
    twice: int
    """Copies of jobs beyond the first."""
    killed: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every row has its job and every job its row."""
        return not self.without_job and not self.without_row

    def lines(self) -> list[str]:
        """Return a report, a fact a line."""
        return [
            f"committed           {self.rows:,} transactions",
            *(f"{what:<19} {count}" for what, count in self.killed.items()),
            f"row without job     {len(self.without_job)} {self.without_job[:5]}",
            f"job without row     {len(self.without_row)} {self.without_row[:5]}",
            f"stored twice        {self.twice}",
        ]


def run(
    folder: Path,
    transactions: int,
    *,
    to: str = "postgres",
    clients: int = 4,
    crash_every: float = 5.0,
    fewest: int = FEWEST,
    seed: int = 1,
    say: Callable[[str], object] = lambda _: None,
) -> Outcome:
    """Have *clients* processes make so many transactions that commit, and return what is left.

    Args:
        folder: For logs.
        transactions: How many must have committed, at least.
        to: The broker: ``postgres``, or through an outbox ``redis`` or ``rabbitmq``.
        clients: Processes at a time; one of them is killed every three seconds or so.
        crash_every: Seconds between two crashes of a server, on average.
        fewest: Crashes and kills there are at least.
        seed: Of all chance.
        say: Told what happens.
    """
    chance = random.Random(seed)
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(PostgresServer(folder / "server"))
        target = _target(to, folder)
        if target is not None:
            stack.enter_context(target)
        broker = PostgresBroker(database.url)
        broker.migrate()
        broker.close()
        table = Table(Database(database.url))
        table.migrate()
        database.execute("CREATE TABLE business (name text)")
        url = database.url if target is None else target.url
        crews = [_Crew("clients", clients, _client(database.url, to, seed))]
        if target is not None:
            crews.append(_Crew("relays", RELAYS, _relay(database.url, url)))
        for crew in crews:
            stack.callback(crew.end)
        killed: Counter[str] = Counter()
        done = 0
        servers = {"database": database} if target is None else {"database": database, to: target}
        wanted = [f"{name} crashed" for name in servers] + [f"{c.what} killed" for c in crews]
        next_crash = time.monotonic() + crash_every
        deadline = time.monotonic() + 600 + transactions / 20
        while done < transactions or any(killed[what] < fewest for what in wanted):
            assert time.monotonic() < deadline, f"only {done} transactions committed"
            time.sleep(chance.uniform(0.1, 0.3))
            for crew in crews:
                crew.check()
            if time.monotonic() > next_crash:
                name = min(servers, key=lambda each: killed[f"{each} crashed"])
                servers[name].kill()
                servers[name].start()
                killed[f"{name} crashed"] += 1
                next_crash = time.monotonic() + chance.uniform(0.5, 1.5) * crash_every
            elif (what := chance.random()) < 0.15:
                killed["backends ended"] += database.end_backends()
            elif what < 0.15 + 0.1 * len(crews):
                crew = chance.choice(crews)
                crew.kill_one(chance)
                killed[f"{crew.what} killed"] += 1
            with contextlib.suppress(psycopg.OperationalError):
                done = database.execute("SELECT count(*) FROM business")[0][0]
                say(f"{to}: {done:,} transactions committed")
        crews[0].end()
        _wait_for_commits(database)
        rows = {name for (name,) in database.execute("SELECT name FROM business")}
        if target is None:
            body = "convert_from(body, 'UTF8')::jsonb -> 'args' ->> 0"
            jobs = Counter(name for (name,) in database.execute(f"SELECT {body} FROM goose.jobs"))
        else:
            _wait_until_empty(table)
            crews[1].end()
            jobs = Counter(_drained(url))
        table.database.close()
    twice = sum(jobs.values()) - len(jobs)
    lost, strange = sorted(rows - jobs.keys()), sorted(jobs.keys() - rows)
    return Outcome(len(rows), lost, strange, twice, dict(killed))


def _target(to: str, folder: Path) -> RedisServer | RabbitServer | None:
    if to == "redis":
        return RedisServer(folder / "redis", config=DURABLE)
    return RabbitServer(folder / "rabbitmq") if to == "rabbitmq" else None


class _Crew:
    """Processes of one kind, of which some are killed and replaced."""

    def __init__(
        self, what: str, count: int, start: Callable[[int], subprocess.Popen[bytes]]
    ) -> None:
        self.what = what
        self._start = start
        self._started = 0
        self._members = [self._next() for _ in range(count)]

    def _next(self) -> subprocess.Popen[bytes]:
        self._started += 1
        return self._start(self._started)

    def check(self) -> None:
        """See that nobody ended by himself."""
        assert all(member.poll() is None for member in self._members), f"one of {self.what} ended"

    def kill_one(self, chance: random.Random) -> None:
        """Kill one and start another."""
        victim = chance.randrange(len(self._members))
        self._members[victim].kill()
        self._members[victim].wait(10)
        self._members[victim] = self._next()

    def end(self) -> None:
        """Kill all."""
        for member in self._members:
            member.kill()
            member.wait(10)


def _client(url: str, to: str, seed: int) -> Callable[[int], subprocess.Popen[bytes]]:
    by = "connection" if to == "postgres" else "outbox"

    def start(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.chaos.transacting", url, by]
        return subprocess.Popen([*command, f"c{number}", f"{seed}/{number}"], cwd=ROOT)

    return start


def _relay(database: str, broker: str) -> Callable[[int], subprocess.Popen[bytes]]:
    env = {**os.environ, "GOOSE_TTL": str(TTL), "GOOSE_LOG_LEVEL": "error"}

    def start(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "goose", "outbox", "relay"]
        places = ["--outbox", database, "--broker", broker]
        return subprocess.Popen([*command, *places], cwd=ROOT, env=env, stderr=subprocess.DEVNULL)

    return start


def _wait_for_commits(database: PostgresServer) -> None:
    """Wait for the backends of clients that were killed: one may be about to commit."""
    left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    deadline = time.monotonic() + 30
    while database.execute(left, [BUSINESS])[0][0]:
        assert time.monotonic() < deadline, "the server does not notice that its clients are gone"
        time.sleep(0.01)


def _wait_until_empty(table: Table) -> None:
    deadline = time.monotonic() + DRAINED
    while True:
        with contextlib.suppress(BrokerError):
            found = table.figures()
            if not found:
                return
            assert time.monotonic() < deadline, found
        time.sleep(0.2)


def _drained(url: str) -> Iterator[str]:
    """Yield the name in each stored job, and settle it."""
    broker = connect(url)
    session = Session("reader")
    if isinstance(broker, Sessions):
        broker.open(session, ttl=600)
    empty = 0
    while empty < 3:
        found = broker.dequeue(session, [Share("default")], limit=500, wait=1.0)
        yield from (str(decode(delivery.envelope).args[0]) for delivery in found)
        broker.ack(found)
        empty = 0 if found else empty + 1
    broker.close()
