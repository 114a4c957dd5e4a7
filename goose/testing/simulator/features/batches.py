"""Batches: callbacks come after the last member has ended, and they do come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from goose.batching import Batch
from goose.calls import Call
from goose.errors import BrokerError, EnqueueError
from goose.features.batches.book import Batches as Book
from goose.features.batches.members import SHARD, kinds
from goose.features.batches.records import Record, shard_key
from goose.stores.base import Get
from goose.testing.simulator.features.acts import Act, Cast, Task
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import Kind

_CALLBACKS = (Kind.FINE, Kind.FINE, Kind.FLAKY, Kind.DOOMED, Kind.POSTPONES)
_NAMES = {"done": 7, "skipped": 6, "dead": 5, "cancelled": 4}
"""By ending: the kind of a member, as the store has it."""


@dataclass(slots=True, eq=False)
class Planned:
    """One batch as it is to be."""

    name: str
    at: float
    members: list[int]
    complete: int
    """Called when all have ended."""
    success: int
    """Called when all have succeeded."""
    sealed: bool = False
    """Whether its client knows that all members are in."""


class Filling(Task):
    """Puts members into a batch one after the other; begins again by its name if a call fails."""

    def __init__(self, act: Batches, planned: Planned, pause: float) -> None:
        super().__init__(planned.at)
        self._act = act
        self._planned = planned
        self._pause = pause
        self._batch: Batch | None = None
        self._place = 0

    def step(self, caller: Caller) -> float | None:
        """Open the batch, put in the next member, or seal it."""
        planned, act = self._planned, self._act
        try:
            if self._batch is None:
                self._batch = self._open(caller)
            elif self._place < len(planned.members):
                number = planned.members[self._place]
                self._batch.enqueue(act.fn(number), number)
                self._place += 1
            else:
                self._batch.seal()
                planned.sealed = True
                return None
        except (BrokerError, EnqueueError):
            self.forget()
            raise
        return self._pause

    def _open(self, caller: Caller) -> Batch:
        planned, act = self._planned, self._act
        return caller.client.batch(
            name=planned.name,
            resume=True,
            on_complete=Call(act.fn(planned.complete), (planned.complete,), {}),
            on_success=Call(act.fn(planned.success), (planned.success,), {}),
        ).open()

    def forget(self) -> None:
        """See `Task.forget`."""
        self._batch, self._place = None, 0


class Batches(Act):
    """One or two batches, each with both callbacks."""

    once = True
    copies = True
    name = "batch"
    """What the names of its batches begin with."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self.batches = [
            self._plan(cast, f"{self.name}{n}") for n in range(cast.random.randint(1, 2))
        ]
        self._pauses = [cast.random.choice([0.0, 0.5, 4.0]) for _ in self.batches]
        self._called: dict[int, Planned] = {}
        for each in self.batches:
            self._called[each.complete] = self._called[each.success] = each

    def _plan(self, cast: Cast, name: str) -> Planned:
        chance = cast.random
        members = cast.take(chance.randint(1, 5))
        if chance.random() < 0.5:  # else nearly every batch has a dead one
            cast.spare(members)
        [complete] = cast.take(1, kind=chance.choice(_CALLBACKS))
        [success] = cast.take(1, kind=chance.choice(_CALLBACKS))
        return Planned(name, chance.uniform(0.0, 15.0), members, complete, success)

    @property
    def numbers(self) -> Sequence[int]:
        """See `Act.numbers`."""
        return [n for each in self.batches for n in (*each.members, each.complete, each.success)]

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        pairs = zip(self.batches, self._pauses, strict=True)
        return [Filling(self, planned, pause) for planned, pause in pairs]

    def endings(self, number: int) -> set[str]:
        """Return how that part has ended so far, as whichever job."""
        playing = self.ledger.playing(number)
        return {ending for _, entry in playing for ending in self.ledger.endings(entry)}

    def stored(self, job_id: str, entry: Entry) -> None:
        """Check that what calls back has a reason to."""
        number = entry.part.number
        batch = self._called.get(number)
        if batch is None:
            return
        good = {"done", "skipped"}
        self.ledger.seen["on_success" if number == batch.success else "on_complete"] += 1
        for member in batch.members:
            ended = self.endings(member)
            if not ended:
                self.ledger.wrong(f"{batch.name} calls back before member {member} has ended")
            elif number == batch.success and not ended & good:
                self.ledger.wrong(f"{batch.name} calls it a success, and member {member} is dead")

    def _record(self, batch: Planned) -> Record | None:
        return Book(self.store, lambda _: None).named(batch.name)

    @property
    def is_done(self) -> bool:
        """See `Act.is_done`."""
        records = [self._record(batch) for batch in self.batches]
        return all(record is not None and record.phase == "ended" for record in records)

    def close(self) -> None:
        """Check that each batch has ended as its members did, and has called back."""
        for batch in self.batches:
            record = self._record(batch)
            if record is None or record.phase != "ended":
                phase = "not there" if record is None else record.phase
                self.ledger.wrong(f"{batch.name} is stuck: it is {phase}")
                continue
            found = self._kinds(batch, record)
            good = all(kind >= _NAMES["skipped"] for kind in found)
            status = "success" if good else "partial" if max(found) > _NAMES["dead"] else "dead"
            if record.status != status:
                self.ledger.wrong(f"{batch.name} is {record.status}, its members say {status}")
            self.ledger.seen[f"a batch ended: {status}"] += 1
            called = {number for number in (batch.complete, batch.success) if self._ran(number)}
            due = {batch.complete, batch.success} if good else {batch.complete}
            if called != due:
                self.ledger.wrong(f"{batch.name} called {sorted(called)} back, not {sorted(due)}")

    def _kinds(self, batch: Planned, record: Record) -> list[int]:
        """Return of what kind each member is, by the store; each must have a reason."""
        assert len(batch.members) <= SHARD
        [value] = self.store.apply([Get(shard_key(record.id, 0))])
        found = list(kinds(value))
        if len(found) != len(batch.members):
            self.ledger.wrong(f"{batch.name} counts {len(found)} of {len(batch.members)} members")
        for number, kind in zip(batch.members, found, strict=False):
            endings = self.endings(number)
            playing = [entry for _, entry in self.ledger.playing(number)]
            loans = [loan for entry in playing for loan in entry.loans]
            if any((loan.ending, loan.verb) == ("fine", "ack") for loan in loans):
                endings = {"done"}  # nothing can undo that
            self.ledger.seen["a member was cancelled"] += kind == _NAMES["cancelled"]
            if kind not in {_NAMES[ending] for ending in endings}:
                self.ledger.wrong(f"member {number} is of kind {kind}, and ended as {endings}")
        return found

    def _ran(self, number: int) -> bool:
        return bool(self.endings(number))
