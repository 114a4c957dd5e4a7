"""Unique jobs: never two that hold one key, and no key is ever stuck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from goose.errors import EnqueueError
from goose.features.uniques.records import CLAIM
from goose.jobs import Job
from goose.testing.simulator.features.acts import Act, Cast, Task
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.features.ledger import ENDED
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import Kind


@dataclass(slots=True, eq=False)
class Key:
    """One key, and the parts that ask for it."""

    text: str
    until: Literal["started", "done"]
    calls: list[int]
    probe: int
    """Asks for it at the end, and must get it."""


class Call(Task):
    """One call for a key, submitted again until its client knows that it is stored."""

    def __init__(self, act: Uniques, key: Key, number: int) -> None:
        super().__init__(act.parts[number].enqueued_at)
        self.number = number
        self.key = key
        self._act = act
        self._failed: EnqueueError | None = None
        self.began = 0.0

    def step(self, caller: Caller) -> None:
        """Enqueue, or submit what was not confirmed."""
        client = caller.client.using(unique=self.key.text, until=self.key.until)
        part, fn = self._act.parts[self.number], self._act.fn(self.number)
        self.began = self._act.ledger.now()
        try:
            if self._failed is not None:
                [job] = client.submit(self._failed.jobs)
            elif part.delay is None:
                job = client.enqueue(fn, self.number)
            else:
                job = client.enqueue_in(part.delay, fn, self.number)
        except EnqueueError as error:
            self._failed = error
            self._act.ledger.doubt(job.id for job in error.jobs)
            raise
        self._act.answered(self, job)

    def forget(self) -> None:
        """See `Task.forget`."""
        self._failed = None


class Uniques(Act):
    """One or two keys that several calls ask for."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        chance = cast.random
        self._promised: dict[str, Key] = {}
        """By id: jobs that clients were told of."""
        self._late: set[str] = set()
        self._keys: list[Key] = []
        for number in range(chance.randint(1, 2)):
            is_async = chance.random() < 0.3  # a key belongs to a function
            until: Literal["started", "done"] = "started" if chance.random() < 0.2 else "done"
            calls = cast.take(chance.randint(3, 6), is_async=is_async)
            probe = cast.take(1, is_async=is_async, kind=Kind.FINE, seconds=0.5, delay=None)
            self._keys.append(Key(f"key {number}", until, calls, probe[0]))
        self._key_of = {number: key for key in self._keys for number in (*key.calls, key.probe)}

    @property
    def numbers(self) -> Sequence[int]:
        """See `Act.numbers`."""
        return list(self._key_of)

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        return [Call(self, key, number) for key in self._keys for number in key.calls]

    def probes(self) -> list[Task]:
        """See `Act.probes`."""
        return [Call(self, key, key.probe) for key in self._keys]

    def _others(self, key: Key, job_id: str) -> list[tuple[str, Entry]]:
        """Return the jobs of *key* but that one."""
        numbers = (*key.calls, key.probe)
        found = [each for number in numbers for each in self.ledger.playing(number)]
        return [(other, entry) for other, entry in found if other != job_id]

    def answered(self, call: Call, job: Job[Any]) -> None:
        """Check the answer of a call: at most one job that is promised is still to end."""
        ledger, key = self.ledger, call.key
        number: Any = job.args[0]
        ledger.say(f"call {call.number} for {key.text} is answered with job {number}")
        ledger.seen["a unique call got its own job" if number == call.number else _OTHERS] += 1
        self._promised[job.id] = key
        entry = ledger.entries.get(job.id)
        if call.number == key.probe != number and not self._may_keep(entry):
            ledger.wrong(f"{key.text} is stuck with job {number}")
        late = ledger.now() - call.began > CLAIM
        if late:
            # Its claim has gone to another, which may have ended by now.
            self._late.add(job.id)
        if not ledger.shows:
            return  # one that could not be confirmed may have been superseded
        if late or key.until != "done" or entry is None or not self._is_live(entry):
            return
        for other, its in self._others(key, job.id):
            if other in self._promised and other not in self._late and self._is_live(its):
                ledger.wrong(f"jobs {number} and {its.part.number} both have {key.text}")

    def _may_keep(self, entry: Entry | None) -> bool:
        """Say whether that job may have its key for good, since the broker does not show it.

        A process that had lost it may have taken the key for it once more, or a client that did not know
        that it was stored and dead.
        """
        if entry is None or self.ledger.shows:
            return False
        return bool(self.ledger.strays(entry)) or (entry.state == "dead" and entry.unsure)

    def _is_live(self, entry: Entry) -> bool:
        return entry.state not in ENDED and not self.ledger.endings(entry)

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check that no other job of its key runs.

        If a process that has lost a job to another lives on and ends it, that gives the key away.
        """
        key = self._key_of[entry.part.number]
        if key.until != "done":
            return
        for _, other in self._others(key, job_id):
            if self.ledger.running(other) is None:
                continue
            lost = [*self.ledger.strays(entry), *self.ledger.strays(other)]
            if all(loan.ending is None for loan in lost):
                numbers = f"{entry.part.number} and {other.part.number}"
                self.ledger.wrong(f"jobs {numbers} of {key.text} run at the same time")

    def close(self) -> None:
        """Check that every job that a client was told of was there, and ran."""
        for job_id, key in self._promised.items():
            entry = self.ledger.entries.get(job_id)
            if entry is None:
                self.ledger.wrong(f"a job was promised for {key.text}, and never stored")
            elif job_id in self.ledger.unrun and self.ledger.shows:
                self.ledger.wrong(f"job {entry.part.number} was promised for {key.text}, not run")


_OTHERS = "a unique call got another's job"
