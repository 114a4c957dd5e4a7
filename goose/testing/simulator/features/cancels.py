"""Cancels of single jobs: what clients were told of them, and what that forbids.

A worker does what it is told within a second, if it can read it. Who cannot reach the store goes on as
before, and obeys soon after it can. So while nothing is wrong an order has to hold after that
second, and else some seconds after the last fault. What was removed must not start at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from goose.cancelling import Cancelled
from goose.testing.simulator.features.ledger import ENDED, FeatureLedger
from goose.testing.simulator.features.operators import WITHIN
from goose.testing.simulator.ledger import Entry
from goose.worker.loops import BACKOFF_LIMIT

RECOVERED = BACKOFF_LIMIT + 5.0
"""Seconds after a fault until every worker has read its orders again."""


class Cancels:
    """What was cancelled in one world.

    Args:
        ledger: The checker of its jobs.
    """

    def __init__(self, ledger: FeatureLedger) -> None:
        self._ledger = ledger
        self._told: dict[str, float] = {}
        """By id: when somebody was told first that it ends."""
        self._removed: set[str] = set()
        self._begun: dict[str, int] = {}
        """By id: how many loans it had that were over, when somebody began to cancel it."""

    def begin(self, job_id: str) -> None:
        """Note that somebody is about to cancel that job, which changes nothing if it has ended."""
        entry = self._ledger.entries.get(job_id)
        self._ledger.called_off.add(job_id)
        if entry is None:
            self._begun.setdefault(job_id, 0)
        elif entry.state not in ENDED:
            self._begun.setdefault(job_id, len(entry.loans) - (entry.loan is not None))

    def ask(
        self,
        ids: Iterable[str],
        cancel: Callable[[], Mapping[str, Cancelled]],
        *,
        loose: Collection[str] = (),
    ) -> Mapping[str, Cancelled]:
        """Have a client cancel these jobs, or some of them; check and return what it is told.

        Args:
            ids: Of jobs.
            cancel: Does it.
            loose: Jobs that are being enqueued: who does that may store them again.
        """
        for job_id in ids:
            self.begin(job_id)
        there = {id_ for id_, entry in self._ledger.entries.items() if entry.state not in ENDED}
        answers = cancel()
        for job_id, answer in answers.items():
            self._answered(job_id, answer, was_there=job_id in there, loose=job_id in loose)
        return answers

    def _answered(self, job_id: str, answer: Cancelled, *, was_there: bool, loose: bool) -> None:
        ledger, entry = self._ledger, self._ledger.entries.get(job_id)
        ledger.seen[f"a job was cancelled: {answer}"] += 1
        number = "that waits" if entry is None else str(entry.part.number)
        ledger.say(f"job {number} is cancelled: {answer}")
        if answer not in ("not_found", "dead"):
            # What was stopped while it waited stays so; what the broker had may be stored again.
            if loose and not (answer == "removed" and entry is None):
                return
            self._told.setdefault(job_id, ledger.now())
            if answer == "removed":
                self._removed.add(job_id)
        elif was_there and entry and entry.state not in ENDED and not ledger.endings(entry):
            ledger.wrong(f"job {number} is {answer}, and it is {entry.state}")

    def has_begun(self, job_id: str) -> bool:
        """Say whether somebody has begun to cancel that job before it had ended."""
        return job_id in self._begun

    def was_removed(self, job_id: str) -> bool:
        """Say whether somebody was told that it is gone."""
        return job_id in self._removed

    def may_have_ended(self, job_id: str) -> bool:
        """Say whether that job may have come to its end by being cancelled."""
        entry = self._ledger.entries.get(job_id)
        if job_id not in self._begun or entry is None or entry.state in ENDED:
            return job_id in self._begun
        # A process that has lost it to another, and lives on, may end it, too.
        since = [*entry.loans[self._begun[job_id] :], *self._ledger.strays(entry)]
        return any(loan.run_at is None or loan.ending is not None for loan in since)

    def check_start(self, job_id: str, entry: Entry) -> None:
        """Check that a job that starts was not to end."""
        ledger, told = self._ledger, self._told.get(job_id)
        # A process that has lost it, lives on and ends it takes its mark away.
        marked = told is not None and all(loan.ending is None for loan in ledger.strays(entry))
        if job_id in self._removed or (marked and told is not None and self.holds(told)):
            answer = "removed" if job_id in self._removed else "it ends"
            ledger.wrong(f"job {entry.part.number} starts, and its cancel was told: {answer}")

    def holds(self, since: float) -> bool:
        """Say whether an order of that moment must be obeyed by now."""
        return self.is_calm and self._ledger.now() > since + WITHIN

    @property
    def is_calm(self) -> bool:
        """Whether every worker has read its orders after what went wrong last."""
        ledger = self._ledger
        last = ledger.faults[-1][0] if ledger.faults else 0.0
        return ledger.now() > max(last, ledger.disturbed_until) + RECOVERED
