"""What an act is: one feature's part in a world, what is asked for and what must hold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from goose.clients import Client
from goose.errors import EnqueueError
from goose.jobs import Job
from goose.stores.base import Store
from goose.testing.simulator import functions
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import REASONS, Kind, Part

if TYPE_CHECKING:
    from goose.testing.simulator.features.callers import Caller
    from goose.testing.simulator.features.ledger import FeatureLedger


class Task:
    """Something a client wants, in steps.

    A step that raises a `BrokerError` or an `EnqueueError` is made again a moment later. If the client
    dies, another one goes on, which knows only what a new process would.
    """

    def __init__(self, at: float) -> None:
        self.at = at
        """When the next step is due."""

    def step(self, caller: Caller) -> float | None:
        """Do the next thing; return the seconds until the one after it, None if that was all."""
        raise NotImplementedError

    def forget(self) -> None:
        """Lose what only the process knew that has died."""


class Enqueuing(Task):
    """Enqueues the job of one part, and submits it until its client knows that it is stored."""

    def __init__(self, act: Act, number: int) -> None:
        super().__init__(act.parts[number].enqueued_at)
        self.number = number
        self._act = act
        self._failed: EnqueueError | None = None

    def step(self, caller: Caller) -> float | None:
        """Enqueue, or submit what was not confirmed."""
        act, number = self._act, self.number
        act.asked(number)
        try:
            job = self._job(act.asking(caller.client))
        except EnqueueError as error:
            self._failed = error
            act.ledger.doubt(job.id for job in error.jobs)
            raise
        return self.stored(job)

    def _job(self, client: Client) -> Job[Any]:
        part, fn = self._act.parts[self.number], self._act.fn(self.number)
        if self._failed is not None:
            [job] = client.submit(self._failed.jobs)
            return job
        if part.delay is None:
            return client.enqueue(fn, self.number)
        return client.enqueue_in(part.delay, fn, self.number)

    def stored(self, job: Job[Any]) -> float | None:
        """Go on, now that *job* is stored; return as `step`."""
        return None

    def forget(self) -> None:
        """See `Task.forget`."""
        self._failed = None


class Cast:
    """The parts of a world, to be given to acts.

    Args:
        random: Draws what acts leave to chance.
        parts: All there are; those that nobody takes are not played.
        stormy: For how long things go wrong.
    """

    def __init__(self, random: random.Random, parts: list[Part], stormy: float) -> None:
        self.random = random
        self.parts = parts
        self.stormy = stormy
        self._taken = 0

    def take(self, count: int, **fixed: Any) -> list[int]:
        """Return the numbers of *count* parts, with what is *fixed* of them."""
        numbers = list(range(self._taken, self._taken + count))
        self._taken += count
        for number in numbers:
            self.parts[number] = replace(self.parts[number], **fixed)
        return numbers

    def spare(self, numbers: Sequence[int]) -> None:
        """Let none of these parts be dead in the end."""
        for number in numbers:
            if self.parts[number].kind in REASONS:
                self.parts[number] = replace(self.parts[number], kind=Kind.FINE)


class Act:
    """One feature in one world.

    Args:
        cast: Where it takes its parts.
    """

    once = False
    """Whether its jobs never run again once their end was noted."""
    copies = False
    """Whether jobs of it that are done may be stored again."""
    ordered = False
    """Whether workers are to follow orders, and serve the queue of that."""
    long = False
    """Whether jobs of it say how far they are, so that workers have to write that."""
    ledger: FeatureLedger
    store: Store

    def __init__(self, cast: Cast) -> None:
        self.parts = cast.parts

    def join(self, ledger: FeatureLedger, store: Store) -> None:
        """Begin, with the checker of jobs and a store that always answers."""
        self.ledger, self.store = ledger, store

    @property
    def numbers(self) -> Sequence[int]:
        """The parts that it has taken."""
        raise NotImplementedError

    def tasks(self) -> list[Task]:
        """Return what clients are to do."""
        raise NotImplementedError

    def probes(self) -> list[Task]:
        """Return what they are to do when everything else has ended."""
        return []

    def asking(self, client: Client) -> Client:
        """Return *client* with the options of these jobs."""
        return client

    def asked(self, number: int) -> None:
        """Note that a client is about to enqueue that part."""

    def stored(self, job_id: str, entry: Entry) -> None:
        """Note that the broker has a new job of it."""

    def starts(self, job_id: str, entry: Entry) -> None:
        """Note that a job of it starts; the ledger does not know yet."""

    def ended(self, job_id: str, entry: Entry) -> None:
        """Note that the broker has a job of it no more, or only among the dead."""

    @property
    def is_done(self) -> bool:
        """Whether all has come of it that is to come."""
        return True

    def close(self) -> None:
        """Check how it has ended."""

    def fn(self, number: int) -> Any:
        """Return the function that plays that part."""
        return functions.work_async if self.parts[number].is_async else functions.work
