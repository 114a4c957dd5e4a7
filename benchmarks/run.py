"""Goose measured beside huey, both on SQLite, in one run; compared with the targets.

    python benchmarks/run.py [--only drain,latency] [--jobs 20000] [--repeat 3] [--json]

Machines differ and drift, so a target is a ratio taken in one run wherever it can be. The
sides take turns, and the median of the repeats counts. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sides import HERE, SIDES, Side

DEADLINE = 120.0
"""Seconds any one measurement may take."""
ENGINE = 15.0
"""Microseconds of CPU the engine may take for a job, on a machine on which huey takes some 130 for
one from SQLite; a slower one says so by its yardstick. See docs/performance.md."""


@dataclass(frozen=True)
class Row:
    """One line of the table. *target* is "≥ 6 ×" of the peer's, or "≤ 5" of the unit."""

    what: str
    unit: str
    goose: float
    huey: float | None = None
    at_least: float | None = None
    """Times the peer's figure."""
    at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        """Goose's figure as a multiple of huey's."""
        return self.goose / self.huey if self.huey else None

    @property
    def target(self) -> str:
        """The target in words; empty without one."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g} × huey"
        return f"≤ {self.at_most:.3g} {self.unit}" if self.at_most is not None else ""

    @property
    def met(self) -> bool:
        """Whether the target is met; a row without one always is."""
        if self.at_least is not None:
            return self.ratio is not None and self.ratio >= self.at_least
        return self.at_most is None or self.goose <= self.at_most


Samples = dict[str, dict[str, list[float]]]
"""By side, then by what was measured."""


def take_turns(measure: Callable[[Side], dict[str, float]], repeat: int) -> Samples:
    """Measure each side *repeat* times in turn, on a fresh file each time."""
    samples: Samples = {side.name: {} for side in SIDES}
    for _ in range(repeat):
        for kind in SIDES:
            with tempfile.TemporaryDirectory(prefix="goose-bench-") as folder:
                side = kind(Path(folder))
                try:
                    for what, value in measure(side).items():
                        samples[side.name].setdefault(what, []).append(value)
                finally:
                    side.close()
    return samples


def wait_for(done: Callable[[], bool], what: str) -> None:
    """Wait until *done*, or give up with a message."""
    deadline = time.monotonic() + DEADLINE
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not done within {DEADLINE:g} s")
        time.sleep(0.01)


def lines(path: Path) -> list[str]:
    """Return what the jobs have written so far."""
    return path.read_text().splitlines() if path.exists() else []


SINGLES = 200
"""Single enqueues in one turn. A disk's mood lasts longer than that, and then meets both sides."""
WARM = 2600
"""Single enqueues before the first turn, so that the files have the blocks they will reuse: Goose's
log is written from its beginning again after 4 MB, which are 2,000 of them."""


def measure_singles(turns: int) -> Samples:
    """Enqueue one by one, the sides in many short turns, each on its own open file."""
    samples: Samples = {side.name: {"single": []} for side in SIDES}
    with tempfile.TemporaryDirectory(prefix="goose-bench-") as folder:
        sides = [kind(Path(folder)) for kind in SIDES]
        try:
            for side in sides:
                side.single(WARM)
            for turn in range(turns):
                for side in sides[:: 1 if turn % 2 else -1]:
                    rate = _rate(lambda side=side: side.single(SINGLES), SINGLES)
                    samples[side.name]["single"].append(rate)
            for side in sides:
                if side.waiting() != WARM + turns * SINGLES:
                    raise SystemExit(f"{side.name} stored {side.waiting()} jobs, which is wrong")
        finally:
            for side in sides:
                side.close()
    return samples


def measure_bulk(jobs: int) -> Callable[[Side], dict[str, float]]:
    """Enqueue many at once: jobs per second."""

    def measure(side: Side) -> dict[str, float]:
        side.single(10)  # the first one opens the file
        bulk = _rate(lambda: side.bulk(jobs), jobs)
        if side.waiting() != 10 + jobs:
            raise SystemExit(f"{side.name} stored {side.waiting()} of {10 + jobs} jobs")
        return {"bulk": bulk}

    return measure


def _rate(call: Callable[[], None], jobs: int) -> float:
    start = time.perf_counter()
    call()
    return jobs / (time.perf_counter() - start)


def measure_drain(jobs: int) -> Callable[[Side], dict[str, float]]:
    """Let one worker process drain *jobs* no-ops; a job at each end tells time, CPU and memory."""

    def measure(side: Side) -> dict[str, float]:
        side.mark("first")
        side.bulk(jobs)
        side.mark("last")
        with side.worker():
            wait_for(lambda: len(lines(side.notes)) == 2, f"{side.name} draining {jobs:,} jobs")
            wait_for(lambda: side.waiting() == 0, f"{side.name} settling its last jobs")
        first, last = (json.loads(line) for line in lines(side.notes))
        memory = last["rss_kib"] + (last["parent_rss_kib"] if side.name == "goose" else 0)
        return {
            "rate": jobs / (last["wall"] - first["wall"]),
            "cpu": 1e6 * (last["cpu"] - first["cpu"]) / jobs,
            "memory": memory / 1024,
        }

    return measure


