"""Goose measured on PostgreSQL beside other libraries, in one run; compared with the targets.

    python benchmarks/postgres_run.py [--only drain,latency] [--peers pgqueuer,procrastinate]
                                      [--jobs 20000] [--repeat 3] [--json]

One server is started for it all, with its default durability (every commit waits for the disk).
The sides take turns, each on a fresh database, and the median of the repeats counts. A target is
a ratio taken in one run. Exits with 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import postgres_growth
from environments import NotInstalledError
from postgres_sides import SIDES, Side, Trial
from redis_targets import Verdict
from redis_trial import cpu_seconds, family

from tests.servers.postgres import PostgresServer  # found by redis_trial

Figures = dict[str, float]
Medians = dict[str, Figures]
COLUMNS = (
    ("rate", "drain/s", 0), ("cpu", "cpu µs", 1), ("server_cpu", "server µs", 1),
    ("single", "single/s", 0), ("together", "by 16/s", 0), ("bulk", "bulk/s", 0),
    ("p50", "p50 ms", 2), ("p99", "p99 ms", 2), ("idle_cpu", "idle %", 2),
)  # fmt: skip
CONFIG = {"shared_buffers": "512MB", "max_wal_size": "4GB"}


def enqueue(side: Side, server: PostgresServer, folder: Path, jobs: int) -> Figures:
    """Single calls, those of 16 callers at once, and many at once: jobs per second."""
    figures: Figures = {}
    for how, part in (("single", 0.1), ("together", 0.25), ("bulk", 2)):
        count = max(int(jobs * part * side.share), 200)
        with Trial(side, server, folder, count) as trial:
            figures[how] = trial.produce(how, "noop", count)
    return figures


def drain(side: Side, server: PostgresServer, folder: Path, jobs: int) -> Figures:
    """One worker process drains no-ops."""
    jobs = max(int(jobs * side.share), 200)
    with Trial(side, server, folder, jobs) as trial:
        trial.produce("bulk", "noop", jobs)
        server.execute("CHECKPOINT")
        with trial.worker() as pid:
            trial.wait_for(lambda: trial.done() > 0, "starting its worker")
            assert server.process is not None
            mine, begun, start = family(pid), trial.done(), time.perf_counter()
            own, servers = cpu_seconds(mine), cpu_seconds(family(server.process.pid))
            trial.wait_for(lambda: trial.done() == trial.places, "draining")
            seconds, left = time.perf_counter() - start, max(jobs - begun, 1)
            own = cpu_seconds(mine) - own
            servers = cpu_seconds(family(server.process.pid)) - servers
            trial.check_once()
    return {"rate": left / seconds, "cpu": 1e6 * own / left, "server_cpu": 1e6 * servers / left}


def latency(side: Side, server: PostgresServer, folder: Path, jobs: int) -> Figures:
    """From before the enqueue to the start of the function, one every 20 ms; milliseconds."""
    count = max(min(jobs // 60, 300), 30)
    with Trial(side, server, folder, 1 + count) as trial, trial.worker() as pid:
        trial.produce("single", "noop", 1)
        trial.wait_for(lambda: trial.done() == 1, "starting its worker")
        trial.forget()
        time.sleep(0.5)
        busy, start = cpu_seconds(family(pid)), time.perf_counter()
        time.sleep(1.0)
        idle = (cpu_seconds(family(pid)) - busy) / (time.perf_counter() - start)
        trial.produce("pace", "stamp", 1 + count)
        trial.wait_for(lambda: trial.done() == 1 + count, "idle latency")
        time.sleep(0.02)
        taken = sorted(1e3 * (began - sent) for sent, began in trial.times()[1:])
    p99 = taken[min(int(count * 0.99), count - 1)]
    return {"p50": taken[count // 2], "p99": p99, "idle_cpu": 100 * idle}


MEASURES: dict[str, Callable[[Side, PostgresServer, Path, int], Figures]] = {
    "enqueue": enqueue,
    "drain": drain,
    "latency": latency,
}


def judge(medians: Medians, growth: Figures) -> list[Verdict]:
    """Compare with every target for which there are figures."""
    found: list[Verdict] = []
    mine = medians.get("goose", {})
    python = [name for name in medians if name not in ("goose", "graphile-worker")]

    def ratio(
        what: str, figure: str, names: list[str], bound: float, *, least: bool = True
    ) -> None:
        others = {name: medians[name][figure] for name in names if figure in medians.get(name, {})}
        if figure in mine and others:
            name = (max if least else min)(others, key=others.__getitem__)
            unit = "jobs/s" if least else "ms"
            found.append(Verdict(what, mine[figure], unit, name, others[name], bound, least))

    ratio("drain, PgQueuer", "rate", ["pgqueuer"], 1.2)
    ratio("drain, Procrastinate", "rate", ["procrastinate"], 4)
    ratio("drain, Chancy", "rate", ["chancy"], 4)
    everybody = [*python, *(["graphile-worker"] if "graphile-worker" in medians else [])]
    ratio("lone enqueue, the best", "single", everybody, 1)
    ratio("16 callers, the best", "together", everybody, 2)
    ratio("bulk enqueue, the best", "bulk", everybody, 0.7)
    ratio("idle latency p50, the best", "p50", everybody, 1, least=False)
    for name, unit, bound, least in (
        ("table of its live size", "×", 3.0, False),
        ("rate with a held snapshot", "× without", 0.6, True),
    ):
        if name in growth:
            found.append(Verdict(name, growth[name], unit, "", None, bound, least))
    return found


def chosen(peers: str | None) -> list[Side]:
    """Return the sides to be measured, each installed."""
    wanted = None if peers is None else {"goose", *peers.split(",")}
    sides = [side for side in SIDES if wanted is None or side.name in wanted]
    for side in sides:
        try:
            side.installed()
        except NotInstalledError as error:
            raise SystemExit(str(error)) from error
    return sides


def take_turns(sides: list[Side], server: PostgresServer, options: argparse.Namespace) -> Medians:
    """Measure every side *repeat* times, in turn."""
    samples: dict[str, dict[str, list[float]]] = {side.name: {} for side in sides}
    for turn in range(options.repeat):
        for name in (name for name in MEASURES if name in options.only):
            for side in sides:
                print(f"{turn + 1}/{options.repeat} {name} {side.name}", file=sys.stderr)
                with tempfile.TemporaryDirectory(prefix="goose-bench-") as folder:
                    figures = MEASURES[name](side, server, Path(folder), options.jobs)
                for what, value in figures.items():
                    samples[side.name].setdefault(what, []).append(value)
    return {
        side: {what: statistics.median(values) for what, values in taken.items()}
        for side, taken in samples.items()
    }


def show(medians: Medians, verdicts: list[Verdict]) -> None:
    """Print every figure and every target."""
    print(f"\n{'':16}" + "".join(f"{heading:>11}" for _, heading, _ in COLUMNS))
    for side, taken in medians.items():
        cells = (
            f"{taken[figure]:>11,.{digits}f}" if figure in taken else f"{'':>11}"
            for figure, _, digits in COLUMNS
        )
        print(f"{side:16}" + "".join(cells))
    print(f"\n{'':30}{'goose':>12}{'other':>12}{'ratio':>9}  target")
    for verdict in verdicts:
        other = f"{verdict.other:,.2f}" if verdict.other else ""
        ratio = f"{verdict.value:.2f} ×" if verdict.other else ""
        told = f"{verdict.target}  {'met' if verdict.met else 'MISSED'}"
        print(f"{verdict.what:30}{verdict.goose:>12,.2f}{other:>12}{ratio:>9}  {told}")


def main() -> int:
    """Measure what was asked for; return the exit code."""
    everything = ",".join((*MEASURES, *postgres_growth.MEASURES))
    parser = argparse.ArgumentParser(description="Goose beside other libraries on PostgreSQL.")
    parser.add_argument("--only", default=everything, help=f"of {everything}")
    parser.add_argument("--peers", help="names with commas between; all by default, '' for none")
    parser.add_argument("--jobs", type=int, default=20_000, help="no-ops per measurement")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each side")
    parser.add_argument(
        "--through", type=int, default=2_000_000, help="jobs for the table's growth"
    )
    parser.add_argument("--held", type=float, default=600.0, help="seconds a snapshot is held")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    options.only = options.only.split(",")
    sides = chosen(options.peers)
    with (
        tempfile.TemporaryDirectory(prefix="goose-bench-") as folder,
        PostgresServer(Path(folder), config=CONFIG) as server,
    ):
        before = os.getloadavg()[0]
        medians = take_turns(sides, server, options)
        growth: Figures = {}
        for name, measure in postgres_growth.MEASURES.items():
            if name in options.only:
                print(name, file=sys.stderr)
                growth |= measure(server, options)
        [(version,)] = server.execute("SHOW server_version")
    verdicts = judge(medians, growth)
    if options.json:
        listed = [verdict.as_dict() for verdict in verdicts]
        print(json.dumps({"sides": medians, "growth": growth, "targets": listed}))
    else:
        print(f"\nPostgreSQL {version}, load average {before:.1f} before, ", end="")
        print(f"{os.getloadavg()[0]:.1f} after, on {os.cpu_count()} CPUs")
        for side in sides:
            print(f"  {side.name} {side.version()}: {side.settings}")
        show(medians, verdicts)
    return 0 if all(verdict.met for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
