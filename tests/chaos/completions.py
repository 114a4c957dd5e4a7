"""Transactional jobs while their workers are killed, stopped and overtaken, and their server crashes.

Each job writes two rows by its own connection. In the end there must be exactly these rows, of
each job once: whoever died, and whoever went on as a zombie after another had taken its jobs.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import goose
from goose.brokers.base import State
from tests.chaos import async_effects, effects
from tests.chaos.fleet import Fleet
from tests.servers.postgres import PostgresServer

TTL = 2.0
"""Seconds of silence after which a worker's jobs go to others."""
PATIENCE = 420.0
"""Seconds in which all must be done."""
# Faults come so thick that they kill a job three times over, which would be held for the cause.
_ENVIRON = {"GOOSE_MAX_CRASHES": "1000"}
_OPTIONS = ("--ttl", f"{TTL:g}", "--concurrency", "4", "--async-concurrency", "4", "--grace", "1")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What there was in the end."""

    jobs: int
    faults: Counter[str]
    zombies: int
    """Runs that ended after their job belonged to another."""
    missing: Sequence[str]
    duplicated: Sequence[str]
    left: int
    """Jobs that are still stored."""

    @property
    def ok(self) -> bool:
        """Whether each effect is there exactly once, and no job is left."""
        return not self.missing and not self.duplicated and not self.left

    def lines(self) -> list[str]:
        """Return a report, a fact a line."""
        return [
            f"transactional jobs  {self.jobs:,}",
            f"faults              {sum(self.faults.values())}: {dict(sorted(self.faults.items()))}",
            f"zombies             {self.zombies} runs that were no longer theirs",
            f"missing effects     {len(self.missing)} {list(self.missing[:5])}",
            f"duplicated effects  {len(self.duplicated)} {list(self.duplicated[:5])}",
            f"jobs left           {self.left}",
        ]


class OnPostgres:
    """A server that is crashed."""

    functions = (effects.pay, async_effects.apay)
    modules = ("tests.chaos.effects", "tests.chaos.async_effects")

    def __init__(self, server: PostgresServer) -> None:
        self.url = server.url
        self._server = server

    def rows(self, query: str) -> list[tuple[str, str]]:
        return self._server.execute(query)  # type: ignore[return-value]

    def harms(self) -> dict[str, Callable[[], object]]:
        return {"crash": self._crash, "end_backends": self._server.end_backends}

    def _crash(self) -> None:
        self._server.kill()
        self._server.start()


class OnSQLite:
    """A file, to which nothing is done but through its users."""

    functions = (effects.pay,)
    modules = ("tests.chaos.effects",)

    def __init__(self, folder: Path) -> None:
        self._path = folder / "effects.db"
        self.url = f"sqlite:///{self._path}"

    def rows(self, query: str) -> list[tuple[str, str]]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            return connection.execute(query).fetchall()

    def harms(self) -> dict[str, Callable[[], object]]:
        return {}


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[OnPostgres | OnSQLite]:
    if kind == "sqlite":
        yield OnSQLite(folder)
        return
    with PostgresServer(folder / "server") as server:
        yield OnPostgres(server)


def run(
    kind: str,
    folder: Path,
    jobs: int,
    *,
    faults: int,
    longest: float = 0.3,
    seed: int = 1,
    say: Callable[[str], object] = lambda _: None,
) -> Outcome:
    """Have workers do so many jobs under at least so many *faults*; return what is left.

    Args:
        kind: ``postgres`` or ``sqlite``.
        folder: For logs, and the file.
        jobs: How many.
        faults: Kills, stops and crashes, at least; jobs are added until there were so many.
        longest: Seconds a job takes between its two rows at most.
        seed: Of all chance.
        say: Told what happens.
    """
    chance = random.Random(seed)
    done: Counter[str] = Counter()
    made = 0
    with ExitStack() as stack:
        database = stack.enter_context(_database(kind, folder))
        client = stack.enter_context(goose.Client(database.url))
        client.broker.migrate()  # type: ignore[attr-defined]
        database.rows("CREATE TABLE effects (name text, half text)")
        fleet = stack.enter_context(
            Fleet(folder, database.url, _OPTIONS, modules=database.modules, environ=_ENVIRON)
        )
        for _ in range(2):
            fleet.start()
        harms: dict[str, Callable[[], object]] = {
            "kill_child": lambda: fleet.kill_child(chance),
            "kill_supervisor": lambda: fleet.kill_supervisor(chance),
            "pause_all": lambda: _pause(fleet, chance),
            **database.harms(),
        }
        # Half of all are zombies: what this is about.
        kinds = [*harms, *["pause_all"] * (len(harms) - 2)]
        deadline = time.monotonic() + PATIENCE
        while made < jobs or sum(done.values()) < faults:
            assert time.monotonic() < deadline, f"only {done}"
            made += _enqueue(client, database.functions, chance, made, longest)
            time.sleep(chance.uniform(0.0, 0.5))
            if sum(done.values()) < faults:
                what = chance.choice(kinds)
                harms[what]()
                done[what] += 1
            say(f"{made:,} jobs, {sum(done.values())} faults")
        while (left := _left(client)) and time.monotonic() < deadline:
            time.sleep(0.1)
        fleet.stop()
        found = Counter(database.rows("SELECT name, half FROM effects"))
        log = (folder / "workers.log").read_text(errors="replace")
    wanted = {(f"j{n}", half) for n in range(made) for half in ("first", "second")}
    return Outcome(
        made,
        done,
        log.count("was no longer ours when it ended"),
        sorted(map("/".join, wanted - set(found))),
        sorted("/".join(row) for row, count in found.items() if count > 1),
        left,
    )


def _pause(fleet: Fleet, chance: random.Random) -> None:
    process = fleet.staffed(chance)
    seconds = chance.uniform(1.2, 1.8) * TTL
    fleet.pause(process, fleet.children(process), seconds, children_only=False)


def _enqueue(
    client: goose.Client,
    functions: Sequence[Callable[..., object]],
    chance: random.Random,
    first: int,
    longest: float,
) -> int:
    """Enqueue some jobs, until they are stored; return how many."""
    calls = [
        goose.call(chance.choice(functions), f"j{first + n}", chance.random() ** 3 * longest)
        for n in range(20)
    ]
    for call in calls:
        try:
            client.enqueue(call.fn, *call.args)
        except goose.EnqueueError as error:
            again = error.jobs
            while again:
                time.sleep(0.1)
                try:
                    client.submit(again)
                    break
                except goose.EnqueueError as still:
                    again = still.jobs
    return len(calls)


def _left(client: goose.Client) -> int:
    try:
        return sum(client.broker.count(state) for state in State)  # type: ignore[attr-defined]
    except goose.BrokerError:
        return 1
