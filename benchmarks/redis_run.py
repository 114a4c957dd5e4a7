"""Goose measured on Redis beside other libraries, in one run; compared with the targets.

    python benchmarks/redis_run.py [--only drain,latency] [--peers dramatiq,huey]
                                   [--jobs 20000] [--repeat 3] [--plot growth.svg] [--json]

One redis-server is started for it all, without persistence (``appendonly no``, ``save ""``),
the same for every side. The sides take turns, and the median of the repeats counts. A target
is a ratio taken in one run wherever it can be. Exits with 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from redis_measures import MEASURES
from redis_plot import draw
from redis_sides import SIDES
from redis_targets import Verdict, judge, show, show_all
from turns import chosen, take_turns

from tests.servers.redis import RedisServer  # found by redis_measures

GROWTH = ("growth", "inspection", "slices", "ancestor")
OURS = ("goose", "raw")
"""Measured in every run."""


def measure_growth(
    server: RedisServer, names: Sequence[str], options: argparse.Namespace
) -> dict[str, float]:
    """Measure what only Goose is asked for."""
    import redis_growth

    figures: dict[str, float] = {}
    if "growth" in names:
        print("growth", file=sys.stderr)
        depths = [min(size, options.deepest) for size in redis_growth.DEPTHS]
        figures |= redis_growth.depth(server, sorted(set(depths)), 2_000)
        figures |= redis_growth.sessions(server, redis_growth.CREWS, 2_000)
    if "inspection" in names:
        print("inspection", file=sys.stderr)
        figures |= redis_growth.inspection(server, options.deepest)
    if "slices" in names:
        print("slices", file=sys.stderr)
        figures |= redis_growth.slices(server, 50)
    if "ancestor" in names:
        print("ancestor", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="goose-bench-") as folder:
            figures |= redis_growth.ancestor(server, Path(folder), options.jobs * 5)
    return figures


def arguments() -> argparse.Namespace:
    """Read the command line."""
    everything = ",".join((*MEASURES, *GROWTH))
    parser = argparse.ArgumentParser(description="Goose beside other libraries, all on Redis.")
    parser.add_argument("--only", default=everything, help=f"of {everything}")
    parser.add_argument("--peers", help="names with commas between; all by default, '' for none")
    parser.add_argument("--jobs", type=int, default=20_000, help="no-ops per measurement")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each side")
    parser.add_argument("--deepest", type=int, default=1_000_000, help="jobs of the longest queue")
    parser.add_argument("--plot", type=Path, help="draw the growth into this SVG file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    for name in options.only.split(","):
        if name not in (*MEASURES, *GROWTH):
            parser.error(f"--only names {name!r}; there are: {everything}")
    return options


def main() -> int:
    """Measure what was asked for; return the exit code."""
    options = arguments()
    sides = chosen(SIDES, options.peers, lambda side: side.name in OURS)
    with (
        tempfile.TemporaryDirectory(prefix="goose-bench-") as folder,
        RedisServer(Path(folder)) as server,
    ):
        version = server.client.info("server")["redis_version"]
        before = os.getloadavg()[0]
        medians = take_turns(sides, server, options, MEASURES)
        growth = measure_growth(server, options.only.split(","), options)
    verdicts: list[Verdict] = judge(medians, growth)
    if options.plot is not None:
        draw(growth, options.plot)
    if options.json:
        listed = [verdict.as_dict() for verdict in verdicts]
        print(json.dumps({"sides": medians, "growth": growth, "targets": listed}))
    else:
        print(f"\nredis-server {version}, load average {before:.1f} before, ", end="")
        print(f"{os.getloadavg()[0]:.1f} after, on {os.cpu_count()} CPUs")
        for side in sides:
            print(f"  {side.name} {side.version()}: {side.settings}")
        show_all(medians)
        show(verdicts, growth)
    return 0 if all(verdict.met for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
