"""Orders: a paused queue starts nothing, a cancelled job never starts again, and nothing is stuck.

A worker does what it is told within a second, if it can read it. Who cannot reach the store goes on as
before, and obeys soon after it can. So while nothing is wrong an order has to hold after that
second, and else some seconds after the last fault. What was removed from its queue must not start at all.

In the end, when all is calm, the queue is paused once more, with a job in it that is cancelled and one
that runs as soon as it may.
"""

from __future__ import annotations

from collections.abc import Sequence

from goose.clients import Client
from goose.testing.simulator.features.acts import Act, Cast, Task
from goose.testing.simulator.features.ledger import ENDED
from goose.testing.simulator.features.operators import (
    SLOW,
    WITHIN,
    Cancelling,
    Pausing,
    Queued,
    Rehearsing,
)
from goose.testing.simulator.features.ordered import QUEUE
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import Kind
from goose.worker.loops import BACKOFF_LIMIT

RECOVERED = BACKOFF_LIMIT + 5.0
"""Seconds after a fault until every worker has read its orders again."""


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
        self._cancelled: dict[str, tuple[float, str]] = {}
        """By id: when somebody was told what, who cancelled it."""

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
        ledger = self.ledger
        entry = ledger.entries[job_id]
        ledger.called_off.add(job_id)
        answer = client.cancel(job_id)[job_id]
        ledger.say(f"job {entry.part.number} is cancelled: {answer}")
        ledger.seen[f"a job was cancelled: {answer}"] += 1
        if answer in ("not_found", "dead"):
            if entry.state not in ENDED and not ledger.endings(entry):
                ledger.wrong(f"job {entry.part.number} is {answer}, and it is {entry.state}")
        else:
            self._cancelled.setdefault(job_id, (ledger.now(), answer))

    # --- what must hold -------------------------------------------------------------------

    def _holds(self, since: float) -> bool:
        """Say whether an order of that moment must be obeyed by now."""
        return self.is_calm and self.ledger.now() > since + WITHIN

    @property
    def is_calm(self) -> bool:
        """Whether every worker has read its orders after what went wrong last."""
        ledger = self.ledger
        last = ledger.faults[-1][0] if ledger.faults else 0.0
        return ledger.now() > max(last, ledger.disturbed_until) + RECOVERED

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check that nobody has ordered that it does not."""
        ledger, number = self.ledger, entry.part.number
        if self._paused_at is not None and self._holds(self._paused_at):
            ledger.wrong(f"job {number} starts, and its queue is paused")
        at, answer = self._cancelled.get(job_id, (0.0, ""))
        if answer == "removed" or (answer and self._holds(at)):
            ledger.wrong(f"job {number} starts, and its cancel was told: {answer}")
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
