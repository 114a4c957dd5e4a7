"""What a campaign found, and how it is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.history import Verdict
from tests.chaos.producers import Producers

HEAD = (
    f"{'fault':<24} {'times':>5} {'met':>4} {'runs':>6} {'calls':>6} {'failed':>6} {'hits':>5}  "
    "works again after (s)"
)
"""Times it happened and met work; runs and calls of clients it met; calls that failed; what the
proxy met."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One fault of the broker."""

    kind: str
    began: float
    over: float
    hits: int
    """What the proxy met, for a fault of the network."""
    resumed: float
    """Seconds from its end until every worker worked; 0 where nobody asked."""


@dataclass(slots=True)
class Result:
    """What came of a campaign."""

    verdict: Verdict
    producers: Producers
    incidents: list[Incident]
    overlaps: dict[str, Counter[str]]
    """By kind: how many there were, how many met work, runs and calls met, calls that failed."""
    done_to_workers: Counter[str]
    problems: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything held."""
        return self.verdict.ok and not self.problems

    def lines(self) -> list[str]:
        """Return a report, a fact a line."""
        verdict = self.verdict
        return [
            HEAD,
            *(self._row(kind) for kind in self.overlaps),
            f"done to workers     {dict(self.done_to_workers)}",
            f"  met running jobs  {dict(verdict.met)}",
            f"faults              {len(self.incidents) + self.done_to_workers.total()}",
            f"jobs acknowledged   {verdict.jobs:,}, {self.producers.unsure.total()} sent again unsure",
            f"runs                {verdict.runs:,}",
            f"lost                {len(verdict.lost)} {verdict.lost[:5]}",
            f"run twice           {verdict.duplicates} (bound by what was under way: {verdict.bound})",
            f"unexplained         {len(verdict.unexplained)}",
            *(f"  {text}" for text in verdict.unexplained[:5]),
            *(f"{name:<19} {value}" for name, value in self.facts.items()),
            *(f"PROBLEM: {problem}" for problem in self.problems),
        ]

    def _row(self, kind: str) -> str:
        row = self.overlaps[kind]
        found = [incident for incident in self.incidents if incident.kind == kind]
        hits = sum(incident.hits for incident in found)
        resumed = max(incident.resumed for incident in found)
        return (
            f"{kind:<24} {row['times']:>5} {row['met']:>4} {row['runs']:>6} {row['calls']:>6} "
            f"{row['failed']:>6} {hits:>5}  {resumed:.2f}"
        )
