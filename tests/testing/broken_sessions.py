"""More brokers that each break one promise: about sessions, and about looking at jobs."""

from __future__ import annotations

import dataclasses
import time

from goose.brokers.base import Delivery, Page, State
from goose.brokers.memory.store import Lease
from goose.errors import SessionLost
from tests.testing.broken_brokers import PAUSE, Good

# --- sessions ----------------------------------------------------------------------------


class ClaimWithoutSessionCheck(Good):
    def dequeue(self, session, queues, *, limit, wait):
        self.store.living.setdefault(session, Lease(session, float("inf")))
        return super().dequeue(session, queues, limit=limit, wait=wait)


class SessionCheckedBeforehand(Good):
    """Checks the session, but not in the same step as the claim."""

    def dequeue(self, session, queues, *, limit, wait):
        with self.store.lock:
            lease = self._living(session)
        time.sleep(PAUSE)
        with self.store.lock:
            names = [share.queue for share in queues]
            return self.store.lend(lease, names, limit, self._clock())


class HeartbeatRevives(Good):
    def heartbeat(self, session, *, ttl):
        try:
            super().heartbeat(session, ttl=ttl)
        except SessionLost:
            self.store.living[session] = Lease(session, self._steady() + ttl)


class HeartbeatDoesNothing(Good):
    def heartbeat(self, session, *, ttl):
        with self.store.lock:
            lease = self._living(session)
            lease.deadline = min(lease.deadline, self._steady() + ttl)


class OpenTwice(Good):
    def open(self, session, *, ttl):
        self.store.opened.clear()
        super().open(session, ttl=ttl)


class EndWithLoans(Good):
    def end(self, session):
        with self.store.lock:
            lease = self.store.living.get(session)
            if lease:
                self.store.declare_dead(lease)
            return True


class OrphanLost(Good):
    def recover(self, session, **options):
        taken = super().recover(session, **options)
        self.ack(taken[-1:])
        return taken[:-1]


class OrphanMadeReady(Good):
    """Transfers orphans and lets others take them too."""

    def recover(self, session, **options):
        taken = super().recover(session, **options)
        for delivery in taken:
            entry = self.store.jobs[delivery.envelope.id]
            entry.line.ready[delivery.envelope.id] = entry
        return taken


class OrphanTwice(Good):
    def recover(self, session, **options):
        taken = super().recover(session, **options)
        return [*taken, *taken]


class RecoverNotAtomic(Good):
    """Reads the orphans first and takes them over after, without looking again."""

    def recover(self, session, *, limit, proven=False, dead=None):
        lease = self.store.living.get(dead) or self.store.dead.get(dead)
        seen = list(lease.loans.values())[:limit] if lease else []
        time.sleep(PAUSE)
        with self.store.lock:
            if dead in self.store.living:
                self.store.declare_dead(self.store.living[dead])
            for entry in seen:
                lease.loans.pop(entry.receipt, None)
            return self.store._lend(seen, self._living(session), self._clock(), dead)


class RecoverTakesFromTheLiving(Good):
    def recover(self, session, **options):
        with self.store.lock:
            for lease in self.store.living.values():
                lease.deadline = 0.0
        return super().recover(session, **options)


class RecoverUnbounded(Good):
    def recover(self, session, **options):
        return super().recover(session, **{**options, "limit": 1000})


class RecoverOwnQueueOnly(Good):
    def recover(self, session, **options):
        taken = super().recover(session, **options)
        return [d for d in taken if d.envelope.queue == "mail"]


class RecoverByTheDead(Good):
    def recover(self, session, **options):
        self.store.living.setdefault(session, Lease(session, float("inf")))
        return super().recover(session, **options)


class WordOfTheDeadIgnored(Good):
    def recover(self, session, *, limit, proven=False, dead=None):
        return super().recover(session, limit=limit, proven=proven)


class WordSpreads(Good):
    """Word of one session's death makes it judge the others by their silence."""

    def recover(self, session, **options):
        taken = super().recover(session, **options)
        if options.get("dead"):
            with self.store.lock:
                for lease in list(self.store.living.values()):
                    if lease.deadline <= self._steady():
                        self.store.declare_dead(lease)
        return taken


class ProofIgnored(Good):
    def recover(self, session, *, limit, proven=False, dead=None):
        return super().recover(session, limit=limit, dead=dead)


