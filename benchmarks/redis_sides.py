"""Who is measured on Redis, with which packages, and how its worker is started.

Settings are those each library's documentation recommends for throughput, where a smaller or
larger number was tried and was not better; nothing is kept of results, nothing is logged per
job. Most peers do not survive a killed worker with these; Goose is measured with all its
guarantees on.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import environments

HERE = Path(__file__).parent
PEERS = HERE / "peers"
Command = Callable[[Path, int], list[str]]
"""Makes the command line of a worker, of the folder of programs and the concurrency."""


@dataclass(frozen=True)
class Side:
    """One library, or raw redis-py, as it is installed and started."""

    name: str
    module: str
    worker: Command
    requirements: tuple[str, ...] = ()
    """What is installed; nothing means the environment this runs in."""
    share: float = 1.0
    """Jobs in proportion to what was asked for, so that a run takes some seconds."""
    concurrency: int = 1
    """Of no-ops, where the command takes one."""
    naps: bool = True
    """Whether one process can run 200 jobs at once."""
    has_bulk: bool = True
    """Whether there is a way for many that is not one call after the other."""
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""
    on_node: bool = False
    python: str = ""
    """Version of Python it needs, where it is later than Goose's."""

    def installed(self) -> Path:
        """Return where its programs are; installs them the first time."""
        if self.on_node:
            return environments.node(self.name, self.requirements)
        if not self.requirements:
            return Path(sys.executable).parent
        return environments.python(self.name.split("-")[0], self.requirements, self.python)

    def version(self) -> str:
        """Return the version that is installed; empty for what has none of its own."""
        if not self.requirements:
            return ""
        package = re.split(r"[\[<>=@]", self.requirements[0])[0]
        programs = self.installed()
        if self.on_node:
            about = json.loads((programs / "node_modules" / package / "package.json").read_text())
            return str(about["version"])
        found = (programs.parent / "lib").glob(f"python*/site-packages/{package}-*.dist-info")
        return next((path.stem.split("-")[1] for path in found), "")

    @property
    def is_goose(self) -> bool:
        """Whether this is Goose, measured in every run."""
        return self.name.split("-")[0] == "goose"

    def producer(self, programs: Path) -> list[str]:
        """Return the command line that enqueues, without its arguments."""
        if self.on_node:
            return ["node", str(PEERS / f"{self.module}.mjs")]
        return [str(programs / "python"), f"{self.module}.py"]


def program(name: str, *arguments: str) -> Command:
    """Make a command of *arguments*, in which {n} is the concurrency."""

    def command(programs: Path, concurrency: int) -> list[str]:
        return [
            str(programs / name),
            *(part.replace("{n}", str(concurrency)) for part in arguments),
        ]

    return command


def goose(programs: Path, concurrency: int) -> list[str]:
    return [
        *(str(programs / "goose"), "worker", "jobs", "--processes", "1", "--queues", "default"),
        *("--concurrency", str(concurrency), "--async-concurrency", str(max(concurrency, 10))),
    ]


def celery(programs: Path, concurrency: int) -> list[str]:
    pool = ["solo"] if concurrency == 1 else ["threads", "-c", str(concurrency)]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "error"]
    return [str(programs / "celery"), "-A", "on_celery", "worker", *quiet, "-P", *pool]


def _node(_programs: Path, _concurrency: int) -> list[str]:
    return ["node", str(PEERS / "on_bullmq.mjs"), "work"]


DRAMATIQ = ("dramatiq[redis,rabbitmq]>=2,<3", "hiredis>=3")
CELERY = ("celery[redis]>=5.5,<6", "hiredis>=3")
TASKIQ = (
    *("taskiq>=0.12,<1", "taskiq-redis>=1,<2", "taskiq-aio-pika>=0.4,<1"),
    *("hiredis>=3", "uvloop>=0.21"),
)
"""With what they need for any server."""
TASKIQ_WORKER = program(
    "taskiq",
    *("worker", "on_taskiq:broker", "-w", "1", "--no-parse", "--log-level", "ERROR"),
    *("--max-async-tasks", "{n}", "--max-prefetch", "{n}"),
)

SIDES: tuple[Side, ...] = (
    Side(
        "goose",
        "on_goose",
        goose,
        share=5,
        settings="as installed; --processes 1 --concurrency 1",
    ),
    Side(
        "raw",
        "on_raw",
        program("python", "on_raw.py", "work"),
        share=2,
        naps=False,
        settings="redis-py with hiredis; LMOVE and LREM by 100 in pipelines, nothing fenced",
    ),
    Side(
        "dramatiq",
        "on_dramatiq",
        program("dramatiq", "on_dramatiq", "-p", "1", "-t", "{n}"),
        DRAMATIQ,
        has_bulk=False,
        environment={"dramatiq_queue_prefetch": "200"},
        settings="-p 1 -t 1, dramatiq_queue_prefetch=200; latency -t 8",
    ),
    Side(
        "huey",
        "on_huey",
        program("huey_consumer", "on_huey.huey", "-w", "{n}", "-k", "thread", "-n", "-q"),
        ("huey>=3,<4", "redis[hiredis]>=6"),
        concurrency=2,
        has_bulk=False,
        settings="-w 2 -k thread -n, results=False, blocking pop",
    ),
    Side(
        "rq",
        "on_rq",
        program("rq", "worker", "-w", "rq.SimpleWorker", "--quiet", "--url", "{url}"),
        ("rq>=3,<4", "redis[hiredis]>=6"),
        share=0.05,
        naps=False,
        settings="SimpleWorker (no fork), result_ttl=0, --quiet",
    ),
    Side(
        "arq",
        "on_arq",
        program("arq", "on_arq.WorkerSettings"),
        ("arq>=0.28,<1", "hiredis>=3"),
        share=0.5,
        settings="max_jobs=200, poll_delay=0.01, keep_result=0, log_results=False",
    ),
    Side(
        "saq",
        "on_saq",
        program("saq", "on_saq.settings"),
        ("saq[redis,hiredis]>=0.26,<1", "typing-extensions"),
        share=0.5,
        concurrency=50,
        settings="concurrency=50, ttl=-1",
    ),
    Side(
        "streaq",
        "on_streaq",
        program("streaq", "run", "on_streaq:worker"),
        ("streaq>=7,<8", "uvloop>=0.21"),
        share=0.5,
        concurrency=100,
        settings="concurrency=100, ttl=0, silent, uvloop",
    ),
    Side(
        "taskiq-list",
        "on_taskiq",
        TASKIQ_WORKER,
        TASKIQ,
        concurrency=100,
        environment={"BENCH_TASKIQ": "list"},
        settings="--max-async-tasks 100 --max-prefetch 100 --no-parse, uvloop",
    ),
    Side(
        "taskiq-stream",
        "on_taskiq",
        TASKIQ_WORKER,
        TASKIQ,
        concurrency=100,
        environment={"BENCH_TASKIQ": "stream"},
        settings="as taskiq-list",
    ),
    Side(
        "celery",
        "on_celery",
        celery,
        CELERY,
        share=0.25,
        has_bulk=False,
        settings="-P solo (naps: threads), prefetch_multiplier=128, results and events off",
    ),
    Side(
        "bullmq",
        "on_bullmq",
        _node,
        ("bullmq@>=5 <7", "ioredis@^5"),
        concurrency=50,
        on_node=True,
        settings="concurrency=50, removeOnComplete",
    ),
)
