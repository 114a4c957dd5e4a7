"""Throttle: a key makes one job in so many seconds, and is free after them, done or not.

Two calls that each got a job of their own must have been able to claim the key so far apart. One
that got another's must have asked while that one's time was not over.
"""

from __future__ import annotations

from goose.clients import Client
from goose.features.uniques.records import CLAIM
from goose.testing.simulator.features.acts import Cast, Task
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.features.calls import Call, Calling, Try
from goose.testing.simulator.ledger import SLACK, Entry

SECONDS = (4.0, 8.0, 15.0)
"""For which a key is held, one of these."""


class Last(Call):
    """One more call, when the time of all before it is over."""

    def __init__(self, act: Throttles) -> None:
        super().__init__(act, act.probe, 0.0)
        self._wait: float | None = act.seconds + 1.0

    def step(self, caller: Caller) -> float | None:
        """Wait, then call."""
        wait, self._wait = self._wait, None
        return super().step(caller) if wait is None else wait


class Throttles(Calling):
    """One key that is held for some seconds."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self.seconds = cast.random.choice(SECONDS)
        self._stored_at: dict[str, float] = {}

    def asking(self, client: Client) -> Client:
        """See `Act.asking`."""
        return client.using(unique="throttle", until=self.seconds)

    def probes(self) -> list[Task]:
        """See `Act.probes`."""
        return [Last(self)]

    def stored(self, job_id: str, entry: Entry) -> None:
        """Note when a job was made."""
        self._stored_at.setdefault(job_id, self.ledger.now())

    def answered(self, call: Try) -> None:
        """Check that its job was the only one of its time, or that the time of another's was not over."""
        entry = self.ledger.entries.get(call.answer)
        if entry is None:
            self.ledger.wrong(f"call {call.number} is answered with a job that was never stored")
        elif self._is_own(call):
            self.ledger.seen["a throttled call got its own job"] += 1
            self._is_alone(call)
        else:
            self.ledger.seen["a throttled call got another's job"] += 1
            over = max(each.ended for each in self.made(call.answer, entry)) + self.seconds
            if call.asked > over + SLACK:
                late = call.asked - over
                job = entry.part.number
                self.ledger.wrong(f"call {call.number} got job {job}, {late:.1f} s after its time")

    def _is_alone(self, call: Try) -> None:
        # Where the broker does not show its jobs, one that was not noted as stored counts no longer.
        held = self.seconds if self.ledger.shows else min(self.seconds, CLAIM)
        for other in self.tries:
            if other is call or other.late or call.late or not self._is_own(other):
                continue
            apart = max(call.ended - other.began, other.ended - call.began)
            if apart < held - SLACK:
                both = f"{other.number} and {call.number}"
                self.ledger.wrong(f"calls {both} got jobs of their own within {apart:.2f} s")

    def _is_own(self, call: Try) -> bool:
        # A client that has died may have made a job for the same call before.
        entry = self.ledger.entries.get(call.answer)
        own = entry is not None and entry.part.number == call.number
        return own and self._stored_at[call.answer] >= call.began

    def close(self) -> None:
        """Check that every job that a client was told of has run."""
        for call in self.tries:
            if call.answer in self.ledger.unrun and self.ledger.shows:
                self.ledger.wrong(f"call {call.number} was answered with a job that did not run")
        if not self.ran(self.probe):
            self.ledger.wrong(f"the key is stuck: job {self.probe} never ran")
