"""Cancels in the midst of batches: these end all the same, count truly, and start nothing any more.

From a second after a batch was cancelled, whoever is lent a member of it ends that instead. That holds
whatever fails, since who cannot read whether the batch is cancelled starts none of its members.

A member that was cancelled may have been done before, or be done all the same; what was done is counted
as that. Only whom somebody has cancelled may count as cancelled.
"""

from __future__ import annotations

from goose.features.batches.trait import KNOWN_SECONDS
from goose.stores.base import Store
from goose.testing.simulator.features.acts import Cast, Task
from goose.testing.simulator.features.batches import Batches, Planned
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.features.cancels import Cancels
from goose.testing.simulator.features.ledger import FeatureLedger
from goose.testing.simulator.ledger import SLACK, Entry


class Cancelling(Task):
    """Cancels a batch, or one of its members, once that is there."""

    def __init__(self, act: CancelledBatches, planned: Planned, at: float, *, whole: bool) -> None:
        super().__init__(at)
        self._act = act
        self._planned = planned
        self._whole = whole
        self._job_id = ""

    def step(self, caller: Caller) -> float | None:
        """Cancel it; wait if there is nothing yet."""
        act, client = self._act, caller.client
        if self._whole:
            if client.batches.named(self._planned.name) is None:
                return 1.0
            batch = client.find_batch(self._planned.name)
            act.begin(self._planned)
            act.cancels.ask((), batch.cancel)
            act.cancelled(self._planned)
            return None
        known = act.known(self._planned)
        if not self._job_id and known:
            self._job_id = act.random.choice(known)
        if self._job_id:
            act.cancels.ask([self._job_id], lambda: client.cancel(self._job_id))
        return None


class CancelledBatches(Batches):
    """The same, some of which are cancelled, or members of them."""

    ordered = True
    name = "cancelled"

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self.random = chance = cast.random
        self.cancels: Cancels
        self._planned = {number: each for each in self.batches for number in each.members}
        self._plans = [
            (each, each.at + chance.uniform(0.0, 25.0), chance.random() < 0.5)
            for each in self.batches
            for _ in range(chance.randint(1, 3))
        ]
        self._begun: set[str] = set()
        """Names of batches that somebody has begun to cancel."""
        self._cancelled: dict[str, float] = {}
        """By name: when somebody was told first that a batch is cancelled."""

    def join(self, ledger: FeatureLedger, store: Store) -> None:
        """See `Act.join`."""
        super().join(ledger, store)
        self.cancels = Cancels(ledger)

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        cancelling = [Cancelling(self, each, at, whole=whole) for each, at, whole in self._plans]
        return [*super().tasks(), *cancelling]

    # --- what clients do ------------------------------------------------------------------

    def known(self, planned: Planned) -> list[str]:
        """Return the members of that batch which were stored."""
        return [id_ for number in planned.members for id_, _ in self.ledger.playing(number)]

    def begin(self, planned: Planned) -> None:
        """Note that somebody is about to cancel that batch."""
        self._begun.add(planned.name)
        for job_id in self.known(planned):
            self.cancels.begin(job_id)

    def cancelled(self, planned: Planned) -> None:
        """Note that somebody was told that it is."""
        self.ledger.say(f"{planned.name} is cancelled")
        self.ledger.seen["a batch was cancelled"] += 1
        self._cancelled.setdefault(planned.name, self.ledger.now())

    # --- what must hold -------------------------------------------------------------------

    def stored(self, job_id: str, entry: Entry) -> None:
        """Note besides that it ends with a batch that is cancelled."""
        planned = self._planned.get(entry.part.number)
        if planned is not None and planned.name in self._begun:
            self.cancels.begin(job_id)
        super().stored(job_id, entry)

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check that neither it nor its batch was to end."""
        self.cancels.check_start(job_id, entry)
        planned = self._planned.get(entry.part.number)
        at = self._cancelled.get(planned.name) if planned is not None else None
        if at is not None and entry.loans[-1].lent_at > at + KNOWN_SECONDS + SLACK:
            late = entry.loans[-1].lent_at - at
            number = entry.part.number
            self.ledger.wrong(
                f"job {number} starts, lent {late:.1f} s after its batch was cancelled"
            )

    def endings(self, number: int) -> set[str]:
        """Return besides that it may have been cancelled."""
        ids = [job_id for job_id, _ in self.ledger.playing(number)]
        cancelled = any(self.cancels.may_have_ended(job_id) for job_id in ids)
        return super().endings(number) | ({"cancelled"} if cancelled else set())
