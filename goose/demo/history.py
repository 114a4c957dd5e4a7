"""What ran where and when, read from the marks that jobs leave."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Run:
    """One run of one job. Instants are epoch seconds."""

    number: int
    pid: int
    start: float
    end: float | None = None
    """None while it runs, and for ever if its process was killed."""
    failed: bool = False


class History:
    """The runs on record in a folder of marks; `read` takes in what is new. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[int, int] = defaultdict(int)
        self.runs: dict[int, list[Run]] = defaultdict(list)
        """All runs of each job, by its number."""
        self._open: dict[int, dict[int, Run]] = defaultdict(dict)
        self.done: set[int] = set()
        """Numbers of the jobs that came to a good end at least once."""

    def read(self) -> None:
        """Take in the marks that were made since the last call."""
        for path in self._folder.iterdir():
            pid = int(path.name)
            with path.open("rb") as file:
                file.seek(self._read[pid])
                # Up to the last whole line, should one just be written.
                text, newline, _ = file.read().rpartition(b"\n")
            self._read[pid] += len(text) + len(newline)
            for line in text.decode().splitlines():
                what, number, at = line.split()
                self._note(pid, what, int(number), float(at))

    def _note(self, pid: int, what: str, number: int, at: float) -> None:
        if what == "start":
            run = self._open[pid][number] = Run(number, pid, at)
            self.runs[number].append(run)
            return
        run = self._open[pid].pop(number)
        run.end, run.failed = at, what == "fail"
        if not run.failed:
            self.done.add(number)

    def pids(self) -> list[int]:
        """Return the processes that have run jobs, in the order they were seen."""
        return list(self._read)

    def under_way(self, pid: int) -> list[int]:
        """Return the jobs that process has begun and not ended."""
        return list(self._open[pid])
