"""Rates: jobs start at the instants of one line, each at one of its own, and none waits for ever.

Of a start it is seen from outside between which two moments its instant was: after the job was lent
first since it started last, for only then it asks; and before it starts, or a little after. If more
jobs have started than there are instants in the time in which all of theirs must have been, two have
had the same. That holds whatever fails: who is late for an instant, or asks again since its worker
has died, leaves instants unused.
"""

from __future__ import annotations

from dataclasses import dataclass

from goose.features.limits.pacing import EARLY, HORIZON
from goose.features.limits.values import Limit
from goose.testing.simulator.features.acts import Cast
from goose.testing.simulator.features.limits import SLOW, Limiting
from goose.testing.simulator.ledger import SLACK, Entry
from goose.testing.simulator.script import Kind

RATES = ((1.0, 1.0), (1.0, 2.0), (2.0, 5.0))
"""So many starts in so many seconds, one of these."""
SOON = 12.0
"""Seconds within which all of them come."""
PROBES = 5


@dataclass(frozen=True, slots=True)
class Start:
    """One start, and where in time its instant must have been."""

    number: int
    after: float
    before: float


class Rates(Limiting):
    """Jobs of one key that may start now and then; at the end some that come together."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        chance = cast.random
        rate, per = chance.choice(RATES)
        self._apart = per / rate
        self.limit = Limit(rate=rate, per=per, by=lambda number: "key", name="rate")
        # More at a time than the line has instants for, so that few of these are unused.
        self._numbers = [
            number
            for _ in range(chance.randint(8, 14))
            for number in cast.take(1, enqueued_at=chance.uniform(0.0, SOON))
        ]
        self._probes = cast.take(PROBES, kind=Kind.FINE, seconds=0.1, delay=None)
        self._asked_at = 0.0
        """When the first of those that come together was asked for."""
        self._starts: list[Start] = []

    def asked(self, number: int) -> None:
        """See `Act.asked`."""
        if number in self._probes and not self._asked_at:
            self._asked_at = self.ledger.now()

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check that there was an instant for it, and that it is not late for no reason."""
        ledger, number = self.ledger, entry.part.number
        ran = [place for place, loan in enumerate(entry.loans) if loan.run_at is not None]
        # A process that has lost it may have left it an instant that was given out before.
        since = ran[-1] + 1 if ran and not ledger.strays(entry) else 0
        asking = entry.loans[since:]
        ledger.seen["a job waited for its instant" if asking[1:] else "a job met its instant"] += 1
        ledger.check_attempts(entry)
        self._starts.append(Start(number, asking[0].lent_at, ledger.now() + EARLY))
        self._check_instants(self._starts[-1])
        # Before them the line may reach to its end; what does not fit in comes back and asks again.
        longest = 2 * HORIZON + (PROBES + 1) * self._apart + SLOW
        late = ledger.now() - self._asked_at
        if number in self._probes and late > longest:
            ledger.wrong(f"job {number} starts {late:.1f} s after the calm")

    def _check_instants(self, last: Start) -> None:
        """Check that the line has enough instants for *last* and those before it."""
        for after in {start.after for start in self._starts if start.after <= last.after}:
            within = [start for start in self._starts if start.after >= after]
            instants = int((last.before - after + SLACK) / self._apart) + 1
            if len(within) > instants:
                jobs = [start.number for start in within]
                seconds = last.before - after
                self.ledger.wrong(
                    f"jobs {jobs} start within {seconds:.2f} s, in which {instants} may"
                )

    def close(self) -> None:
        """Check that the last jobs, which had all the time, have run, one after the other."""
        for number in self._probes:
            if not any(entry.state == "done" for _, entry in self.ledger.playing(number)):
                self.ledger.wrong(f"the line is stuck: job {number} never ran")
