"""Long jobs: each run goes on from the last checkpoint, and what is said of a job never goes back.

A cursor is a value that runs write and read, so the rule is that of any register: a run may find
what was written last, or what somebody wrote meanwhile whose call had no answer, and nothing else. All
that happens has a number, since at one instant of virtual time there may be several.

* The end of a job removes its cursor. Who ran it to an end, and is told afterwards that it was another's
  job by then, does so all the same; so after such an end a run may find nothing.
* A process that has lost the job to another, and lives on, may still write: that is one more write. What
  it says of how far the job is, and when that is written, is nothing that others could rely on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from goose.clients import Client
from goose.features.checkpoints import Checkpoints
from goose.features.results.progress import Progress, latest
from goose.jobs import JSON, Job
from goose.testing.simulator import functions
from goose.testing.simulator.features.acts import Act, Cast, Enqueuing, Task
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.features.ledger import ENDED
from goose.testing.simulator.features.worker import AtOnce
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import Kind
from goose.testing.simulator.timeline import Place

_KINDS = [
    *[Kind.FINE] * 5,
    *[Kind.FLAKY] * 2,
    *[Kind.DOOMED, Kind.HOPELESS, Kind.BURIES, Kind.SKIPS, Kind.POSTPONES],
]
_OVER = ("fine", "skipped", "cancelled")
LOOK = 2.0
"""Seconds between two looks of a client at most."""


@dataclass(slots=True, eq=False)
class Write:
    """One call that stores a cursor; None is what there was before the first."""

    cursor: JSON
    began: float
    ended: float = math.inf
    surely: bool = False
    """Whether it is stored for certain."""


@dataclass(slots=True, eq=False)
class Word:
    """What one run said once."""

    place: Place
    step: int
    at: float
    """When that was."""


class Running:
    """One run of one job: a `Run`."""

    def __init__(self, act: Longs, job: Job[Any], place: Place) -> None:
        self._act = act
        self._job = job
        self._place = place
        self._asked = 0
        self._write = Write(None, 0.0)

    def asks(self) -> None:
        """See `Run.asks`."""
        self._asked = self._act.tick()

    def found(self, cursor: JSON) -> int:
        """See `Run.found`."""
        self._act.check_cursor(self._job, cursor, self._asked, "begins at")
        return _step_of(cursor)

    def keeps(self, step: int) -> JSON:
        """See `Run.keeps`."""
        now = self._act.tick()
        self._write = Write([self._job.id, step, now], now)
        self._act.writes[self._job.id].append(self._write)
        return self._write.cursor

    def kept(self, *, surely: bool) -> None:
        """See `Run.kept`."""
        self._write.surely, self._write.ended = surely, self._act.tick()

    def says(self, step: int) -> str:
        """See `Run.says`."""
        words = self._act.words[self._job.id]
        words.append(Word(self._place, step, self._act.ledger.now()))
        return str(len(words) - 1)


class Watching(Enqueuing):
    """Enqueues one long job, and looks how far it is until it has ended."""

    def __init__(self, act: Longs, number: int) -> None:
        super().__init__(act, number)
        self._longs = act
        self._job_id = ""

    def step(self, caller: Caller) -> float | None:
        """Enqueue or submit it; then look."""
        if not self._job_id:
            return super().step(caller)
        self._longs.look(caller.client, self._job_id)
        over = self._longs.ledger.entries[self._job_id].state in ENDED
        return None if over else self._longs.random.uniform(0.0, LOOK)

    def stored(self, job: Job[Any]) -> float | None:
        """See `Enqueuing.stored`."""
        self._job_id = job.id
        return 0.0


class Longs(Act):
    """A few jobs that do their work in steps, and keep how far they are."""

    long = True

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self.random = chance = cast.random
        self._numbers = [
            number
            for _ in range(chance.randint(3, 6))
            for number in cast.take(
                1,
                kind=chance.choice(_KINDS),
                is_async=chance.random() < 0.75,
                seconds=chance.uniform(1.0, 25.0),
                steps=chance.randint(2, 6),
                polite=chance.random() < 0.4,
            )
        ]
        self.writes: defaultdict[str, list[Write]] = defaultdict(lambda: [Write(None, 0.0, 0.0)])
        self.words: defaultdict[str, list[Word]] = defaultdict(list)
        """By job: all that runs of it said, in that order."""
        self._jobs: dict[str, Job[Any]] = {}
        self._ticks = 0
        self._shown: dict[str, int] = {}
        """By job: the last word that a client was shown."""

    @property
    def numbers(self) -> Sequence[int]:
        """See `Act.numbers`."""
        return self._numbers

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        self.ledger.follow_runs(self._runs)
        return [Watching(self, number) for number in self._numbers]

    def fn(self, number: int) -> Any:
        """See `Act.fn`."""
        return functions.long_work_async if self.parts[number].is_async else functions.long_work

    def tick(self) -> int:
        """Return the number of what happens now."""
        self._ticks += 1
        return self._ticks

    def _runs(self, job: Job[Any]) -> Running:
        self._jobs[job.id] = job
        return Running(self, job, self.ledger.entries[job.id].loans[-1].place)

    # --- cursors --------------------------------------------------------------------------

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check that only failures have cost it attempts."""
        self.ledger.check_attempts(entry)

    def check_cursor(self, job: Job[Any], cursor: JSON, asked: int, does: str) -> None:
        """Check that a run which *asked* then may be told *cursor*."""
        ledger, entry = self.ledger, self.ledger.entries[job.id]
        number, writes = entry.part.number, self.writes[job.id]
        write = next((each for each in writes if each.cursor == cursor), None)
        ledger.seen[f"a long job {does} {'nothing' if cursor is None else 'a cursor'}"] += 1
        if write is None:
            ledger.wrong(f"job {number} {does} {cursor}, which no run of it has kept")
            return
        later = [w for w in writes if w.surely and w.began > write.ended and w.ended < asked]
        over = cursor is None and any(loan.ending in _OVER for loan in entry.loans)
        if later and not over:
            ledger.wrong(f"job {number} {does} {cursor}, and {later[-1].cursor} was kept")

    def _left(self, job_id: str, entry: Entry) -> bool:
        """Say whether there is a cursor that should have gone with its job.

        A process that ends by then leaves it to time.
        """
        loan = entry.loans[-1]
        if entry.state != "done" or loan.ending is None or self.ledger.strays(entry):
            return False
        return loan.place.alive and self._stored(job_id) is not None

    def _stored(self, job_id: str) -> JSON:
        checkpoints = Checkpoints(lambda: self.store)
        checkpoints.threads = AtOnce()
        return checkpoints.load(self._jobs[job_id]).result()

    # --- words ----------------------------------------------------------------------------

    def look(self, client: Client, job_id: str) -> None:
        """Have a client look how far that job is, and check what it is told."""
        before = self._shown.get(job_id, -1)
        progress = client.progress(job_id)
        entry = self.ledger.entries[job_id]
        shown = self._place_of(job_id, entry, progress)
        self.ledger.seen["a client was told how far a job is"] += shown >= 0
        if shown < before and not self.ledger.strays(entry):
            self.ledger.wrong(f"job {entry.part.number} said {before}, and now it said {shown}")
        self._shown[job_id] = max(shown, self._shown.get(job_id, -1))

    def _place_of(self, job_id: str, entry: Entry, progress: Progress | None) -> int:
        """Return which of the words of that job this is, -1 for none."""
        if progress is None:
            return -1
        place = int(progress.note)
        word = self.words[job_id][place]
        if (progress.done, progress.total) != (word.step, entry.part.steps):
            self.ledger.wrong(f"job {entry.part.number} never said {progress}")
        return place

    def _hidden(self, job_id: str, entry: Entry) -> str:
        """Return what is wrong if the last word is not shown: of whoever ended the job and lives."""
        shown = self._place_of(job_id, entry, latest(self.store, job_id))
        last, loan = len(self.words[job_id]) - 1, entry.loans[-1]
        own = loan.run_at is not None and last >= 0 and self.words[job_id][last].place is loan.place
        if own and loan.place.alive and shown < last and not self.ledger.strays(entry):
            return f"job {entry.part.number} said {last} last, and {shown} is shown"
        return ""

    # --- the end --------------------------------------------------------------------------

    def _all(self) -> list[tuple[str, Entry]]:
        """Return all jobs that have begun to run."""
        playing = [each for number in self._numbers for each in self.ledger.playing(number)]
        return [(job_id, entry) for job_id, entry in playing if job_id in self._jobs]

    @property
    def is_done(self) -> bool:
        """See `Act.is_done`."""
        return not any(self._left(*each) or self._hidden(*each) for each in self._all())

    def close(self) -> None:
        """Check what is left of each job."""
        for job_id, entry in self._all():
            if self._left(job_id, entry):
                self.ledger.wrong(f"job {entry.part.number} has ended, and its cursor is there")
            if entry.state == "dead":
                cursor = self._stored(job_id)
                self.check_cursor(self._jobs[job_id], cursor, self.tick(), "is dead at")
            if hidden := self._hidden(job_id, entry):
                self.ledger.wrong(hidden)


def _step_of(cursor: JSON) -> int:
    step = cursor[1] if isinstance(cursor, list) else 0
    assert isinstance(step, int)
    return step
