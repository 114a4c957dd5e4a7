"""What middleware and metrics cost: microseconds of CPU per job that does nothing.

Every round measures every variant once, each in a process of its own, in an order drawn
anew; what is compared are the differences within a round, so that a machine that is busy at
one moment disturbs both sides. Shown are the median difference and the upper bound of its 95 %
confidence interval, by the bootstrap.

``python observe.py [--rounds N] [--jobs N] [--only TEXT]``
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from observe_trial import METRICS, MIDDLEWARE, OFF

HERE = Path(__file__).parent
BLOCKS = 200
LIMIT = 0.03
"""By how much CPU per job may rise when StatsD's port is dead or its name hangs."""


def trial(variant: str, jobs: int) -> float:
    """Measure *variant* once, in a process of its own."""
    command = [sys.executable, str(HERE / "observe_trial.py"), variant, str(jobs)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{variant}: {done.stderr}")
    return float(done.stdout.split()[-1])


def upper(differences: Sequence[float], chance: random.Random) -> float:
    """Return the upper bound of the median's 95 % confidence interval."""
    medians = sorted(
        statistics.median(chance.choices(differences, k=len(differences))) for _ in range(2000)
    )
    return medians[int(0.975 * len(medians))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--only", default="", help="variants whose name has this")
    given = parser.parse_args()
    variants = [name for name in (*MIDDLEWARE, *METRICS) if given.only in name]
    chance = random.Random(1)
    found: dict[str, list[float]] = {OFF: [], **{name: [] for name in variants}}
    for number in range(given.rounds):
        for name in chance.sample(list(found), len(found)):
            found[name].append(trial(name, given.jobs))
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
    base = statistics.median(found[OFF])
    print(f"{given.rounds} rounds of {given.jobs:,} jobs; {OFF}: {base:.1f} µs per job\n")
    print(f"{'with':<24}{'µs more':>10}{'at most':>10}")
    for name in variants:
        more = [one - off for one, off in zip(found[name], found[OFF], strict=True)]
        print(f"{name:<24}{statistics.median(more):>10.1f}{upper(more, chance):>10.1f}")
    if given.only in "statsd":
        compare_statsd(base, chance)


def compare_statsd(base: float, chance: random.Random) -> None:
    """Print what a dead port and a name that hangs add to a job of *base* µs with StatsD on.

    All three take turns in one process, a few milliseconds each: pairs so close that the
    machine is the same for both.
    """
    sides: dict[str, Any] = {}
    sides["listens"], server = METRICS["statsd"]()
    sides["dead port"] = METRICS["statsd, dead port"]()
    found: dict[str, list[float]] = {}
    sides["DNS hangs"] = METRICS["statsd, DNS hangs"]()
    tags = {"queue": "default", "function": "work:noop"}
    for _ in range(BLOCKS):
        for name in chance.sample(list(sides), len(sides)):
            statsd = sides[name]
            began = time.thread_time()
            for _ in range(500):  # as many calls as a busy worker makes for a job
                statsd.increment("jobs.processed", 1, tags)
                statsd.timing("job.execution_time", 0.0123, tags)
                statsd.timing("job.latency", 0.0456, tags)
            found.setdefault(name, []).append(1e6 * (time.thread_time() - began) / 500)
    server.close()
    live = statistics.median(found["listens"])
    print(f"\nStatsD alone, with a server that listens: {live:.1f} µs per job")
    for name in ("dead port", "DNS hangs"):
        rises = [
            (one - other) / (base + other)
            for one, other in zip(found[name], found["listens"], strict=True)
        ]
        bound = upper(rises, chance)
        verdict = "met" if bound <= LIMIT else "MISSED"
        print(
            f"{name}: CPU per job {statistics.median(rises):+.1%}, at most {bound:+.1%} "
            f"({verdict}: {LIMIT:.0%})"
        )


if __name__ == "__main__":
    main()
