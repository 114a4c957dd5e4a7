"""Cancels in the midst of flows: what was removed never runs, and what depends on it ends by its edge.

Jobs are cancelled one by one, wherever they are, and flows as a whole, by the code of ``goose flow
cancel``. Whether a job that is cancelled is done all the same is open as long as it may be on the
broker; what holds is that it ends, and that those that depend on it end as one of these ways asks.
"""

from __future__ import annotations

from goose.cli import flow
from goose.clients import Client
from goose.stores.base import Store
from goose.testing.simulator.features.acts import Cast, Task
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.features.cancels import Cancels
from goose.testing.simulator.features.flows import Flows
from goose.testing.simulator.features.ledger import FeatureLedger
from goose.testing.simulator.ledger import Entry


class Cancelling(Task):
    """Cancels a job of a flow, or all of that, until it is told what became of them."""

    def __init__(self, act: CancelledFlows, at: float, *, whole: bool) -> None:
        super().__init__(at)
        self._act = act
        self._whole = whole
        self._job_id = ""

    def step(self, caller: Caller) -> float | None:
        """Choose one that is known, and cancel it."""
        act, client = self._act, caller.client
        if not self._job_id:
            known = act.known()
            if not known:
                return None if act.ledger.now() > act.stormy else 1.0
            self._job_id = act.random.choice(known)
        if self._whole:
            jobs = flow.gathered(client, self._job_id)
            act.ledger.seen["a flow was cancelled"] += 1
            ids = [job.id for job in jobs]
            act.cancels.ask(ids, lambda: flow.cancelled(client, jobs), loose=act.loose())
        else:
            act.ask(client, self._job_id)
        return None


class CancelledFlows(Flows):
    """The same, jobs of which are cancelled."""

    ordered = True

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self.random = chance = cast.random
        self.stormy = cast.stormy
        self.cancels: Cancels
        self._plans = [
            (chance.uniform(0.0, cast.stormy), chance.random() < 0.3)
            for _ in range(chance.randint(1, 4))
        ]

    def join(self, ledger: FeatureLedger, store: Store) -> None:
        """See `Act.join`."""
        super().join(ledger, store)
        self.cancels = Cancels(ledger)

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        return [*super().tasks(), *(Cancelling(self, at, whole=whole) for at, whole in self._plans)]

    def known(self) -> list[str]:
        """Return all jobs that a client has made, stored or about to be."""
        return [job_id for made in self.all for job_id in made.ids.values()]

    def loose(self) -> set[str]:
        """Return those that no client knows to be stored."""
        return {job_id for made in self.all if not made.stored for job_id in made.ids.values()}

    def ask(self, client: Client, job_id: str) -> None:
        """Have a client cancel one job, and check that one that waits is found."""
        made, number = self.of[job_id]
        waits = made.stored and self.state(job_id) == "waiting"
        alone = not self.cancels.has_begun(job_id)
        answers = self.cancels.ask([job_id], lambda: client.cancel(job_id), loose=self.loose())
        lost = answers[job_id] == "not_found" and self.state(job_id) == "waiting"
        if waits and alone and lost:
            self.ledger.wrong(f"job {number} waits, and is not found")

    # --- what must hold -------------------------------------------------------------------

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check besides that it was not to end."""
        self.cancels.check_start(job_id, entry)
        super().starts(job_id, entry)

    def fates(self, job_id: str) -> set[str]:
        """Return besides that it may have been cancelled."""
        found = super().fates(job_id)
        return found | {"cancelled"} if self.cancels.may_have_ended(job_id) else found

    def fates_in_store(self, job_id: str) -> set[str]:
        """Return besides that it may have been stopped, which is final."""
        stopped = {"ended"} if self.cancels.has_begun(job_id) else set[str]()
        meant = super().fates_in_store(job_id) | stopped
        return stopped if self.cancels.was_removed(job_id) else meant

    def close(self) -> None:
        """Count besides how many were stopped."""
        super().close()
        removed = sum(map(self.cancels.was_removed, self.of))
        self.ledger.seen["a job of a flow was removed"] += removed
