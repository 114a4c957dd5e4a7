"""Goose measured on RabbitMQ beside other libraries, in one run; compared with the targets.

    python benchmarks/rabbitmq_run.py [--only drain,latency] [--peers dramatiq,celery]
                                      [--jobs 20000] [--repeat 3] [--data FOLDER] [--json]

One node is started for it all, as Debian has it. Its data are in memory, if the machine has a place
for files there: what a disk takes to sync is no library's doing, and hides what is. ``--data`` names
another place. The sides take turns, each in a fresh vhost, and the median of the repeats counts. A
target is a ratio taken in one run. A lone confirmed enqueue is compared on queues of the same kind; 16
callers with all of their kind (threads or tasks), and on classic queues with those. Exits with 1 if
one is missed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import turns
from rabbitmq_sides import SIDES
from redis_targets import Verdict
from turns import Medians

from tests.servers.rabbitmq import RabbitServer  # found by redis_trial

OTHERS = [side.name for side in SIDES if not (side.is_goose or side.is_bare)]
CONFIRMED = [side.name for side in SIDES if side.name in OTHERS and side.confirmed]
CLASSIC = [side.name for side in SIDES if side.name in CONFIRMED and not side.quorum]
QUORUM = [side.name for side in SIDES if side.name in CONFIRMED and side.quorum]
TASKS = ("taskiq", "taskiq-classic")
"""Those whose callers are tasks of one event loop, not threads."""
UNCONFIRMED = [name for name in OTHERS if name not in CONFIRMED]
MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory."""
ROOM = 2 << 30
"""Bytes free there, below which the server might take nothing for want of them."""


def place() -> str:
    """Return the folder in which the server keeps its data unless told otherwise."""
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    if usable and shutil.disk_usage(MEMORY).free >= ROOM:
        return str(MEMORY)
    return tempfile.gettempdir()


def judge(medians: Medians) -> list[Verdict]:
    """Compare with every target for which there are figures."""
    judge = turns.Judge(medians)
    judge.ratio("drain, the fastest", "rate", OTHERS, 2.5)
    judge.ratio("drain, classic queues", "rate", OTHERS, 2.5, of="goose-classic")
    judge.ratio("lone enqueue, confirmed", "single", QUORUM, 1)
    judge.ratio("lone enqueue, confirmed, classic", "single", CLASSIC, 1, of="goose-classic")
    judge.ratio("bulk, single calls unconfirmed", "bulk", UNCONFIRMED, 1, their="single")
    for kind, names in (("", CONFIRMED), ("-classic", CLASSIC)):
        for callers, of in (("threads", f"goose{kind}"), ("tasks", f"goose-tasks{kind}")):
            theirs = [name for name in names if (name in TASKS) == (callers == "tasks")]
            judge.ratio(f"16 {callers}, confirmed{kind}", "together", theirs, 3, of=of)
    judge.ratio("idle p50, quorum queues", "p50", QUORUM, 1, least=False)
    for what, names in (("confirmed", CLASSIC), ("unconfirmed", UNCONFIRMED)):
        name = f"idle p50, classic, {what}"
        judge.ratio(name, "p50", names, 1, least=False, of="goose-classic")
    return judge.verdicts


def main() -> int:
    """Measure what was asked for; return the exit code."""
    parser = turns.parser("Goose beside other libraries on RabbitMQ.", list(turns.MEASURES))
    where = place()
    parser.add_argument(
        "--data", default=where, help=f"where the server keeps its data; {where} by default"
    )
    options = parser.parse_args()
    data = Path(options.data).absolute()
    if not data.is_dir():
        parser.error(f"--data {options.data}: there is no such folder")
    sides = turns.chosen(SIDES, options.peers, lambda side: side.is_goose or side.is_bare)
    with (
        tempfile.TemporaryDirectory(prefix="goose-bench-", dir=data) as folder,
        RabbitServer(Path(folder)) as server,
    ):
        before = os.getloadavg()[0]
        medians = turns.take_turns(sides, server, options)
        version = server.control("version").strip()
    verdicts = judge(medians)
    if options.json:
        print(turns.as_json(medians, {}, verdicts))
    else:
        about = f"RabbitMQ {version}, its data in {data}, {turns.load(before)}"
        turns.report(about, sides, medians, verdicts)
    return 0 if all(verdict.met for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
