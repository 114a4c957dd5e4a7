"""What a memory broker holds, and the moves a job makes in it.

Every stored job is one `Entry`. It stands in exactly one of the four sets of its queue's
`Line`, which are its states: scheduled, ready, running, dead. Each method of `Store` is
one move between them, O(1) or O(log n) for each job. Nothing here locks or tells the
time: the broker calls it under ``changed``, with the instant.

Order: every move stamps the entry with ``order``, counting up at the back of a line and
down at its front, so that ``ready`` is sorted by it at any moment. What is due is moved to
the back before anything newer gets there, see docs/adr/0002-order-of-jobs.md.

While jobs with a group are ready in a queue, what gets ready there stands in `Line.groups`, a row
for each group (those without one have a row, too), and the rows take turns. What got ready
before them is lent before them. See docs/adr/0023-turns-of-groups.md.
"""

from __future__ import annotations

import heapq
import threading
from collections import ChainMap, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from goose.brokers.base import Delivery, Session, State
from goose.jobs import Envelope

READY, RUNNING, SCHEDULED, DEAD = State.READY, State.RUNNING, State.SCHEDULED, State.DEAD


class Line:
    """The jobs of one queue, by state and id; ``ready`` and ``dead`` are in order."""

    __slots__ = ("dead", "groups", "ready", "running", "scheduled")

    def __init__(self) -> None:
        self.ready: OrderedDict[str, Entry] = OrderedDict()
        self.groups: OrderedDict[str | None, OrderedDict[str, Entry]] = OrderedDict()
        """Ready jobs that take turns, by group, the one whose turn it is first; no row is empty."""
        self.dead: OrderedDict[str, Entry] = OrderedDict()
        self.scheduled: dict[str, Entry] = {}
        self.running: dict[str, Entry] = {}

    def of(self, state: State) -> Mapping[str, Entry]:
        """Return the jobs in *state*."""
        if state is READY:
            return ChainMap(self.ready, *self.groups.values()) if self.groups else self.ready
        if state is RUNNING:
            return self.running
        return self.scheduled if state is SCHEDULED else self.dead

    def stand(self, entry: Entry) -> None:
        """Let a ready job wait behind those of its group, or behind all if there are no groups."""
        group = entry.envelope.group
        if group is None and not self.groups:
            self.ready[entry.envelope.id] = entry
        else:
            self.groups.setdefault(group, OrderedDict())[entry.envelope.id] = entry

    def stand_first(self, entry: Entry) -> None:
        """Let a ready job that was lent and not run be the first of its group, whose turn it is."""
        group = entry.envelope.group
        if group is None and (self.ready or not self.groups):
            row = self.ready
        else:
            row = self.groups.setdefault(group, OrderedDict())
            self.groups.move_to_end(group, last=False)
        row[entry.envelope.id] = entry
        row.move_to_end(entry.envelope.id, last=False)

    def leave(self, entry: Entry) -> None:
        """Let a job that is not running stand nowhere."""
        id_, group = entry.envelope.id, entry.envelope.group
        if entry.state is SCHEDULED:
            del self.scheduled[id_]
        elif entry.state is DEAD:
            del self.dead[id_]
        elif self.ready.pop(id_, None) is None:
            row = self.groups[group]
            del row[id_]
            if not row:
                del self.groups[group]

    def take(self) -> Entry | None:
        """Let the ready job that comes next stand nowhere, and return it."""
        if self.ready:
            return self.ready.popitem(last=False)[1]
        if not self.groups:
            return None
        group, row = next(iter(self.groups.items()))
        entry = row.popitem(last=False)[1]
        if row:
            self.groups.move_to_end(group)
        else:
            del self.groups[group]
        return entry


class Entry:
    """One stored job. Instants are epoch seconds by the broker's clock."""

    __slots__ = (
        "due",  # when it is due, if it is scheduled
        "envelope",
        "lease",  # of whom it is lent to, if it is running
        "line",
        "order",
        "ready_at",  # when it became ready; a release does not change it
        "receipt",  # of its latest loan
        "since",  # when it came into its state
        "state",
    )
    due: float
    lease: Lease
    line: Line
    order: int
    ready_at: float
    receipt: int
    since: float
    state: State

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope


