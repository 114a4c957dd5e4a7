"""Calls for a key of which each makes a job of its own, or is answered with another's.

What a client did in between is not seen from outside. So a `Try` has two moments, and all that
is said of it holds wherever between them it claimed its key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from goose.clients import Client
from goose.errors import EnqueueError
from goose.features.uniques.records import CLAIM
from goose.jobs import Job
from goose.testing.simulator.features.acts import Act, Cast, Task
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import Kind


@dataclass(slots=True, eq=False)
class Try:
    """What one client did about one call."""

    number: int
    """The part that its job plays, if it makes one."""
    began: float
    asked: float
    """When it asked last."""
    ended: float = math.inf
    """When its client got an answer, or died; infinity while it is at it."""
    answer: str = ""
    """The job that it was answered with; empty if it was not."""
    late: bool = False
    """Whether one of its enqueues took so long that its claim may have gone to another."""


class Calling(Act):
    """One key that several calls ask for, and at the end one more.

    Args:
        cast: Where it takes its parts.
    """

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        chance = cast.random
        is_async = chance.random() < 0.3  # a key belongs to a function
        self.calls = cast.take(chance.randint(4, 9), is_async=is_async, delay=None)
        self._at = {number: chance.uniform(0.0, cast.stormy * 0.8) for number in self.calls}
        fine: dict[str, Any] = {"kind": Kind.FINE, "seconds": 0.5}
        [self.probe] = cast.take(1, is_async=is_async, delay=None, **fine)
        self.tries: list[Try] = []

    @property
    def numbers(self) -> Sequence[int]:
        """See `Act.numbers`."""
        return [*self.calls, self.probe]

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        return [Call(self, number, at) for number, at in self._at.items()]

    def answered(self, call: Try) -> None:
        """Note that a client has its answer."""

    def made(self, job_id: str, entry: Entry) -> list[Try]:
        """Return the tries that may have made that job."""
        mine = [each for each in self.tries if each.number == entry.part.number]
        return [each for each in mine if each.answer == job_id] or mine

    def ran(self, number: int) -> bool:
        """Say whether a job of that part has run and is done."""
        playing = self.ledger.playing(number)
        return any(its.state == "done" and id_ not in self.ledger.unrun for id_, its in playing)


class Call(Task):
    """One call, submitted again until its client knows what came of it."""

    def __init__(self, act: Calling, number: int, at: float) -> None:
        super().__init__(at)
        self._act = act
        self._number = number
        self._failed: EnqueueError | None = None
        self._try: Try | None = None

    def step(self, caller: Caller) -> float | None:
        """Enqueue, or submit what was not confirmed."""
        act, now = self._act, self._act.ledger.now
        if self._try is None:
            self._try = Try(self._number, now(), now())
            act.tries.append(self._try)
        call = self._try
        call.asked = now()
        try:
            job = self._job(act.asking(caller.client))
        except EnqueueError as error:
            self._failed = error
            act.ledger.doubt(job.id for job in error.jobs)
            raise
        finally:
            call.late |= now() - call.asked > CLAIM
        call.ended, call.answer = now(), job.id
        act.ledger.say(f"call {self._number} is answered with job {job.args[0]}")
        act.answered(call)
        return None

    def _job(self, client: Client) -> Job[Any]:
        if self._failed is not None:
            [job] = client.submit(self._failed.jobs)
            return job
        return client.enqueue(self._act.fn(self._number), self._number)

    def forget(self) -> None:
        """See `Task.forget`."""
        if self._try is not None:
            self._try.ended = self._act.ledger.now()
        self._failed = self._try = None
