"""Who is measured on PostgreSQL, with which packages, and how its tables and worker are made.

Settings are those each library's documentation recommends for throughput; finished jobs are not
kept. Goose is measured with all its guarantees on.
"""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any, Self

import redis_trial
import turns
from redis_sides import PEERS, Command, goose

DATABASE = "bench"


def _itself(module: str) -> Command:
    def command(programs: Path, _concurrency: int) -> list[str]:
        return [str(programs / "python"), f"{module}.py", "work"]

    return command


def _procrastinate(programs: Path, concurrency: int) -> list[str]:
    return [
        *(str(programs / "procrastinate"), "--app=on_procrastinate.app", "worker"),
        *("-c", str(concurrency), "--delete-jobs", "successful"),
    ]


def _graphile(_programs: Path, _concurrency: int) -> list[str]:
    return ["node", str(PEERS / "on_graphile.mjs"), "work"]


@dataclasses.dataclass(frozen=True)
class Side(turns.Side):
    """One library."""

    def setup(self, programs: Path) -> list[str]:
        """Return the command line that makes its tables; empty where the first use does."""
        return [] if self.is_goose else [*self.producer(programs), "setup"]

    def trial(self, server: Any, folder: Path, places: int) -> Trial:
        return Trial(self, server, folder, places)


class Trial(redis_trial.Trial):
    """A fresh database, with the tables of *side*."""

    side: Side

    def wipe(self) -> None:
        self.server.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        self.server.execute(f"CREATE DATABASE {DATABASE}")
        self.url = self.server.url_of("postgres", DATABASE)

    def __enter__(self) -> Self:
        super().__enter__()
        if command := self.side.setup(self.programs):
            done = subprocess.run(
                command, cwd=PEERS, env=self._environment(), capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{self.side.name} made no tables:\n{done.stderr}")
        return self

    def calm(self) -> None:
        self.server.execute("CHECKPOINT")

    def _environment(self, **more: str) -> dict[str, str]:
        concurrency = str(self.side.concurrency)
        return super()._environment(
            **{"BENCH_DATABASE": self.url, "BENCH_CONCURRENCY": concurrency, **more}
        )


SIDES: tuple[Side, ...] = (
    Side(
        name="goose",
        module="on_goose",
        worker=goose,
        share=3,
        settings="as installed; --processes 1 --concurrency 1",
    ),
    Side(
        name="pgqueuer",
        module="on_pgqueuer",
        worker=_itself("on_pgqueuer"),
        requirements=("pgqueuer>=1,<2", "asyncpg>=0.30", "uvloop>=0.21"),
        share=2,
        concurrency=100,
        settings="batch_size=100, asyncpg pool, uvloop, durability=durable",
    ),
    Side(
        name="procrastinate",
        module="on_procrastinate",
        worker=_procrastinate,
        requirements=("procrastinate>=3,<4", "psycopg[binary,pool]>=3.2"),
        share=0.2,
        concurrency=20,
        settings="-c 20, --delete-jobs successful, psycopg 3 with its C part",
    ),
    Side(
        name="oban",
        module="on_oban",
        worker=_itself("on_oban"),
        requirements=("oban>=0.7,<1",),
        share=0.3,
        concurrency=50,
        python="3.12",
        settings="a queue with limit 50, a pool of up to 16, defaults otherwise",
    ),
    Side(
        name="chancy",
        module="on_chancy",
        worker=_itself("on_chancy"),
        requirements=("chancy>=0.26,<1", "psycopg[binary,pool]>=3.2"),
        share=0.5,
        settings="AsyncExecutor, concurrency 50, eager_polling, polling_interval=1",
    ),
    Side(
        name="graphile-worker",
        module="on_graphile",
        worker=_graphile,
        requirements=("graphile-worker@^0.17",),
        share=2,
        concurrency=24,
        on_node=True,
        settings="concurrentJobs=24, localQueue size 500, completeJobBatchDelay=0",
    ),
)