class NobodyNamed(Good):
    def recover(self, session, **options):
        taken = super().recover(session, **options)
        return [d.evolve(orphan_of=None) for d in taken]


class ZombieReceiptsStayGood(Good):
    """A dead session's receipts are void only once its jobs are transferred."""

    def recover(self, session, **options):
        taken = super().recover(session, **options)
        for lease in self.store.dead.values():
            self.store.loans.update(lease.loans)
        return taken


class HeldByAnybody(Good):
    def held(self, session):
        super().held(session)
        return [
            d for lease in list(self.store.living) for d in super(HeldByAnybody, self).held(lease)
        ]


class HeldLendsAgain(Good):
    """Answers with fresh receipts, so that those in use are void."""

    def held(self, session):
        with self.store.lock:
            lease = self._living(session)
            entries = list(lease.loans.values())
            for entry in entries:
                del self.store.loans[entry.receipt]
            lease.loans.clear()
            return self.store._lend(entries, lease, self._clock())


class AuditTakesFromTheLiving(Good):
    def audit(self, session, *, limit) -> list[Delivery]:
        held = [lease for lease in self.store.living.values() if lease.loans]
        return [d for lease in held for d in self.recover(session, limit=limit, dead=lease.session)]


# --- looking -----------------------------------------------------------------------------


class PageStartsAgain(Good):
    def page(self, state, queue=None, *, limit=100, after=None):
        page = super().page(state, queue, limit=limit)
        return Page(page.items, None if after else page.next)


class DeleteAnyState(Good):
    def delete(self, ids, *, state):
        return [found for each in State if each is not State.RUNNING
                for found in super(DeleteAnyState, self).delete(ids, state=each)]  # fmt: skip


class PrioritiseTurnsAround(Good):
    def prioritise(self, ids):
        return super().prioritise(list(ids)[::-1])[::-1]


class PurgeIgnoresTheAge(Good):
    def purge(self, state, queue=None, *, older_than=0.0):
        return super().purge(state, queue)


class ReplayKeepsTheOldBody(Good):
    def replay(self, envelopes):
        return super().replay(
            [self.store.jobs[e.id].envelope for e in envelopes if e.id in self.store.jobs]
        )


class DeadForEver(Good):
    def promote_due(self, *, limit):
        return dataclasses.replace(super().promote_due(limit=limit), trimmed=0)

    def __init__(self, url=None, **options):
        super().__init__(url, **{**options, "dead_max_age": 1e12, "dead_max_count": 10**9})


CAUGHT_BY = {
    ClaimWithoutSessionCheck: "a_dead_session_takes_nothing",
    SessionCheckedBeforehand: "a_dying_session_strands_nothing",
    HeartbeatRevives: "a_dead_session_stays_dead",
    HeartbeatDoesNothing: "heartbeats_keep_a_session_alive",
    OpenTwice: "a_session_is_opened_once",
    EndWithLoans: "a_session_ends_only_without_loans",
    OrphanLost: "orphans_are_transferred",
    OrphanMadeReady: "an_orphan_is_not_lent_to_others",
    OrphanTwice: "orphans_are_transferred",
    RecoverNotAtomic: "each_orphan_has_one_heir",
    RecoverTakesFromTheLiving: "nothing_is_taken_from_the_living",
    RecoverUnbounded: "recovery_is_bounded",
    RecoverOwnQueueOnly: "orphans_are_transferred",
    RecoverByTheDead: "the_dead_recover_nobody",
    WordOfTheDeadIgnored: "a_word_is_enough",
    WordSpreads: "a_word_is_enough",
    ProofIgnored: "silence_is_no_proof",
    NobodyNamed: "orphans_are_transferred",
    ZombieReceiptsStayGood: "receipts_of_the_dead_are_void",
    HeldByAnybody: "a_session_may_ask_what_it_holds",
    HeldLendsAgain: "what_is_held_can_be_settled",
    AuditTakesFromTheLiving: "an_audit_finds_nothing",
    PageStartsAgain: "pages_list_everything_in_order",
    DeleteAnyState: "delete_looks_at_the_state",
    PrioritiseTurnsAround: "prioritise_moves_to_the_front",
    PurgeIgnoresTheAge: "purge_may_look_at_the_age",
    ReplayKeepsTheOldBody: "replay_makes_dead_jobs_ready",
    DeadForEver: "too_many_dead_jobs_are_dropped",
}
"""Each broken broker and the test, without its ``test_``, that must fail for it."""
