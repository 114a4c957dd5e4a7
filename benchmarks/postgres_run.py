"""Goose measured on PostgreSQL beside other libraries, in one run; compared with the targets.

    python benchmarks/postgres_run.py [--only drain,latency] [--peers pgqueuer,procrastinate]
                                      [--jobs 20000] [--repeat 3] [--json]

One server is started for it all, with its default durability (every commit waits for the disk).
The sides take turns, each on a fresh database, and the median of the repeats counts. A target is
a ratio taken in one run. Exits with 1 if one is missed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import postgres_growth
import turns
from postgres_sides import SIDES
from redis_targets import Verdict
from turns import Figures, Medians

from tests.servers.postgres import PostgresServer  # found by redis_trial

CONFIG = {"shared_buffers": "512MB", "max_wal_size": "4GB"}


def judge(medians: Medians, growth: Figures) -> list[Verdict]:
    """Compare with every target for which there are figures."""
    judge = turns.Judge(medians)
    python = [name for name in medians if name not in ("goose", "graphile-worker")]
    judge.ratio("drain, PgQueuer", "rate", ["pgqueuer"], 1.2)
    judge.ratio("drain, Procrastinate", "rate", ["procrastinate"], 4)
    judge.ratio("drain, Oban", "rate", ["oban"], 4)
    judge.ratio("drain, Chancy", "rate", ["chancy"], 4)
    everybody = [*python, *(["graphile-worker"] if "graphile-worker" in medians else [])]
    judge.ratio("lone enqueue, the best", "single", everybody, 1)
    judge.ratio("16 callers, the best", "together", everybody, 2)
    judge.ratio("bulk enqueue, the best", "bulk", everybody, 0.7)
    judge.ratio("idle latency p50, the best", "p50", everybody, 1, least=False)
    for name, unit, bound, least in (
        ("table of its live size", "×", 3.0, False),
        ("rate with a held snapshot", "× without", 0.6, True),
    ):
        if name in growth:
            judge.verdicts.append(Verdict(name, growth[name], unit, "", None, bound, least))
    return judge.verdicts


def main() -> int:
    """Measure what was asked for; return the exit code."""
    parser = turns.parser(
        "Goose beside other libraries on PostgreSQL.",
        [*turns.MEASURES, *postgres_growth.MEASURES],
    )
    parser.add_argument(
        "--through", type=int, default=2_000_000, help="jobs for the table's growth"
    )
    parser.add_argument("--held", type=float, default=600.0, help="seconds a snapshot is held")
    options = parser.parse_args()
    sides = turns.chosen(SIDES, options.peers)
    with (
        tempfile.TemporaryDirectory(prefix="goose-bench-") as folder,
        PostgresServer(Path(folder), config=CONFIG) as server,
    ):
        before = os.getloadavg()[0]
        medians = turns.take_turns(sides, server, options)
        growth: Figures = {}
        for name, measure in postgres_growth.MEASURES.items():
            if name in options.only.split(","):
                print(name, file=sys.stderr)
                growth |= measure(server, options)
        [(version,)] = server.execute("SHOW server_version")
    verdicts = judge(medians, growth)
    if options.json:
        print(turns.as_json(medians, growth, verdicts))
    else:
        turns.report(f"PostgreSQL {version}, {turns.load(before)}", sides, medians, verdicts)
    return 0 if all(verdict.met for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