class Lease:
    """A session, the instant it may be declared dead after, and what is lent to it."""

    __slots__ = ("deadline", "loans", "session")

    def __init__(self, session: Session, deadline: float) -> None:
        self.session = session
        self.deadline = deadline
        self.loans: dict[object, Entry] = {}


class Store:
    """All jobs and sessions of one namespace. Callers hold `lock` around every call."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Guards everything here."""
        self.changed = threading.Condition(self.lock)
        """Notified when a blocked dequeue should look again."""
        self.jobs: dict[str, Entry] = {}
        self.lines: defaultdict[str, Line] = defaultdict(Line)
        self.loans: dict[object, Entry] = {}
        """Every receipt that is good, and nothing else: this is the fence."""
        self.living: dict[Session, Lease] = {}
        self.dead: dict[Session, Lease] = {}
        """Declared dead, and still holding orphans."""
        self.opened: dict[str, int] = {}
        """The highest epoch each session id was opened with."""
        self.shelf: dict[str, Any] = {}
        """What `goose.stores.memory` keeps beside the jobs."""
        self._agenda: list[tuple[float, int, Entry]] = []
        self._stale = 0
        self._back = 0
        self._front = 0
        self._receipt = 0

    # --- into a line ---------------------------------------------------------------------

    def append(self, envelopes: Sequence[Envelope], now: float) -> None:
        """Store new jobs, ready now; those whose id is stored already are left out."""
        jobs, lines, order = self.jobs, self.lines, self._back
        for envelope in envelopes:
            if envelope.id in jobs:
                continue
            # The same as `place`, spelled out: this is the hot path.
            order += 1
            jobs[envelope.id] = entry = Entry(envelope)
            entry.line = line = lines[envelope.queue]
            line.stand(entry)
            entry.order, entry.state = order, READY
            entry.since = entry.ready_at = now
        self._back = order

    def place(self, entry: Entry, now: float, due: float) -> None:
        """Put an entry that stands nowhere where its envelope and *due* say."""
        envelope = entry.envelope
        entry.line = self.lines[envelope.queue]
        self.jobs[envelope.id] = entry
        if due <= now:
            self.make_ready(entry, now)
            return
        self._back += 1
        entry.order, entry.state, entry.since, entry.due = self._back, SCHEDULED, now, due
        entry.line.scheduled[envelope.id] = entry
        heapq.heappush(self._agenda, (due, entry.order, entry))

    def make_ready(self, entry: Entry, now: float) -> None:
        """Put an entry that stands nowhere at the back of its line, or of its group."""
        self._back += 1
        entry.order, entry.state = self._back, READY
        entry.since = entry.ready_at = now
        entry.line.stand(entry)

    def give_back(self, entry: Entry) -> None:
        """Put an entry that stands nowhere where it was before it was lent."""
        self._front -= 1
        entry.order, entry.state, entry.since = self._front, READY, entry.ready_at
        entry.line.stand_first(entry)

    def make_first(self, entry: Entry) -> None:
        """Put an entry that stands nowhere before all of its line."""
        self._front -= 1
        entry.order, entry.state, entry.since = self._front, READY, entry.ready_at
        entry.line.ready[entry.envelope.id] = entry
        entry.line.ready.move_to_end(entry.envelope.id, last=False)

    def make_dead(self, entry: Entry, now: float) -> None:
        """Put an entry that stands nowhere behind the dead of its envelope's queue."""
        self._back += 1
        entry.order, entry.state, entry.since = self._back, DEAD, now
        entry.line = self.lines[entry.envelope.queue]
        entry.line.dead[entry.envelope.id] = entry

    # --- out of one ----------------------------------------------------------------------

    def remove(self, entry: Entry) -> None:
        """Take an entry that is not running out of its line."""
        entry.line.leave(entry)
        if entry.state is SCHEDULED:
            entry.order = 0  # its place on the agenda is stale from here on
            self._stale += 1
            if self._stale > 64 and self._stale * 2 > len(self._agenda):
                self._agenda = [item for item in self._agenda if self._is_current(item)]
                heapq.heapify(self._agenda)
                self._stale = 0

    def forget(self, entry: Entry) -> None:
        """Remove an entry that is not running for good."""
        self.remove(entry)
        del self.jobs[entry.envelope.id]

    # --- loans ---------------------------------------------------------------------------

    def lend(self, lease: Lease, queues: Sequence[str], limit: int, now: float) -> list[Delivery]:
        """Lend up to *limit* ready jobs, earlier queues first."""
        taken: list[Delivery] = []
        for queue in queues:
            line = self.lines.get(queue)
            if line is None:
                continue
            entries: list[Entry] = []
            while len(taken) + len(entries) < limit and (entry := line.take()) is not None:
                entries.append(entry)
            taken += self._lend(entries, lease, now)
        return taken

    def _lend(
        self, entries: Sequence[Entry], lease: Lease, now: float, orphan_of: Session | None = None
    ) -> list[Delivery]:
        receipt, loans, own, session = self._receipt, self.loans, lease.loans, lease.session
        lent: list[Delivery] = []
        for entry in entries:
            receipt += 1
            entry.state, entry.since, entry.receipt, entry.lease = RUNNING, now, receipt, lease
            envelope = entry.envelope
            entry.line.running[envelope.id] = loans[receipt] = own[receipt] = entry
            lent.append(Delivery(envelope, receipt, session, entry.ready_at, orphan_of))
        self._receipt = receipt
        return lent

    def settle(self, delivery: Delivery) -> Entry | None:
        """End a loan and return its entry, standing nowhere; None if it was over already."""
        entry = self.loans.pop(delivery.receipt, None)
        if entry is not None:
            del entry.lease.loans[delivery.receipt]
            del entry.line.running[entry.envelope.id]
        return entry

    def declare_dead(self, lease: Lease) -> None:
        """From now on the session can take nothing, and its receipts are void."""
        del self.living[lease.session]
        if lease.loans:
            self.dead[lease.session] = lease
            for receipt in lease.loans:
                del self.loans[receipt]

    def transfer(self, orphans: Lease, heir: Lease, limit: int, now: float) -> list[Delivery]:
        """Lend up to *limit* jobs of a dead session to *heir*, in the order they were lent."""
        receipts = list(orphans.loans)[:limit]
        taken = [orphans.loans.pop(receipt) for receipt in receipts]
        if not orphans.loans:
            del self.dead[orphans.session]
        return self._lend(taken, heir, now, orphans.session)

    # --- time ----------------------------------------------------------------------------

    def promote(self, now: float, limit: int | None = None) -> int:
        """Make up to *limit* due jobs ready, in the order they were due; return how many."""
        promoted = 0
        while self._agenda and self._agenda[0][0] <= now and promoted != limit:
            item = heapq.heappop(self._agenda)
            if not self._is_current(item):
                self._stale -= 1
                continue
            entry = item[2]
            del entry.line.scheduled[entry.envelope.id]
            self.make_ready(entry, now)
            entry.since = entry.ready_at = entry.due
            promoted += 1
        return promoted

    def next_due(self) -> float | None:
        """Return when the next scheduled job is due, or None if there is none."""
        while self._agenda and not self._is_current(self._agenda[0]):
            heapq.heappop(self._agenda)
            self._stale -= 1
        return self._agenda[0][0] if self._agenda else None

    @staticmethod
    def _is_current(item: tuple[float, int, Entry]) -> bool:
        return item[2].state is SCHEDULED and item[2].order == item[1]

    def trim(self, died_before: float, kept: int, limit: int) -> int:
        """Drop up to *limit* dead jobs that are too old, or too many in their queue."""
        trimmed = 0
        for line in self.lines.values():
            while line.dead and trimmed < limit:
                oldest = next(iter(line.dead.values()))
                if oldest.since > died_before and len(line.dead) <= kept:
                    break
                self.forget(oldest)
                trimmed += 1
        return trimmed

    # --- looking -------------------------------------------------------------------------

    def each(self, state: State, queue: str | None) -> Iterator[Entry]:
        """Return the entries in *state*, of *queue* or of all."""
        names = list(self.lines) if queue is None else [queue]
        for name in names:
            if name in self.lines:
                yield from list(self.lines[name].of(state).values())
