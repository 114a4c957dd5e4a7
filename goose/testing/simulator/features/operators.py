"""What operators do in a world: they pause a queue and have it go on, and cancel jobs.

What an operator was told, or was about to do, the next one knows: it is not lost with a process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from goose.jobs import Job
from goose.testing.simulator.features.acts import Enqueuing, Task
from goose.testing.simulator.features.callers import Caller

if TYPE_CHECKING:
    from goose.testing.simulator.features.controls import Controls

WITHIN = 1.0
"""Seconds after which an order is obeyed."""
SLOW = 10.0
"""Seconds that a job may wait for a worker in the calm."""


class Queued(Enqueuing):
    """Enqueues a job, which may be cancelled once its client has it."""

    def __init__(self, act: Controls, number: int) -> None:
        super().__init__(act, number)
        self._controls = act

    def stored(self, job: Job[Any]) -> None:
        """See `Enqueuing.stored`."""
        self._controls.known.append(job.id)


class Pausing(Task):
    """Pauses the queue, has it go on some seconds later, and so on.

    Args:
        act: Whose queue.
        seconds: Until the first pause, for how long that holds, until the next one, and so on.
    """

    def __init__(self, act: Controls, seconds: Sequence[float]) -> None:
        super().__init__(seconds[0])
        self._act = act
        self._seconds = seconds
        self._done = 0

    def step(self, caller: Caller) -> float | None:
        """Do what comes next."""
        if self._done % 2:
            self._act.resume(caller.client)
        else:
            self._act.pause(caller.client)
        self._done += 1
        return self._seconds[self._done] if self._done < len(self._seconds) else None


class Cancelling(Task):
    """Cancels a job, until it is told what became of that."""

    def __init__(self, act: Controls, at: float) -> None:
        super().__init__(at)
        self._act = act
        self._job_id: str | None = None

    def step(self, caller: Caller) -> float | None:
        """Choose one that is known, and cancel it."""
        act = self._act
        if self._job_id is None and act.known:
            self._job_id = act.random.choice(act.known)
        if self._job_id is not None:
            act.cancel(caller.client, self._job_id)
        elif not act.is_over:
            return 1.0
        return None


class Rehearsing(Task):
    """Pauses the queue in the calm, cancels one of two jobs in it, and lets the other run."""

    def __init__(self, act: Controls) -> None:
        super().__init__(0.0)
        self._act = act
        self._place = 0

    def step(self, caller: Caller) -> float | None:
        """Do what comes next."""
        act, client = self._act, caller.client
        wait: float | None = None
        if not act.cancels.is_calm:
            return 1.0
        if self._place == 0:
            act.pause(client)
            wait = WITHIN + 0.5
        elif self._place == 1:
            jobs = [act.asking(client).enqueue(act.fn(n), n) for n in act.probes_of]
            act.cancel(client, jobs[0].id)
            wait = SLOW
        else:
            act.resume(client)
            act.freed_at = act.ledger.now()
        self._place += 1
        return wait
