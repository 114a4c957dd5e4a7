"""The targets on Redis, and the tables of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Medians = Mapping[str, Mapping[str, float]]

COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("rate", "drain/s", 0),
    ("rate2", "by two/s", 0),
    ("cpu", "cpu µs", 1),
    ("redis_cpu", "redis µs", 1),
    ("single", "single/s", 0),
    ("bulk", "bulk/s", 0),
    ("p50", "p50 ms", 2),
    ("p99", "p99 ms", 2),
    ("idle_cpu", "idle %", 2),
    ("naps", "naps ×", 2),
    ("stored", "bytes", 0),
)
"""Figure, heading, and digits after the point."""


@dataclass(frozen=True)
class Verdict:
    """One target beside what was measured."""

    what: str
    goose: float
    unit: str
    beside: str
    """Who it is compared with; empty for a fixed bound."""
    other: float | None
    bound: float
    at_least: bool
    """Whether Goose, or its ratio, must be at least *bound*; at most otherwise."""

    @property
    def value(self) -> float:
        """What is compared with the bound."""
        return self.goose / self.other if self.other else self.goose

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def target(self) -> str:
        """The target in words."""
        sign = "≥" if self.at_least else "≤"
        return f"{sign} {self.bound:g} {f'× {self.beside}' if self.beside else self.unit}"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "value": self.value, "met": self.met}


def judge(medians: Medians, growth: Mapping[str, float]) -> list[Verdict]:
    """Compare with every target for which there are figures."""
    pythons = [name for name in medians if name not in ("goose", "raw", "bullmq")]
    found: list[Verdict] = []

    def ratio(
        what: str,
        figure: str,
        names: list[str],
        bound: float,
        *,
        unit: str = "jobs/s",
        smallest: bool = False,
    ) -> None:
        mine = medians.get("goose", {}).get(figure)
        others = {name: medians[name][figure] for name in names if figure in medians.get(name, {})}
        if mine is None or not others:
            return
        best: Callable[..., str] = min if smallest else max
        name = best(others, key=lambda other: others[other])
        found.append(Verdict(what, mine, unit, name, others[name], bound, not smallest))

    def fixed(what: str, value: float | None, unit: str, bound: float) -> None:
        if value is not None:
            found.append(Verdict(what, value, unit, "", None, bound, at_least=False))

    mine = medians.get("goose", {})
    ratio("drain, one process, best Python", "rate", pythons, 6)
    ratio("drain, one process, BullMQ", "rate", ["bullmq"], 1.5)
    if "rate" in mine and "rate2" in mine:
        found.append(
            Verdict(
                "drain, two processes",
                mine["rate2"],
                "jobs/s",
                "one",
                mine["rate"],
                1,
                at_least=True,
            )
        )
    if "slice_raw" in growth:
        taken, raw = 1e6 / growth["slice_goose"], 1e6 / growth["slice_raw"]
        found.append(
            Verdict(
                "single enqueue, LPUSH in turns", taken, "jobs/s", "raw", raw, 0.7, at_least=True
            )
        )
    else:
        ratio("single enqueue, raw LPUSH", "single", ["raw"], 0.7)
    ratio("single enqueue, best Python", "single", pythons, 0.9)
    ratio("bulk enqueue, best Python", "bulk", pythons, 4)
    ratio("idle latency p50, best", "p50", [*pythons, "bullmq"], 1, unit="ms", smallest=True)
    fixed("idle latency p99", mine.get("p99"), "ms", 3)
    fixed("1,000 naps at 200, of ideal", mine.get("naps"), "×", 1.5)
    fixed("redis-server CPU per job", mine.get("redis_cpu"), "µs", 10)
    fixed("memory per queued job", mine.get("stored"), "bytes", 450)
    for what in ("depth", "heartbeat", "recover"):
        sizes = [value for name, value in growth.items() if name.startswith(f"{what}_")]
        if len(sizes) > 1:
            fixed(f"growth, {what}", max(sizes) / sizes[0], "×", 1.15)
    return found


def show_all(medians: Medians) -> None:
    """Print every figure of every side."""
    columns = [
        column for column in COLUMNS if any(column[0] in taken for taken in medians.values())
    ]
    if not columns:
        return
    print(f"\n{'':14}" + "".join(f"{heading:>10}" for _, heading, _ in columns))
    for side, taken in medians.items():
        cells = (
            f"{taken[figure]:>10,.{digits}f}" if figure in taken else f"{'':>10}"
            for figure, _, digits in columns
        )
        print(f"{side:14}" + "".join(cells))


def show(verdicts: list[Verdict], growth: Mapping[str, float]) -> None:
    """Print the targets, and what is printed beside them."""
    print(f"\n{'':34}{'goose':>12}{'other':>12}{'ratio':>9}  target")
    for verdict in verdicts:
        other = f"{verdict.other:,.2f}" if verdict.other else ""
        ratio = f"{verdict.value:.2f} ×" if verdict.other else ""
        told = f"{verdict.target}  {'met' if verdict.met else 'MISSED'}"
        print(f"{verdict.what:34}{verdict.goose:>12,.2f}{other:>12}{ratio:>9}  {told}")
    _show_growth(growth)


def _show_growth(growth: Mapping[str, float]) -> None:
    for what, unit in (
        ("depth", "µs to lend and settle a job with so many queued"),
        ("heartbeat", "µs for a heartbeat with so many sessions"),
        ("recover", "µs to look for the dead among so many sessions"),
    ):
        sizes = {
            int(name.rpartition("_")[2]): value
            for name, value in growth.items()
            if name.startswith(f"{what}_")
        }
        if sizes:
            line = "   ".join(f"{size:,}: {value:.1f}" for size, value in sizes.items())
            print(f"\n{unit}\n  {line}")
    if "inspect_jobs" in growth:
        print(f"\nms another client waits at most, with {growth['inspect_jobs']:,.0f} jobs queued")
        for name in ("count", "list", "prioritise", "purge"):
            pause, seconds = growth[f"pause_{name}"], growth[f"inspect_{name}_s"]
            print(f"  {name}: {pause:.1f}, of {seconds:.2f} s")
    if "drained_s" in growth:
        print(
            f"\nthe ancestor's scenario, {growth['trip_ms']:.1f} ms per round trip, 25 threads:\n"
            f"  enqueued in {growth['stored_s']:.1f} s, drained in {growth['drained_s']:.1f} s"
        )
