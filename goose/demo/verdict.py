"""Whether everything was done, and done right, in the demo.

The expected measurements are made here from the files themselves, by other means than the
jobs use: so a result that is missing, mixed up or half written does not pass.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from goose._words import several
from goose.demo.crew import Kill
from goose.demo.files import File
from goose.demo.history import History
from goose.demo.work import LEVEL

_WORD = re.compile(rb"\S+")


@dataclass(frozen=True, slots=True)
class Work:
    """One job of the demo."""

    number: int
    file: File
    due: float
    """Epoch seconds."""
    scheduled: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How the workers and the queue were left."""

    exit_code: int | None
    """Of the supervisor; None if it had to be ended."""
    stored: int | None = 0
    """Jobs that were still scheduled, ready or running; None where nobody can tell."""
    dead: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """The numbers of one demo. Durations are seconds."""

    jobs: int
    done: int
    scheduled: int
    retried: int
    """Runs that failed and were followed by another."""
    kills: Sequence[Kill]
    recovered: int
    """Jobs that were under way in a killed process and came to a good end later."""
    run_twice: int
    """Jobs that came to a good end more than once."""
    unexplained: int
    """Those among them whose earlier run was in no killed process."""
    lost: int
    dead: int
    wrong: int
    changed: int
    """Files that changed while the demo ran, so that there was nothing to compare with."""
    seconds: float
    """From the first start of a job to the last end of one."""
    latency_p50: float
    """From due to done; half of the jobs took no longer."""
    latency_p99: float
    problems: Sequence[str] = field(default_factory=list)
    """Why the demo failed; empty if all is well."""

    @property
    def jobs_per_second(self) -> float:
        """Good ends per second while jobs ran."""
        return self.done / self.seconds if self.seconds > 0 else 0.0


def judge(
    works: Sequence[Work],
    history: History,
    kills: Sequence[Kill],
    wanted_kills: int,
    results: Path,
    ending: Ending,
) -> Report:
    """Return what came of *works*."""
    killed = {kill.pid for kill in kills}
    runs = [run for work in works for run in history.runs.get(work.number, ())]
    done = [work for work in works if work.number in history.done]
    again = [work for work in done if len(_good_ends(history, work)) > 1]
    found = {work.number: _result(results, work) for work in done}
    undone = len(works) - sum(result is not None for result in found.values())
    latencies = sorted(_good_ends(history, work)[0][0] - work.due for work in done)
    ends = [run.end for run in runs if run.end is not None]
    compared = [
        _compare(work, result) for work in done if (result := found[work.number]) is not None
    ]
    report = Report(
        jobs=len(works),
        done=len(works) - undone,
        scheduled=sum(work.scheduled for work in works),
        retried=sum(run.failed for run in runs),
        kills=list(kills),
        recovered=len({r.number for r in runs if r.end is None and r.pid in killed} & history.done),
        run_twice=len(again),
        unexplained=sum(
            any(pid not in killed for _, pid in _good_ends(history, work)[:-1]) for work in again
        ),
        # Where nobody can tell what is still stored, what was not done counts as just that.
        lost=0 if ending.stored is None else max(0, undone - ending.stored - ending.dead),
        dead=ending.dead,
        wrong=compared.count("wrong"),
        changed=compared.count("changed"),
        seconds=max(ends) - min(run.start for run in runs) if ends else 0.0,
        latency_p50=_quantile(latencies, 0.50),
        latency_p99=_quantile(latencies, 0.99),
    )
    return _with_problems(report, wanted_kills, ending)


def _good_ends(history: History, work: Work) -> list[tuple[float, int]]:
    """Return when and in which process the job came to a good end, in order."""
    runs = history.runs[work.number]
    return sorted((run.end, run.pid) for run in runs if run.end is not None and not run.failed)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _with_problems(report: Report, wanted_kills: int, ending: Ending) -> Report:
    unfinished = report.jobs - report.done - report.lost - report.dead
    hit = sum(kill.jobs > 0 for kill in report.kills)
    found = {
        f"{several(report.lost)} lost": report.lost,
        f"{several(report.dead)} dead": report.dead,
        f"{several(unfinished)} not done in time": unfinished > 0,
        several(report.wrong, "wrong result"): report.wrong,
        f"{several(report.unexplained)} ran twice, and no kill explains it": report.unexplained,
        f"only {hit} of {wanted_kills} kills hit jobs under way": hit < wanted_kills,
        f"goose worker ended with exit code {ending.exit_code}": ending.exit_code != 0,
    }
    return replace(report, problems=[text for text, is_so in found.items() if is_so])


# --- results -----------------------------------------------------------------------------


def _result(folder: Path, work: Work) -> Mapping[str, object] | None:
    try:
        found = json.loads((folder / f"{work.number}.json").read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {"error": "not JSON"}
    return found if isinstance(found, dict) else {"error": "no object"}


def _compare(work: Work, result: Mapping[str, object]) -> str:
    wanted = expected(work.file)
    if result == wanted:
        return "right"
    return "changed" if wanted is None or not work.file.unchanged() else "wrong"


@cache
def expected(file: File) -> Mapping[str, object] | None:
    """Return what the job on *file* must have found; None if the file cannot be read any more."""
    lines = words = 0
    try:
        with open(file.path, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            size = opened.tell()
            opened.seek(0)
            for line in opened:
                lines += line.endswith(b"\n")
                words += len(_WORD.findall(line))
            opened.seek(0)
            packer = zlib.compressobj(LEVEL)
            packed = len(packer.compress(opened.read()) + packer.flush())
    except OSError:
        return None
    return {"bytes": size, "sha256": digest, "lines": lines, "words": words, "compressed": packed}
