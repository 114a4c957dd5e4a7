"""Debounce: of the calls for a key the last one runs, once it was quiet, and none that it came after.

Two calls of which one began after the other was answered have an order; what holds of the last is
asked only of such. A job that was about to start once is not called back: its process may have died
in that moment, or given it back, and it starts all the same when others have it.

A call that took longer than a claim holds may have been overtaken. So may one that could not be
noted as stored, where the broker does not show its jobs.
"""

from __future__ import annotations

import math

from goose.clients import Client
from goose.features.uniques.records import CLAIM
from goose.testing.simulator.features.acts import Cast, Task
from goose.testing.simulator.features.calls import Call, Calling, Try
from goose.testing.simulator.ledger import SLACK, Entry, Loan

QUIET = (2.0, 5.0, 12.0)
"""Seconds without another call, one of these; the last is longer than a claim holds."""
SLOW = 10.0
"""Seconds that a job may wait for a worker in the calm."""


class Debounces(Calling):
    """One key whose last call wins."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self._quiet = cast.random.choice(QUIET)

    def asking(self, client: Client) -> Client:
        """See `Act.asking`."""
        return client.using(unique="debounce", debounce=self._quiet)

    def probes(self) -> list[Task]:
        """See `Act.probes`."""
        return [Call(self, self.probe, 0.0)]

    def answered(self, call: Try) -> None:
        """Check that a call has a job of its own."""
        if call.answer not in dict(self.ledger.playing(call.number)):
            self.ledger.wrong(f"call {call.number} is answered with another's job")

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check that it was quiet, and that nobody called after it."""
        ledger, number = self.ledger, entry.part.number
        made = self.made(job_id, entry)
        waited = ledger.now() - min(each.began for each in made)
        if waited < self._quiet - SLACK:
            ledger.wrong(f"job {number} starts {waited:.2f} s after its call")
        if number == self.probe and not entry.loans[1:] and waited > self._quiet + CLAIM + SLOW:
            ledger.wrong(f"job {number} starts {waited:.1f} s after the calm")
        sent_at = max(each.ended for each in made)
        later = [each for each in self.tries if each.began > sent_at and self._counts(each)]
        over = [each for each in later if not self._had_begun(entry, before=each.ended)]
        ledger.seen["a debounced job starts"] += 1
        if over:
            calls = [each.number for each in over]
            ledger.wrong(f"job {number} starts, and calls {calls} came after it")

    def _counts(self, call: Try) -> bool:
        """Say whether the job of that call has certainly taken the place of those before it."""
        return bool(call.answer) and not call.late and self.ledger.shows

    def _had_begun(self, entry: Entry, *, before: float) -> bool:
        """Say whether that job may have been about to start before that moment."""
        ends = [*(loan.lent_at for loan in entry.loans[1:]), math.inf]
        spans = zip(entry.loans, ends, strict=True)
        return any(loan.lent_at <= before and self._may_begin(loan, end) for loan, end in spans)

    def _may_begin(self, loan: Loan, end: float) -> bool:
        if loan.verb != "requeue" or loan.run_at is not None:
            return True
        # It was sent away, perhaps since its process was not told what the store had done for it.
        name = loan.place.name
        return any(loan.lent_at <= at <= end and who == name for at, who in self.ledger.faults)

    def close(self) -> None:
        """Check that whoever did not run had one that came after it."""
        for call in self.tries:
            if call.answer not in self.ledger.unrun:
                continue
            self.ledger.seen["a debounced job is skipped"] += 1
            others = [each for each in self.tries if each is not call and self._made(each)]
            later = any(each.ended > call.began for each in others)
            if not later and not call.late and self.ledger.shows:
                self.ledger.wrong(f"job {call.number} was skipped, and no call came after it")
        if not self.ran(self.probe):
            self.ledger.wrong(f"the key is stuck: job {self.probe} never ran")

    def _made(self, call: Try) -> bool:
        """Say whether a job of that call may have been stored."""
        playing = self.ledger.playing(call.number)
        return any(call in self.made(job_id, entry) for job_id, entry in playing)
