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
from collections.abc import Sequence
from pathlib import Path

from observe_trial import METRICS, MIDDLEWARE, OFF

HERE = Path(__file__).parent
LIVE = "statsd"
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
    for name in ("statsd, dead port", "statsd, DNS hangs"):
        if name in found and LIVE in found:
            ratios = [one / live - 1 for one, live in zip(found[name], found[LIVE], strict=True)]
            bound = upper(ratios, chance)
            verdict = "met" if bound <= LIMIT else "MISSED"
            print(
                f"\n{name}, against a server that listens: {statistics.median(ratios):+.1%}, "
                f"at most {bound:+.1%} ({verdict}: {LIMIT:.0%})"
            )


if __name__ == "__main__":
    main()
