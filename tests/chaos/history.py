"""What happened in a campaign, and whether it was right: a total-queue checker.

Every acknowledged enqueue must end as done, dead or still stored; every run is on record
with its process; every job that ran to its end more than once must be explained by a fault
that met its earlier run before that was settled, or by an enqueue that was repeated because
nobody knew whether the first one had arrived. Source: the total-queue model of Jepsen's tests.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

SETTLED_WITHIN = 10.0
"""Seconds after its end in which a run may be unsettled for no other reason than a crowded
machine, a slow disk or a process that stood still with the file's lock in its hands."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one job."""

    name: str
    pid: int
    start: float
    end: float | None
    """None if the run never came to its end."""
    settled: float | None = None
    """When the broker had said that the outcome was settled; None if it never did."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something done to a process, at a monotonic instant or from there on for a while."""

    kind: str
    pid: int
    at: float
    until: float | None = None
    """The end, where it lasted."""
    forgets: bool = False
    """Whether the server forgot what it had answered in this time, as it says that it may."""
    since: float | None = None
    """The beginning of the server's fault it fell into, if it did: what ends from there on is not settled
    before the server is back."""


@dataclass(slots=True)
class Verdict:
    """What the checker found."""

    jobs: int
    runs: int
    lost: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    duplicates: int = 0
    """Further runs of jobs that had been started before."""
    bound: int = 0
    """Jobs started and not surely acked when a fault met their process, over all faults."""
    met: Mapping[str, int] = field(default_factory=dict)
    """Faults by kind that met at least one running job."""

    @property
    def ok(self) -> bool:
        """Whether nothing was lost and everything that ran twice is explained."""
        return not self.lost and not self.unexplained and self.duplicates <= self.bound


def read_marks(folder: Path) -> list[Run]:
    """Return all runs on record, in no order; a failed attempt is a run with an end."""
    runs: list[Run] = []
    for path in folder.glob("*.marks"):
        pid = int(path.stem)
        # Two copies of one job may run at once; one that was interrupted has no end.
        begun: defaultdict[str, list[Run]] = defaultdict(list)
        ended: dict[str, Run] = {}
        names: dict[str, str] = {}
        for line in path.read_text().splitlines():
            what, name, at, *known = line.split()
            if what == "start":
                begun[name].append(Run(name, pid, float(at), None))
                names[known[0]] = name
            elif what in ("end", "fail"):
                runs += _taken(ended, name)
                ended[name] = replace(begun[name].pop(), end=float(at))
            elif what == "settled":
                runs += [
                    replace(run, settled=float(at))
                    for run in _taken(ended, names.get(name, ""))  # some jobs leave no marks
                ]
        runs += [*(run for open_ in begun.values() for run in open_), *ended.values()]
    return runs


def _taken(runs: dict[str, Run], name: str) -> list[Run]:
    """Take the run of that *name* out of *runs*, if it is there."""
    return [runs.pop(name)] if name in runs else []


def check(
    acknowledged: Iterable[str],
    runs: Iterable[Run],
    faults: Iterable[Fault],
    still_stored: Iterable[str] = (),
    retried: Iterable[str] = (),
    unsure: Mapping[str, int] | None = None,
    unwritten: float = 0.0,
    copies: bool = False,
) -> Verdict:
    """Return what is wrong with a history.

    Args:
        acknowledged: Names of the jobs whose enqueue returned.
        runs: All runs on record.
        faults: All faults, with the processes they met.
        still_stored: Names of jobs that are dead, ready or scheduled at the end.
        retried: Names of jobs that fail once, or are interrupted, and so run twice by design.
        unsure: How often the enqueue of a job was repeated without knowledge of the outcome;
            the id of a job that is done is stored again.
        unwritten: Seconds for which a server may keep an ack back that it has answered; it forgets
            it if the worker, or it itself, ends meanwhile.
        copies: Whether a retry may be stored twice when a fault meets the run before it is settled.
    """
    expected, stored, twice = set(acknowledged), set(still_stored), set(retried)
    by_name: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.start):
        by_name[run.name].append(run)
    by_pid: dict[int, list[Fault]] = defaultdict(list)
    for fault in faults:
        by_pid[fault.pid].append(fault)

    verdict = Verdict(len(expected), sum(map(len, by_name.values())))
    met: dict[str, int] = defaultdict(int)
    for pid, known in by_pid.items():
        for fault in known:
            hit = sum(
                _met(run, fault) for found in by_name.values() for run in found if run.pid == pid
            )
            verdict.bound += hit
            met[fault.kind] += hit > 0
    verdict.met = dict(met)
    for name in expected:
        found = by_name[name]
        if not any(run.end is not None for run in found) and name not in stored:
            verdict.lost.append(name)
        repeats = (unsure or {}).get(name, 0)
        by_design = int(name in twice)
        if copies and by_design:
            repeats += any(_met(run, at) for run in found for at in by_pid[run.pid] if run.settled)
        verdict.bound += repeats
        verdict.duplicates += max(0, len(found) - 1 - by_design)
        # The last to start need not be the one that counts: one that was cut off and had the job in
        # its hands may start it when others have done it.
        strange = [
            run
            for place, run in enumerate(found)
            if not any(
                _explains(fault, _overtaken(run, found[place + 1 :]), unwritten)
                for fault in by_pid[run.pid]
            )
        ]
        if len(strange) > 1 + repeats + by_design:
            verdict.unexplained.append(f"{name}: {found}")
    return verdict


def _overtaken(run: Run, later: Iterable[Run]) -> Run:
    """Return *run*, without its settling if the job was lent again before that."""
    if run.settled is not None and any(other.start < run.settled for other in later):
        return replace(run, settled=None)
    return run


def _explains(fault: Fault, run: Run, unwritten: float) -> bool:
    """Say whether the job may run again because of *fault*.

    What is settled may not, but by design, because it was enqueued again, or was forgotten.
    """
    if run.settled is None:
        return _met(run, fault)
    until = fault.at if fault.until is None else fault.until
    forgotten = fault.forgets and fault.at <= run.settled <= until
    kept_back = run.settled < fault.at <= run.settled + unwritten
    return run.pid == fault.pid and (forgotten or kept_back)


def _met(run: Run, fault: Fault) -> bool:
    """Say whether *fault* met *run*: while it ran, or before it was settled."""
    over = run.settled if run.settled is not None or run.end is None else run.end + SETTLED_WITHIN
    since = fault.at if fault.since is None else fault.since
    return (
        run.pid == fault.pid
        and run.start <= (fault.at if fault.until is None else fault.until)
        and (over is None or since <= over)
    )
