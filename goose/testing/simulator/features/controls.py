"""Orders: a paused queue starts nothing, a cancelled job never starts again, and nothing is stuck.

When an order has to be obeyed, is told in `cancels`.

In the end, when all is calm, the queue is paused once more, with a job in it that is cancelled and one
that runs as soon as it may.
"""

from __future__ import annotations

from collections.abc import Sequence

from goose.clients import Client
from goose.stores.base import Store
from goose.testing.simulator.features.acts import Act, Cast, Task
from goose.testing.simulator.features.cancels import Cancels
from goose.testing.simulator.features.ledger import FeatureLedger
from goose.testing.simulator.features.operators import (
    SLOW,
    Cancelling,
    Pausing,
    Queued,
    Rehearsing,
)
from goose.testing.simulator.features.ordered import QUEUE
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import Kind


class Controls(Act):
    """Jobs in a queue of their own, which is paused now and then, and some of which are cancelled."""

    ordered = True

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self.random = chance = cast.random
        self._numbers = cast.take(chance.randint(5, 10))
        self.probes_of = cast.take(2, kind=Kind.FINE, seconds=0.5, delay=None)
        """One that is cancelled in the end, and one that runs."""
        self._stormy = cast.stormy
        self._times = [chance.uniform(0.0, cast.stormy) for _ in range(chance.randint(2, 5))]
        self._pauses = [chance.uniform(2.0, 15.0) for _ in range(2 * chance.randint(1, 3))]
        self.known: list[str] = []
        """Jobs that were stored for certain."""
        self.freed_at: float | None = None
        """When the queue was free for the last time."""
        self._paused_at: float | None = None
        self.cancels: Cancels

    def join(self, ledger: FeatureLedger, store: Store) -> None:
        """See `Act.join`."""
        super().join(ledger, store)
        self.cancels = Cancels(ledger)

    @property
    def numbers(self) -> Sequence[int]:
        """See `Act.numbers`."""
        return [*self._numbers, *self.probes_of]

    def asking(self, client: Client) -> Client:
        """See `Act.asking`."""
        return client.using(queue=QUEUE)

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        return [
            *(Queued(self, number) for number in self._numbers),
            Pausing(self, self._pauses),
            *(Cancelling(self, at) for at in self._times),
        ]

    def probes(self) -> list[Task]:
        """See `Act.probes`."""
        return [Rehearsing(self)]

    @property
    def is_over(self) -> bool:
        """Whether it is too late to begin with anything."""
        return self.ledger.now() > self._stormy

    # --- what clients order ---------------------------------------------------------------

    def pause(self, client: Client) -> None:
        """Pause the queue."""
        client.pause(QUEUE)
        self.ledger.say("the queue is paused")
        self._paused_at = self.ledger.now()

    def resume(self, client: Client) -> None:
        """Have it go on."""
        self._paused_at = None
        client.resume(QUEUE)
        self.ledger.say("the queue goes on")

    def cancel(self, client: Client, job_id: str) -> None:
        """Cancel a job, and check what is said of it."""
        self.cancels.ask([job_id], lambda: client.cancel(job_id))

    # --- what must hold -------------------------------------------------------------------

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check that nobody has ordered that it does not."""
        ledger, number = self.ledger, entry.part.number
        if self._paused_at is not None and self.cancels.holds(self._paused_at):
            ledger.wrong(f"job {number} starts, and its queue is paused")
        self.cancels.check_start(job_id, entry)
        if self.freed_at is not None and ledger.now() > self.freed_at + SLOW:
            ledger.wrong(
                f"job {number} starts {ledger.now() - self.freed_at:.1f} s after the resume"
            )

    def close(self) -> None:
        """Check that of the last two jobs one has run."""
        gone, runs = (list(self.ledger.playing(number)) for number in self.probes_of)
        if any(entry.loans and entry.loans[-1].run_at is not None for _, entry in gone):
            self.ledger.wrong("the job that was cancelled in a paused queue has run")
        if not any(entry.loans and entry.loans[-1].run_at is not None for _, entry in runs):
            self.ledger.wrong("the queue is stuck: the last job in it never ran")
