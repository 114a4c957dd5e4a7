"""The ledger of a world with features: which jobs may come again, or end without a run."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from goose.brokers.base import Delivery
from goose.jobs import Envelope, Job
from goose.testing.simulator.ledger import MAX_CRASHES, MAY_FOLLOW, Entry, Ledger, Loan
from goose.testing.simulator.script import MAX_RETRIES, Kind, Run, Script
from goose.testing.simulator.timeline import Place
from goose.testing.simulator.wire import EPOCH

if TYPE_CHECKING:
    from goose.testing.simulator.features.acts import Act

ENDED = ("done", "dead")
SILENCE = 5.0
"""Seconds without an answer of the store that are remembered."""


class FeatureLedger(Ledger):
    """Follows jobs, and tells the act of each what becomes of it.

    Args:
        acts: By the number of each part: the act that it is a part of.
        shows: Whether the broker of this world can show its jobs.
    """

    may_follow: Mapping[str, set[str | None]] = {
        **MAY_FOLLOW,
        "ack": {"fine", "skipped", "cancelled", None},
    }

    def __init__(
        self,
        script: Script,
        clock: Callable[[], float],
        acts: Mapping[int, Act],
        *,
        shows: bool,
        trace: bool,
    ) -> None:
        super().__init__(script, clock, trace=trace)
        self.shows = shows
        self.seen: Counter[str] = Counter()
        """What features did, by kind."""
        self.ids: dict[int, list[str]] = {}
        """By the number of a part: all jobs that play it."""
        self.acked: set[str] = set()
        """Jobs that were done once, and may have been stored again."""
        self.unrun: set[str] = set()
        """Jobs that a feature ended without a run."""
        self.called_off: set[str] = set()
        """Jobs that somebody has cancelled, or tried to."""
        self.faults: list[tuple[float, str]] = []
        """When something went wrong, and where, as far as that is one process."""
        self._acts = acts
        self._doubtful: set[str] = set()
        self._said: dict[object, tuple[int, int]] = {}
        """By receipt: how many attempts and crashes the job had behind it."""
        self._strays: set[object] = set()
        """Receipts that are void, of loans whose process lives and may still do something by them."""
        self._heard: dict[Place, float] = {}
        """When the store has last done what a process asked."""
        self._silences: dict[Place, list[tuple[float, float]]] = {}
        self._outages: list[tuple[float, float]] = []
        self._beside: Counter[Entry] = Counter()
        """By job: how often another one ended the process that held it."""
        self.disturbed_until = 0.0
        """When the last disturbance ends, of those that have begun."""

    def now(self) -> float:
        """Return the virtual time."""
        return self._clock()

    # --- told by wires and slots ----------------------------------------------------------

    def doubt(self, job_ids: Iterable[str]) -> None:
        """Note that a client does not know whether these are stored, and will ask again."""
        self._doubtful.update(job_ids)

    def heard(self, place: Place) -> None:
        """Note that the store has done what a process of that place asked of it."""
        before, now = self._heard.get(place, 0.0), self.now()
        if now - before >= SILENCE:
            self._silences.setdefault(place, []).append((before, now))
        self._heard[place] = now

    def away(self, until: float) -> None:
        """Note that nobody can reach the store from now on until then."""
        since = self.now()
        if self._outages and self._outages[-1][1] >= since:  # it goes on
            since, before = self._outages.pop()
            until = max(until, before)
        if until > since:
            self._outages.append((since, until))
            self.disturbed_until = max(self.disturbed_until, until)

    def poisoned(self, place: Place) -> None:
        """Note that a job ends its process: what else that holds may be taken for the culprit."""
        for entry in self._held.get(place, {}).values():
            self._beside[entry] += entry.part.kind is not Kind.POISON

    def _judge(self, entry: Entry, body: dict[str, Any]) -> None:
        # Two faults may have met it before, which is as many as are allowed to.
        unlucky = 0 < self._beside[entry] and entry.hits + self._beside[entry] >= MAX_CRASHES
        if body["failure"]["reason"] != "crashed" or not unlucky:
            super()._judge(entry, body)

    def disturbed(self, place: Place, *, until: float) -> None:
        """Note that a process is out of touch until then; what dies disturbs others no longer."""
        super().disturbed(place, until=until)
        known = self.now() if until == math.inf else until
        self.disturbed_until = max(self.disturbed_until, known)

    def note(self, what: str, *, busy: bool, who: str = "world") -> None:
        """Note a fault that gives nobody a reason to run a job again."""
        super().note(what, busy=busy, who=who)
        self.faults.append((self.now(), who))

    def hit(
        self,
        place: Place,
        what: str,
        *,
        until: float,
        innocent: bool = True,
        busy: bool = False,
    ) -> None:
        """Note that a fault separates *place* from the broker."""
        super().hit(place, what, until=until, innocent=innocent, busy=busy)
        self.faults.append((self.now(), place.name))

    def deleted(self, job_ids: Sequence[str]) -> None:
        """Note that these were removed before they started."""
        for job_id in job_ids:
            entry = self.entries[job_id]
            self.say(f"job {entry.part.number} is removed")
            entry.state = "done"

    def entry(self, envelope: Envelope) -> Entry:
        """Return the entry of that job."""
        known = envelope.id in self.entries
        entry = super().entry(envelope)
        if not known:
            self.ids.setdefault(entry.part.number, []).append(envelope.id)
        return entry

    def stored(self, envelopes: Sequence[Envelope]) -> None:
        """Note that a call has stored these, unless they were stored already."""
        new: list[str] = []
        for envelope in envelopes:
            entry = self.entry(envelope)
            act = self._acts[entry.part.number]
            entry.unsure = envelope.id in self._doubtful or act.copies
            if entry.state in ("new", "done"):
                new.append(envelope.id)
        super().stored(envelopes)
        for envelope in envelopes:
            if envelope.id in new:
                self._told_of(envelope)

    def _told_of(self, envelope: Envelope) -> None:
        entry = self.entries[envelope.id]
        if envelope.due_at is not None:
            entry.due = max(entry.due, envelope.due_at - EPOCH)
        if envelope.id in self.acked:
            self.seen["a job that was done is stored again"] += 1
        self.say(f"job {entry.part.number} is stored")
        self._acts[entry.part.number].stored(envelope.id, entry)

    def _lend(self, entry: Entry, delivery: Delivery, place: Place) -> None:
        before = entry.loan
        if before is not None and before.place.alive:
            self._strays.add(before.receipt)
        super()._lend(entry, delivery, place)
        body: dict[str, Any] = json.loads(delivery.envelope.body)
        self._said[delivery.receipt] = body.get("attempt", 0), body.get("crashes", 0)

    def started(self, delivery: Delivery) -> Loan:
        """Note the start of a run."""
        job_id = delivery.envelope.id
        entry = self.entries[job_id]
        loan = entry.loan
        # Whoever has lost it and does not know yet may do anything.
        if loan is not None and loan.receipt == delivery.receipt:
            self._starts(job_id, entry)
        return super().started(delivery)

    def _starts(self, job_id: str, entry: Entry) -> None:
        act = self._acts[entry.part.number]
        if job_id in self.acked and act.once:
            self.wrong(f"job {entry.part.number} runs again, and its end was noted")
        act.starts(job_id, entry)

    def settled(
        self,
        verb: str,
        outcomes: Sequence[tuple[Delivery, Envelope | None]],
        lost: Sequence[Delivery],
    ) -> None:
        """Note what a settle has changed."""
        if verb == "ack":
            self._cancelled(outcomes)
        unrun = [delivery.envelope.id for delivery, _ in outcomes if self._has_not_run(delivery)]
        super().settled(verb, outcomes, lost)
        refused = {delivery.receipt for delivery in lost}
        for delivery, _ in outcomes:
            job_id = delivery.envelope.id
            entry = self.entries[job_id]
            if verb == "ack" and entry.state == "done":
                self._over(job_id, without_run=job_id in unrun)
            if verb in ("ack", "bury") and delivery.receipt not in refused:
                self._acts[entry.part.number].ended(job_id, entry)

    def _cancelled(self, outcomes: Sequence[tuple[Delivery, Envelope | None]]) -> None:
        """Note which of these have ended on somebody's order, however their run did."""
        for delivery, _ in outcomes:
            loan = self.entries[delivery.envelope.id].loan
            if loan is None or delivery.envelope.id not in self.called_off:
                continue
            if loan.ending in ("failed", "postponed", "interrupted"):
                loan.ending = "cancelled"

    def _over(self, job_id: str, *, without_run: bool) -> None:
        """Note that a job has been acked."""
        if without_run and job_id not in self.acked:
            self.unrun.add(job_id)
            self.seen["a job ended without a run"] += 1
        elif without_run:
            self.seen["a copy was skipped"] += 1
        self.acked.add(job_id)

    def _has_not_run(self, delivery: Delivery) -> bool:
        loan = self.entries[delivery.envelope.id].loan
        return loan is not None and loan.receipt == delivery.receipt and loan.ending is None

    # --- asked by acts --------------------------------------------------------------------

    def playing(self, number: int) -> Iterator[tuple[str, Entry]]:
        """Yield the jobs that play that part, and have been stored."""
        for job_id in self.ids.get(number, ()):
            yield job_id, self.entries[job_id]

    def endings(self, entry: Entry) -> set[str]:
        """Return all ways in which that job has come to its end so far, told of or not.

        These are several if a fault has it run again, and the last is not the truest.
        """
        found = {"dead"} if entry.state == "dead" else set[str]()
        for loan in entry.loans:
            attempts, crashes = self._said[loan.receipt]
            if loan.ending == "fine":
                found.add("done")
            elif loan.ending == "skipped":
                found.add("skipped")
            hopeless = attempts >= MAX_RETRIES or entry.part.kind is Kind.HOPELESS
            failed = loan.ending == "buried" or (loan.ending == "failed" and hopeless)
            if failed or crashes >= MAX_CRASHES:
                found.add("dead")
        return found

    def attempts(self, entry: Entry) -> int:
        """Return how many attempts that job had behind it when it was lent last."""
        return self._said[entry.loans[-1].receipt][0]

    def check_attempts(self, entry: Entry) -> None:
        """Check that each attempt it has behind it was a run that failed."""
        attempts = self.attempts(entry)
        failed = sum(loan.ending == "failed" for loan in entry.loans)
        if attempts > failed:
            number = entry.part.number
            self.wrong(f"job {number} has used {attempts} attempts, and failed {failed} times")

    def returned(self, number: int) -> list[list[int]]:
        """Return what runs of that part have returned."""
        return [[number, run] for run in self._script.returned[number]]

    def follow_runs(self, on_run: Callable[[Job[Any]], Run]) -> None:
        """Have *on_run* called when a long job begins to run."""
        self._script.on_run = on_run

    def running(self, entry: Entry) -> Loan | None:
        """Return the loan under which that job runs now; what was given up does not count."""
        loan = entry.loan
        if loan is None or loan.run_at is None or loan.ending is not None:
            return None
        return loan if loan.place.alive else None

    def strays(self, entry: Entry) -> list[Loan]:
        """Return the loans of that job which were lost by a process that lived on."""
        return [loan for loan in entry.loans if loan.receipt in self._strays]

    def was_unheard(self, loan: Loan, seconds: float) -> bool:
        """Say whether the store has not heard its process for so long meanwhile, and others it could.

        That may have been for a moment only, if it was between two outages.
        """
        last = (self._heard.get(loan.place, 0.0), self.now())
        for before, after in [*self._silences.get(loan.place, ()), last]:
            away = self._away_in(before, after)
            up = after - before - sum(away)
            if after > max(loan.lent_at, before + seconds) and (up >= SILENCE or len(away) > 1):
                return True
        return False

    def _away_in(self, before: float, after: float) -> list[float]:
        """Return the seconds of each outage, in this time, in which nobody could reach the store."""
        overlaps = [min(after, until) - max(before, since) for since, until in self._outages]
        return [seconds for seconds in overlaps if seconds > 0]

    @property
    def is_at_rest(self) -> bool:
        """Whether every job that was stored has ended."""
        return all(entry.state in ENDED for entry in self.entries.values())

    def _may_be_done(self, job_id: str, kind: Kind) -> bool:
        return job_id in self.unrun | self.called_off or super()._may_be_done(job_id, kind)
