"""Limits: never more jobs of one key run at once than may."""

from __future__ import annotations

from collections.abc import Sequence

from goose.errors import EnqueueError
from goose.features.limits.values import Limit
from goose.testing.simulator.features.acts import Act, Cast, Task
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.ledger import Entry


class Limited(Task):
    """Enqueues one job under a limit."""

    def __init__(self, act: Limits, number: int) -> None:
        super().__init__(act.parts[number].enqueued_at)
        self._act = act
        self._number = number
        self._failed: EnqueueError | None = None

    def step(self, caller: Caller) -> None:
        """Enqueue, or submit what was not confirmed."""
        act, number = self._act, self._number
        part, fn = act.parts[number], act.fn(number)
        client = caller.client.using(limit=act.limit)
        try:
            if self._failed is not None:
                client.submit(self._failed.jobs)
            elif part.delay is None:
                client.enqueue(fn, number)
            else:
                client.enqueue_in(part.delay, fn, number)
        except EnqueueError as error:
            self._failed = error
            act.ledger.doubt(job.id for job in error.jobs)
            raise

    def forget(self) -> None:
        """See `Task.forget`."""
        self._failed = None


class Limits(Act):
    """Jobs of one key, of which one or two may run at once."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self._numbers = cast.take(cast.random.randint(4, 8))
        self._most = cast.random.randint(1, 2)
        self.limit = Limit(concurrency=self._most, by=lambda number: "key", name="limit")

    @property
    def numbers(self) -> Sequence[int]:
        """See `Act.numbers`."""
        return self._numbers

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        return [Limited(self, number) for number in self._numbers]

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check that there is a place for it."""
        playing = [each for number in self._numbers for each in self.ledger.playing(number)]
        running = sum(self._counts(its) for other, its in playing if other != job_id)
        self.ledger.seen[f"a limited job starts beside {running}"] += 1
        if running >= self._most:
            self.ledger.wrong(f"job {entry.part.number} starts beside {running}: {self._most} may")

    def _counts(self, entry: Entry) -> bool:
        """Say whether that job runs, and has a lease for certain.

        A process that was out of touch for long may have lost its leases; one that has lost a job to
        another, and lives on, may give the other's lease back.
        """
        loan = self.ledger.running(entry)
        if loan is None or self.ledger.was_disturbed(loan):
            return False
        return all(lost.place is loan.place for lost in self.ledger.strays(entry))
