"""The checker: follows every job from outside and knows what may not happen.

It is told of every effect on the broker at the instant it happens, whether or not the caller
lives to see the reply, and of every run. From that it keeps its own opinion of where each job
is, in the manner of Jepsen's *total-queue*, and writes down as a violation

* a job that is lent while it is lent, early, or after its end,
* a settle that is accepted without the current loan, refused with it, or not what the run
  that went before it deserves,
* a session given up although its process lived and was in reach,
* a dead job that did nothing to deserve it,
* and, at the end, a job that is neither done nor dead, or not where it should be.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from goose.brokers.base import Delivery, Session
from goose.jobs import Envelope
from goose.testing.simulator.script import MAX_RETRIES, REASONS, Kind, Part, Script
from goose.testing.simulator.timeline import Place

MAX_CRASHES = 3
"""Of the workers here."""
SLACK = 1e-6
"""Seconds that adding floats may cost."""

MAY_FOLLOW: dict[str, set[str | None]] = {
    "ack": {"fine", "skipped"},
    "requeue": {"failed", "postponed", None},
    "release": {"interrupted", None},
    "bury": {"failed", "buried", None},
}


@dataclass(slots=True, eq=False)
class Loan:
    """One loan of one job, and what came of it."""

    receipt: object
    place: Place
    session: Session
    lent_at: float
    run_at: float | None = None
    ending: str | None = None
    """How the run ended; None while it has not, or if there was none."""
    verb: str = ""
    """What settled it; empty while nothing has."""


@dataclass(slots=True, eq=False)
class Entry:
    """What is known of one job."""

    part: Part
    state: str = "new"
    """``new``, ``stored``, ``lent``, ``done`` or ``dead``."""
    acknowledged: bool = False
    unsure: bool = False
    """Whether an enqueue of it had an unknown outcome."""
    due: float = 0.0
    loan: Loan | None = None
    loans: list[Loan] = field(default_factory=list)
    hits: int = 0
    """Faults injected into processes that held it."""
    owed: int = 0
    """Runs that a fault has made worthless."""


class Ledger:
    """Every job's life, and what was wrong with it."""

    may_follow: Mapping[str, set[str | None]] = MAY_FOLLOW
    """By verb of a settle: the endings of a run it may follow."""

    def __init__(self, script: Script, clock: Callable[[], float], *, trace: bool) -> None:
        self.entries: dict[str, Entry] = {}
        self.violations: list[str] = []
        self.trace: list[str] | None = [] if trace else None
        self.injected: Counter[str] = Counter()
        self.overlapped: Counter[str] = Counter()
        self.runs = 0
        self.duplicates = 0
        self.exposed = 0
        """Jobs in flight at some fault: as many may run twice."""
        self.open = len(script.parts)
        """Jobs that are neither done nor dead, or whose client does not know that they are stored."""
        self.waits: list[tuple[Place, float]] = []
        """Places of which a thread stands still in a call, and until when it should."""
        self._script = script
        self._clock = clock
        self._places: dict[Session, Place] = {}
        self._disturbed: dict[Place, float] = {}
        self._beaten: dict[Session, float] = {}
        self._judged_late_at = -1.0
        self._held: dict[Place, dict[object, Entry]] = {}

    def say(self, text: str) -> None:
        """Add a line to the trace, if there is one."""
        if self.trace is not None:
            self.trace.append(f"{self._clock():9.3f}  {text}")

    def wrong(self, text: str) -> None:
        """Write down a violation."""
        self.violations.append(f"{self._clock():.3f}: {text}")
        self.say(f"VIOLATION: {text}")

    # --- faults ---------------------------------------------------------------------------

    def belongs(self, session: Session, place: Place) -> None:
        """Note whose session that is."""
        self._places[session] = place

    def beaten(self, session: Session) -> None:
        """Note that a heartbeat was heard."""
        self._beaten[session] = self._clock()

    def held(self, place: Place) -> int:
        """Return how many jobs are lent to *place* now."""
        return len(self._held.get(place, ()))

    def may_hit(self, place: Place) -> bool:
        """Say whether a fault may end *place* without an innocent job coming to look guilty."""
        return all(
            entry.hits < MAX_CRASHES - 1 or entry.part.kind is Kind.POISON
            for entry in self._held.get(place, {}).values()
        )

    def note(self, what: str, *, busy: bool, who: str = "world") -> None:
        """Note a fault that gives nobody a reason to run a job again."""
        self.injected[what] += 1
        self.overlapped[what] += busy
        self.say(f"{who}: {what}")

    def overran(self, place: Place) -> None:
        """Note that a thread of *place* stood still for longer than it should have."""
        self.disturbed(place, until=self._clock())
        self.exposed += self.held(place)

    def disturbed(self, place: Place, *, until: float) -> None:
        """Note that *place* may be out of touch with the broker until then."""
        self._disturbed[place] = max(until, self._disturbed.get(place, 0.0))

    def hit(
        self,
        place: Place,
        what: str,
        *,
        until: float,
        innocent: bool = True,
        busy: bool = False,
    ) -> None:
        """Note that a fault separates *place* from the broker.

        Args:
            place: Which process.
            what: The kind of fault.
            until: For how long; infinity if for good.
            innocent: Whether it comes from outside, and not from one of its jobs.
            busy: Whether the call it strikes was about jobs, which it may not hold any more.
        """
        held = self._held.get(place, {})
        self.disturbed(place, until=until)
        self.exposed += len(held)
        self.injected[what] += 1
        self.overlapped[what] += busy or bool(held)
        for entry in held.values():
            entry.hits += innocent
        if self.trace is not None:
            self.say(f"{place.name}: {what} (holding {self._numbers(held.values())})")

    def _numbers(self, entries: Any) -> str:
        return ", ".join(str(entry.part.number) for entry in entries) or "nothing"

    def judged_late(self) -> None:
        """Note that a call to judge by silence arrived long after its caller had decided on it.

        Paused in between, the caller did not see the outage that made everybody silent. Its
        word counts all the same: what that costs is bounded by what the outage met.
        """
        self._judged_late_at = self._clock()

    def given_up(self, place: Place, session: Session) -> None:
        """Check that the broker had a reason to hold a session of *place* for dead."""
        # That it alone was silent is one; an outage that all suffer is not.
        beaten = self._beaten.get(session, 0.0)
        silent = self._disturbed.get(place, -1.0) >= beaten or self._judged_late_at >= beaten
        if not silent and not self._excused(place):
            self.wrong(f"{place.name} lives and was in reach, and its session was given up")

    def _overlaps(self, entry: Entry, loan: Loan) -> None:
        """Check that a fault came between a loan and its end."""
        if self._is_late(loan.place):
            self.exposed += 1
        if not self._excused(loan.place) and self._disturbed.get(loan.place, -1.0) < loan.lent_at:
            self.wrong(
                f"job {entry.part.number} changes hands, and nothing happened since its loan"
            )

    def _excused(self, place: Place) -> bool:
        return not place.alive or self._is_late(place)

    def _is_late(self, place: Place) -> bool:
        # A wait that began inside of another one makes that one longer than it should be.
        return any(each is place and end < self._clock() for each, end in self.waits)

    # --- the client -----------------------------------------------------------------------

    def entry(self, envelope: Envelope) -> Entry:
        """Return the entry of that job."""
        found = self.entries.get(envelope.id)
        if found is None:
            number = json.loads(envelope.body)["args"][0]
            found = self.entries[envelope.id] = Entry(self._script.parts[number])
        return found

    def stored(self, envelopes: Sequence[Envelope]) -> None:
        """Note that a client's call has stored these, unless they were stored already."""
        for envelope in envelopes:
            entry = self.entry(envelope)
            if entry.state == "new" or (entry.state == "done" and entry.unsure):
                if entry.state == "done":
                    entry.owed += 1  # ids of done jobs are not remembered: a second copy
                    self.exposed += 1
                    self.open += entry.acknowledged
                entry.state = "stored"
                entry.due = self._clock() + (envelope.delay or 0.0)
            elif entry.state == "done":
                self.wrong(f"job {entry.part.number} was stored again after it was done")

    def unsure(self, job_id: str, part: Part) -> None:
        """Note that a client does not know whether the job is stored, and will ask again."""
        self.entries.setdefault(job_id, Entry(part)).unsure = True

    def acknowledge(self, job_id: str) -> None:
        """Note that a client was told that the job is stored."""
        entry = self.entries[job_id]
        entry.acknowledged = True
        self._count(entry)

    def _count(self, entry: Entry) -> None:
        if entry.acknowledged and entry.state in ("done", "dead"):
            self.open -= 1

    # --- loans ----------------------------------------------------------------------------

    def lent(self, deliveries: Sequence[Delivery], place: Place, *, late: bool) -> None:
        """Note loans made by `dequeue`; *late* if a fault held the call up for long."""
        self.exposed += len(deliveries) * late
        for delivery in deliveries:
            entry = self.entry(delivery.envelope)
            number = entry.part.number
            if entry.state != "stored":
                self.wrong(f"job {number} was lent while it was {entry.state}")
            if self._clock() < entry.due - SLACK:
                self.wrong(f"job {number} was lent {entry.due - self._clock():.3f} s early")
            self._lend(entry, delivery, place)
            self.say(f"{place.name}: takes job {number}")

    def transferred(self, deliveries: Sequence[Delivery], place: Place, *, audit: bool) -> None:
        """Note loans taken over by `recover` or `audit`."""
        for delivery in deliveries:
            entry = self.entry(delivery.envelope)
            number, loan = entry.part.number, entry.loan
            if audit:
                self.wrong(f"the audit found job {number}")
            if loan is None:
                self.wrong(f"job {number} was recovered while it was {entry.state}")
            else:
                if loan.place is not place:  # a supervisor takes over from itself
                    self.given_up(loan.place, loan.session)
                    self._overlaps(entry, loan)
                entry.owed += loan.run_at is not None
                del self._held[loan.place][loan.receipt]
            self._lend(entry, delivery, place)
            self.say(f"{place.name}: recovers job {number}")

    def promoted(self, job_ids: Sequence[str]) -> None:
        """Note that these scheduled jobs are due from now on."""
        for job_id in job_ids:
            self.entries[job_id].due = self._clock()

    def _lend(self, entry: Entry, delivery: Delivery, place: Place) -> None:
        loan = Loan(delivery.receipt, place, delivery.session, self._clock())
        entry.state, entry.loan = "lent", loan
        entry.loans.append(loan)
        self._held.setdefault(place, {})[delivery.receipt] = entry

    def started(self, delivery: Delivery) -> Loan:
        """Note the start of a run."""
        entry = self.entries[delivery.envelope.id]
        loan = next(loan for loan in entry.loans if loan.receipt == delivery.receipt)
        loan.run_at = self._clock()
        self.runs += 1
        if entry.owed:
            self.duplicates += 1
            entry.owed = 0
        self.say(f"{loan.place.name}: starts job {entry.part.number} ({entry.part.kind.value})")
        return loan

    def settled(
        self,
        verb: str,
        outcomes: Sequence[tuple[Delivery, Envelope | None]],
        lost: Sequence[Delivery],
    ) -> None:
        """Note what a settle has changed."""
        refused = {delivery.receipt for delivery in lost}
        for delivery, envelope in outcomes:
            entry = self.entries[delivery.envelope.id]
            loan, number = entry.loan, entry.part.number
            current = loan is not None and loan.receipt == delivery.receipt
            if delivery.receipt in refused:
                if current:
                    self.wrong(f"{verb} of job {number} was refused though it was on loan")
                continue
            if loan is None or not current:
                self.wrong(f"{verb} of job {number} was accepted from one who had lost it")
                continue
            self._settle(verb, entry, loan, envelope)

    def _settle(self, verb: str, entry: Entry, loan: Loan, envelope: Envelope | None) -> None:
        number = entry.part.number
        del self._held[loan.place][loan.receipt]
        entry.loan, loan.verb = None, verb
        self.say(f"{loan.place.name}: {verb} of job {number} ({loan.ending or 'no run'})")
        if loan.ending not in self.may_follow[verb]:
            self.wrong(f"{verb} of job {number}, whose run was {loan.ending}")
        if loan.ending is None and loan.run_at is not None:
            self.wrong(f"{verb} of job {number} while it ran")
        if verb == "ack":
            entry.state = "done"
        elif verb == "bury":
            entry.state = "dead"
            assert envelope is not None
            self._judge(entry, json.loads(envelope.body))
        else:
            entry.state = "stored"
            entry.due = self._clock() + ((envelope.delay if envelope else None) or 0.0)
        self._count(entry)

    def _judge(self, entry: Entry, body: dict[str, Any]) -> None:
        """Check that a dead job deserves it, or has met as many faults as are forgiven."""
        number, kind = entry.part.number, entry.part.kind
        reason = body["failure"]["reason"]
        unlucky = reason == "crashed" and entry.hits >= MAX_CRASHES
        if REASONS.get(kind) != reason and not unlucky:
            self.wrong(f"job {number} ({kind.value}) is dead: {reason}")
        failed = sum(loan.ending == "failed" for loan in entry.loans)
        if reason == "retries" and not MAX_RETRIES + 1 == body["attempt"] <= failed:
            self.wrong(f"job {number} is dead after {body['attempt']} attempts of {failed} runs")
        # A fault while it was held and not running looks like one crash more to others.
        if reason == "crashed" and not 0 <= body["crashes"] - MAX_CRASHES <= entry.hits:
            self.wrong(f"job {number} is dead after {body['crashes']} crashes")

    # --- the end --------------------------------------------------------------------------

    def close(self, states: dict[str, str]) -> None:
        """Check where everything is in the end, by the broker itself.

        Args:
            states: Of the stored jobs, by id.
        """
        for job_id, entry in self.entries.items():
            number, kind = entry.part.number, entry.part.kind
            found = states.get(job_id, "done")
            if entry.state not in ("done", "dead") or found != entry.state:
                self.wrong(f"job {number} ({kind.value}) should be {entry.state} and is {found}")
            if entry.state == "done" and not self._may_be_done(job_id, kind):
                self.wrong(f"job {number} ({kind.value}) is done, and should be dead")
        if self.duplicates > self.exposed:
            self.wrong(f"{self.duplicates} jobs ran twice, and {self.exposed} were in flight")

    def _may_be_done(self, _job_id: str, kind: Kind) -> bool:
        return kind not in REASONS