def measure_latency(count: int) -> Callable[[Side], dict[str, float]]:
    """Send *count* jobs, 20 ms apart, to a worker that has nothing else to do."""

    def measure(side: Side) -> dict[str, float]:
        with side.worker():
            side.stamp(time.monotonic())
            wait_for(lambda: len(lines(side.notes)) == 1, f"{side.name} starting its worker")
            for _ in range(count):
                time.sleep(0.02)
                side.stamp(time.monotonic())
            wait_for(lambda: len(lines(side.notes)) == 1 + count, f"{side.name} idle latency")
        taken = sorted(1e3 * float(line) for line in lines(side.notes)[1:])
        return {"p50": taken[len(taken) // 2], "p99": taken[int(len(taken) * 0.99)]}

    return measure


def median(samples: Samples, side: str, what: str) -> float:
    """Return the middle one of the repeats."""
    return statistics.median(samples[side][what])


def compare(samples: Samples, what: str) -> dict[str, float]:
    """Return both sides' medians as the fields of a `Row`."""
    return {side: median(samples, side, what) for side in ("goose", "huey")}


def run_enqueue(options: argparse.Namespace) -> list[Row]:
    """Enqueue: single and bulk."""
    singles = measure_singles(turns=8 * options.repeat)
    # A turn of these takes a quarter of a second, in which a machine may do anything else; so several.
    bulk = take_turns(measure_bulk(options.jobs), 3 * options.repeat)
    return [
        Row("enqueue, one call each", "jobs/s", **compare(singles, "single"), at_least=1),
        Row("enqueue, many at once", "jobs/s", **compare(bulk, "bulk"), at_least=10),
    ]


def run_drain(options: argparse.Namespace) -> list[Row]:
    """Drain: rate, CPU and memory of one worker process."""
    taken = take_turns(measure_drain(options.jobs), options.repeat)
    return [
        Row("drain, one worker process", "jobs/s", **compare(taken, "rate"), at_least=6),
        Row("  its CPU per job", "µs", **compare(taken, "cpu")),
        Row("  its memory, supervisor included", "MiB", **compare(taken, "memory")),
    ]


def run_latency(options: argparse.Namespace) -> list[Row]:
    """Latency from before the enqueue to the start of the function, worker idle."""
    taken = take_turns(measure_latency(options.stamps), options.repeat)
    return [
        Row("latency when idle, p50", "ms", **compare(taken, "p50"), at_most=5),
        Row("latency when idle, p99", "ms", **compare(taken, "p99")),
    ]


def run_engine(options: argparse.Namespace) -> list[Row]:
    """The engine's own CPU per job, on the memory broker, beside the yardstick in turns."""
    turns = [
        (_printed("yardstick.py", options.jobs), _printed("engine.py", options.jobs))
        for _ in range(options.repeat)
    ]
    yardstick = statistics.median(yardstick for yardstick, _ in turns)
    engine = statistics.median(engine for _, engine in turns)
    return [
        Row("yardstick, plain Python", "µs", yardstick),
        Row("engine, memory broker", "µs", engine, at_most=ENGINE),
    ]


def _printed(script: str, count: int) -> float:
    """Return the number that *script* prints, run in a process of its own."""
    command = [sys.executable, str(HERE / script), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        raise SystemExit(f"{script} failed:\n{done.stderr}")
    return float(done.stdout)


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "enqueue": run_enqueue,
    "drain": run_drain,
    "latency": run_latency,
    "engine": run_engine,
}


def show(rows: Sequence[Row]) -> None:
    """Print the table."""
    print(f"\n{'':34}{'unit':>8}{'goose':>12}{'huey':>12}{'ratio':>9}  target")
    for row in rows:
        huey = "" if row.huey is None else f"{row.huey:,.1f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} ×"
        verdict = f"{row.target}  {'met' if row.met else 'MISSED'}" if row.target else ""
        print(f"{row.what:34}{row.unit:>8}{row.goose:>12,.1f}{huey:>12}{ratio:>9}  {verdict}")


def main() -> int:
    """Measure what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(description="Goose beside huey, both on SQLite.")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--jobs", type=int, default=20_000, help="no-ops per measurement")
    parser.add_argument("--stamps", type=int, default=300, help="jobs of the latency measurement")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each side")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only.split(","):
        if name not in PARTS:
            parser.error(f"--only names {name!r}; there are: {', '.join(PARTS)}")
        print(f"measuring {name} …", file=sys.stderr)
        rows += PARTS[name](options)
    if options.json:
        print(json.dumps([{**asdict(row), "ratio": row.ratio, "met": row.met} for row in rows]))
    else:
        show(rows)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
