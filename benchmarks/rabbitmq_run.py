"""Goose measured on RabbitMQ beside other libraries, in one run; compared with the targets.

    python benchmarks/rabbitmq_run.py [--only drain,latency] [--peers dramatiq,celery]
                                      [--jobs 20000] [--repeat 3] [--json]

One node is started for it all, as Debian has it. The sides take turns, each in a fresh vhost, and
the median of the repeats counts. A target is a ratio taken in one run; the ones with confirms
compare queues of the same kind. Exits with 1 if one is missed.
"""

from __future__ import annotations

import os
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


def judge(medians: Medians) -> list[Verdict]:
    """Compare with every target for which there are figures."""
    judge = turns.Judge(medians)
    judge.ratio("drain, the fastest", "rate", OTHERS, 2.5)
    judge.ratio("drain, classic queues", "rate", OTHERS, 2.5, of="goose-classic")
    judge.ratio("lone enqueue, confirmed", "single", QUORUM, 1)
    judge.ratio("lone enqueue, confirmed, classic", "single", CLASSIC, 1, of="goose-classic")
    judge.ratio("bulk, single calls unconfirmed", "bulk", UNCONFIRMED, 1, their="single")
    for kind, names in (("", QUORUM), ("-classic", CLASSIC)):
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
    options = parser.parse_args()
    sides = turns.chosen(SIDES, options.peers, lambda side: side.is_goose or side.is_bare)
    with (
        tempfile.TemporaryDirectory(prefix="goose-bench-") as folder,
        RabbitServer(Path(folder)) as server,
    ):
        before = os.getloadavg()[0]
        medians = turns.take_turns(sides, server, options)
        version = server.control("version").strip()
    verdicts = judge(medians)
    if options.json:
        print(turns.as_json(medians, {}, verdicts))
    else:
        turns.report(f"RabbitMQ {version}, {turns.load(before)}", sides, medians, verdicts)
    return 0 if all(verdict.met for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
