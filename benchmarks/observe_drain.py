"""How much slower a worker drains Redis with Prometheus and log context on.

Pairs of drains of the same number of jobs that do nothing, one with both off and one with both
on, in an order drawn anew for each pair; a real ``goose worker`` with one process on a real
redis-server. Shown is the median of the pairs' ratios; the target is 85 %.

``python observe_drain.py [--pairs N] [--jobs N]``
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import work

import goose
from goose.middleware.log_context import LogContext

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.servers.redis import RedisServer, free_port  # noqa: E402 - needs the path above

TARGET = 0.85
log_context = LogContext("tenant")


def drain(url: str, jobs: int, folder: Path, *, on: bool) -> tuple[float, float]:
    """Return jobs per second, and per second of the worker's CPU, from first to last job."""
    marks = folder / "marks.jsonl"
    marks.unlink(missing_ok=True)
    with goose.Client(url) as client:
        client.enqueue(work.mark, str(marks), "first")
        client.enqueue_many(work.noop, [()] * jobs)
        client.enqueue(work.mark, str(marks), "last")
    flags = []
    if on:
        flags = ["--metrics", f"prometheus://127.0.0.1:{free_port()}"]
        flags += ["--middleware", "observe_drain:log_context"]
    subprocess.run(
        [
            str(Path(sys.executable).with_name("goose")), "worker", "work", "--broker", url,
            "--concurrency", "4", "--until-empty", *flags,
        ],
        cwd=HERE, env={**os.environ, "PYTHONPATH": str(HERE)}, check=True, capture_output=True,
    )  # fmt: skip
    at = {line["name"]: line for line in map(json.loads, marks.read_text().splitlines())}
    wall, cpu = (at["last"][clock] - at["first"][clock] for clock in ("wall", "cpu"))
    return jobs / wall, jobs / cpu


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=30_000)
    given = parser.parse_args()
    chance = random.Random(1)
    rates: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as name, RedisServer(Path(name) / "redis") as server:
        for number in range(given.pairs):
            for on in chance.sample([True, False], 2):
                rates[on].append(drain(server.url, given.jobs, Path(name), on=on))
            print(f"pair {number + 1} of {given.pairs}", file=sys.stderr)
    for number, what in enumerate(("by the clock", "by the worker's CPU")):
        found = {on: [pair[number] for pair in pairs] for on, pairs in rates.items()}
        ratios = [with_ / off for with_, off in zip(found[True], found[False], strict=True)]
        ratio = statistics.median(ratios)
        verdict = "met" if ratio >= TARGET else "MISSED"
        print(
            f"{what}: {statistics.median(found[False]):,.0f} jobs per second with both off, "
            f"{statistics.median(found[True]):,.0f} with both on: {ratio:.0%} "
            f"({verdict}: {TARGET:.0%}; pairs {', '.join(f'{one:.0%}' for one in ratios)})"
        )


if __name__ == "__main__":
    main()
