"""A run in which sides take turns at one server: what is measured of each, and the tables of it.

What differs from server to server is the trial (`Side.trial`): how it is made clean, and who is
at work in it. The median of the turns counts, and ratios are of one run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import redis_sides
from environments import NotInstalledError
from redis_targets import Verdict
from redis_trial import Trial, cpu_seconds, family

Figures = dict[str, float]
Medians = dict[str, Figures]
COLUMNS = (
    ("rate", "drain/s", 0), ("cpu", "cpu µs", 1), ("server_cpu", "server µs", 1),
    ("single", "single/s", 0), ("together", "by 16/s", 0), ("bulk", "bulk/s", 0),
    ("p50", "p50 ms", 2), ("p99", "p99 ms", 2), ("idle_cpu", "idle %", 2),
)  # fmt: skip
"""Figure, heading, and digits after the point."""


@dataclass(frozen=True)
class Side(redis_sides.Side):
    """One library on a server of any kind."""

    drains: bool = True
    """Whether it has a worker."""

    def trial(self, server: Any, folder: Path, places: int) -> Trial:
        """Return a trial of so many jobs on a *server* that is clean."""
        return Trial(self, server, folder, places)


AnySide = TypeVar("AnySide", bound=redis_sides.Side)


def enqueue(side: Side, server: Any, folder: Path, jobs: int) -> Figures:
    """Single calls, those of 16 callers at once, and many at once: jobs per second."""
    figures: Figures = {}
    for how, part, least in (("single", 0.1, 0.1), ("together", 0.25, 0.1), ("bulk", 2, 0.01)):
        # Of slow ones, too, as many as take a second: less tells of the moment, not of the library.
        count = max(int(jobs * part * side.share), int(jobs * least))
        with side.trial(server, folder, count) as trial:
            figures[how] = trial.produce(how, "noop", count)
    return figures


def drain(side: Side, server: Any, folder: Path, jobs: int) -> Figures:
    """One worker process drains no-ops; nothing of a side that has none."""
    if not side.drains:
        return {}
    jobs = max(int(jobs * side.share), 200)
    with side.trial(server, folder, jobs) as trial:
        trial.produce("bulk", "noop", jobs)
        trial.calm()
        with trial.worker() as pid:
            trial.wait_for(lambda: trial.done() > 0, "starting its worker")
            mine, begun, start = family(pid), trial.done(), time.perf_counter()
            own, servers = cpu_seconds(mine), cpu_seconds(family(server.process.pid))
            trial.wait_for(lambda: trial.done() == trial.places, "draining")
            seconds, left = time.perf_counter() - start, max(jobs - begun, 1)
            own = cpu_seconds(mine) - own
            servers = cpu_seconds(family(server.process.pid)) - servers
            trial.check_once()
    return {"rate": left / seconds, "cpu": 1e6 * own / left, "server_cpu": 1e6 * servers / left}


def latency(side: Side, server: Any, folder: Path, jobs: int) -> Figures:
    """From before the enqueue to the start of the function, one every 20 ms; milliseconds."""
    if not side.drains:
        return {}
    count = max(min(jobs // 60, 300), 30)
    with side.trial(server, folder, 1 + count) as trial, trial.worker() as pid:
        taken, idle = paced(trial, pid, count)
    p99 = taken[min(int(count * 0.99), count - 1)]
    return {"p50": taken[count // 2], "p99": p99, "idle_cpu": 100 * idle}


def paced(trial: Trial, pid: int, count: int) -> tuple[list[float], float]:
    """Return the latencies of *count* jobs, sorted, and the CPU that worker *pid* used before."""
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
    return sorted(1e3 * (began - sent) for sent, began in trial.times()[1:]), idle


MEASURES: dict[str, Callable[[Side, Any, Path, int], Figures]] = {
    "enqueue": enqueue,
    "drain": drain,
    "latency": latency,
}


class Judge:
    """Collects verdicts on Goose from the figures of a run."""

    def __init__(self, medians: Mapping[str, Mapping[str, float]]) -> None:
        self.verdicts: list[Verdict] = []
        self._medians = medians

    def ratio(
        self,
        what: str,
        figure: str,
        names: Sequence[str],
        bound: float,
        *,
        least: bool = True,
        of: str = "goose",
        their: str | None = None,
    ) -> None:
        """Compare a figure *of* Goose with the best of *names*; nothing if one was not measured.

        Args:
            what: The target's name.
            figure: What is compared.
            names: Sides; those without the figure are left out.
            bound: Of the ratio.
            least: Whether more is better.
            of: The side of Goose's.
            their: What it is compared with, if that is another figure.
        """
        theirs = their or figure
        found = {name: self._medians.get(name, {}) for name in names}
        others = {name: taken[theirs] for name, taken in found.items() if theirs in taken}
        mine = self._medians.get(of, {}).get(figure)
        if mine is not None and others:
            name = (max if least else min)(others, key=others.__getitem__)
            unit = "jobs/s" if least else "ms"
            self.verdicts.append(Verdict(what, mine, unit, name, others[name], bound, least))


def parser(description: str, measures: Sequence[str]) -> argparse.ArgumentParser:
    """Return what reads the command line; *measures* are what ``--only`` may name."""
    everything = ",".join(measures)
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--only", default=everything, help=f"of {everything}")
    made.add_argument("--peers", help="names with commas between; all by default, '' for none")
    made.add_argument("--jobs", type=int, default=20_000, help="no-ops per measurement")
    made.add_argument("--repeat", type=int, default=3, help="measurements of each side")
    made.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return made


def chosen(
    sides: Sequence[AnySide],
    peers: str | None,
    ours: Callable[[AnySide], bool] = lambda side: side.is_goose,
) -> list[AnySide]:
    """Return the sides that are *ours* and those that *peers* names, each installed.

    Raises:
        SystemExit: One is unknown or cannot be installed.
    """
    known = [side.name for side in sides if not ours(side)]
    wanted = known if peers is None else [name for name in peers.split(",") if name]
    for name in wanted:
        if name not in known:
            raise SystemExit(f"--peers names {name!r}; there are: {', '.join(known)}")
    found = [side for side in sides if side.name in wanted or ours(side)]
    for side in found:
        try:
            side.installed()
        except NotInstalledError as error:
            raise SystemExit(str(error)) from error
    return found


def take_turns(
    sides: Sequence[Any],
    server: Any,
    options: argparse.Namespace,
    measures: Mapping[str, Callable[[Any, Any, Path, int], Figures]] = MEASURES,
) -> Medians:
    """Measure every side ``options.repeat`` times, in turn, by those of *measures* asked for."""
    samples: dict[str, dict[str, list[float]]] = {side.name: {} for side in sides}
    for turn in range(options.repeat):
        for name in (name for name in measures if name in options.only.split(",")):
            for side in sides:
                print(f"{turn + 1}/{options.repeat} {name} {side.name}", file=sys.stderr)
                with tempfile.TemporaryDirectory(prefix="goose-bench-") as folder:
                    figures = measures[name](side, server, Path(folder), options.jobs)
                for what, value in figures.items():
                    samples[side.name].setdefault(what, []).append(value)
    return {
        side: {what: statistics.median(values) for what, values in taken.items()}
        for side, taken in samples.items()
    }


def report(
    about: str, sides: Sequence[Side], medians: Medians, verdicts: Sequence[Verdict]
) -> None:
    """Print *about* what it was, every figure and every target."""
    print(f"\n{about}")
    for side in sides:
        print(f"  {side.name} {side.version()}: {side.settings}")
    print(f"\n{'':18}" + "".join(f"{heading:>11}" for _, heading, _ in COLUMNS))
    for name, taken in medians.items():
        cells = (
            f"{taken[figure]:>11,.{digits}f}" if figure in taken else f"{'':>11}"
            for figure, _, digits in COLUMNS
        )
        print(f"{name:18}" + "".join(cells))
    print(f"\n{'':34}{'goose':>12}{'other':>12}{'ratio':>9}  target")
    for verdict in verdicts:
        other = f"{verdict.other:,.2f}" if verdict.other else ""
        ratio = f"{verdict.value:.2f} ×" if verdict.other else ""
        told = f"{verdict.target}  {'met' if verdict.met else 'MISSED'}"
        print(f"{verdict.what:34}{verdict.goose:>12,.2f}{other:>12}{ratio:>9}  {told}")


def as_json(medians: Medians, growth: Figures, verdicts: Sequence[Verdict]) -> str:
    """Return a run as JSON."""
    listed = [verdict.as_dict() for verdict in verdicts]
    return json.dumps({"sides": medians, "growth": growth, "targets": listed})


def load(before: float) -> str:
    """Return how busy the machine was *before* and is now."""
    after = os.getloadavg()[0]
    return f"load average {before:.1f} before, {after:.1f} after, on {os.cpu_count()} CPUs"
