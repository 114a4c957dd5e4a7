"""Brokers that each break one promise, and the tests of the suite that must see it.

Every class is the memory broker with one defect, of a kind that real brokers have had.
`CAUGHT_BY` names the promise that the defect breaks.
"""

from __future__ import annotations

import time

from goose.brokers.base import Promotion, Share, State
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerError

PAUSE = 0.002
"""Seconds a race is held open."""


class Good(MemoryBroker):
    """The memory broker as it is: passes whatever the broken ones fail."""

    @property
    def store(self):
        return self._store


# --- storing -----------------------------------------------------------------------------


class BodiesAsText(Good):
    def enqueue(self, envelopes):
        super().enqueue(
            [e.evolve(body=e.body.decode(errors="replace").encode()) for e in envelopes]
        )


class GroupDropped(Good):
    def enqueue(self, envelopes):
        super().enqueue([e.evolve(group=None) for e in envelopes])


class QueuesIgnoreCase(Good):
    def enqueue(self, envelopes):
        super().enqueue([e.evolve(queue=e.queue.lower()) for e in envelopes])


class DedupeIgnored(Good):
    def enqueue(self, envelopes):
        for envelope in envelopes:
            if envelope.id in self.store.jobs:
                self.store.jobs[envelope.id].envelope = envelope
        super().enqueue(envelopes)


class DoneIdsRemembered(Good):
    def enqueue(self, envelopes):
        seen = self.__dict__.setdefault("seen", set())
        new = [e for e in envelopes if e.id not in seen]
        seen.update(e.id for e in envelopes)
        super().enqueue(new)


class BatchCut(Good):
    def enqueue(self, envelopes):
        super().enqueue(envelopes[:500])


class ScheduleEarly(Good):
    def schedule(self, envelopes):
        super().schedule([e.evolve(delay=e.delay / 2) if e.delay else e for e in envelopes])


class InstantIgnored(Good):
    def schedule(self, envelopes):
        super().schedule([e.evolve(due_at=None) for e in envelopes])


class NamespaceIgnored(Good):
    def __init__(self, url=None, *, namespace=None, **options):
        super().__init__(url, **options)


# --- lending -----------------------------------------------------------------------------


class LastInFirstOut(Good):
    def enqueue(self, envelopes):
        super().enqueue(envelopes)
        self.prioritise([e.id for e in envelopes][::-1])


class DuplicateClaim(Good):
    def dequeue(self, session, queues, *, limit, wait):
        taken = super().dequeue(session, queues, limit=limit, wait=wait)
        for delivery in taken:
            entry = self.store.jobs[delivery.envelope.id]
            entry.line.ready[delivery.envelope.id] = entry
        return taken


class ClaimNotAtomic(Good):
    def dequeue(self, session, queues, *, limit, wait):
        seen = [e for share in queues for e in self.store.each(State.READY, share.queue)][:limit]
        time.sleep(PAUSE)
        with self.store.lock:
            for entry in seen:
                entry.line.ready.pop(entry.envelope.id, None)
            return self.store._lend(seen, self._living(session), self._clock())


class LimitIgnored(Good):
    def dequeue(self, session, queues, *, limit, wait):
        return super().dequeue(session, queues, limit=100, wait=wait)


class AllQueues(Good):
    def dequeue(self, session, queues, *, limit, wait):
        return super().dequeue(
            session, [*queues, *map(Share, list(self.store.lines))], limit=limit, wait=wait
        )


class StrictOrderIgnored(Good):
    def dequeue(self, session, queues, *, limit, wait):
        return super().dequeue(session, queues[::-1], limit=limit, wait=wait)


class LightQueuesStarve(Good):
    def dequeue(self, session, queues, *, limit, wait):
        strict = [Share(share.queue) for share in queues]
        return super().dequeue(session, strict, limit=limit, wait=wait)


class LightQueuesForgotten(Good):
    def dequeue(self, session, queues, *, limit, wait):
        return super().dequeue(session, queues[:1], limit=limit, wait=wait)


class ReceiptReused(Good):
    """The receipt is the job's id, as in systems that ack by id."""

    def dequeue(self, session, queues, *, limit, wait):
        taken = super().dequeue(session, queues, limit=limit, wait=wait)
        return [d.evolve(receipt=d.envelope.id) for d in taken]

    def real(self, delivery):
        entry = self.store.jobs.get(delivery.envelope.id)
        return delivery.evolve(receipt=entry.receipt if entry else 0)

    def ack(self, deliveries):
        return super().ack([self.real(d) for d in deliveries])

    def release(self, deliveries):
        return super().release([self.real(d) for d in deliveries])


class DueToTheFront(Good):
    def promote_due(self, *, limit):
        due = [e for e in self.store.each(State.SCHEDULED, None) if e.due <= self._clock()]
        done = super().promote_due(limit=limit)
        self.prioritise([entry.envelope.id for entry in due])
        return done


# --- waiting -----------------------------------------------------------------------------


class EnqueueWakesNobody(Good):
    def enqueue(self, envelopes):
        with self.store.lock:
            self.store.append(envelopes, self._clock())


class DueWakesNobody(Good):
    def promote_due(self, *, limit):
        with self.store.lock:
            return Promotion(self.store.promote(self._clock(), limit), None)

    def _block(self, seconds, now):
        self.store.changed.wait(seconds)


class WakeIgnored(Good):
    def wake(self):
        pass


class WakeForgotten(Good):
    def wake(self):
        super().wake()
        self._wake_pending = False


class NeverWaits(Good):
    def dequeue(self, session, queues, *, limit, wait):
        return super().dequeue(session, queues, limit=limit, wait=0)


class CloseOnce(Good):
    def close(self):
        if self._closed:
            raise BrokerError("closed already")
        super().close()


# --- settling ----------------------------------------------------------------------------


class AckIgnored(Good):
    def ack(self, deliveries):
        return []


class LostSettlesHidden(Good):
    def ack(self, deliveries):
        super().ack(deliveries)
        return []


class AckTwiceLeavesIt(Good):
    """A loan named twice in a batch is given back and not done."""

    def ack(self, deliveries):
        lost = super().ack(deliveries)
        self.enqueue([d.envelope for d in lost if d in deliveries[:1]])
        return lost


class NoFencing(Good):
    """Settles whatever loan of the job there is."""

    def ack(self, deliveries):
        lost = []
        for delivery in deliveries:
            entry = self.store.jobs.get(delivery.envelope.id)
            receipt = entry.receipt if entry and entry.state is State.RUNNING else 0
            lost += super().ack([delivery.evolve(receipt=receipt)])
        return lost


class ReleaseToTheBack(Good):
    def release(self, deliveries):
        return self.requeue([(d, d.envelope) for d in deliveries])


class ReleaseTurnsAround(Good):
    def release(self, deliveries):
        return [lost for d in deliveries for lost in super(ReleaseTurnsAround, self).release([d])]


class LostOnRequeue(Good):
    def requeue(self, deliveries):
        return self.ack([d for d, _ in deliveries])


class RequeueNotAtomic(Good):
    def requeue(self, deliveries):
        lost = self.ack([d for d, _ in deliveries])
        time.sleep(PAUSE)
        self.schedule([e for d, e in deliveries if d not in lost])
        return lost


class RequeueDuplicates(Good):
    """Stores the next state, whether or not the loan was still good."""

    def requeue(self, deliveries):
        lost = self.ack([d for d, _ in deliveries])
        self.schedule([envelope for _, envelope in deliveries])
        return lost


class RequeueToTheFront(Good):
    def requeue(self, deliveries):
        lost = super().requeue(deliveries)
        self.prioritise([e.id for _, e in deliveries])
        return lost


class RequeueWithoutDelay(Good):
    def requeue(self, deliveries):
        return super().requeue([(d, e.evolve(delay=None)) for d, e in deliveries])


class RequeueKeepsTheQueue(Good):
    def requeue(self, deliveries):
        return super().requeue([(d, e.evolve(queue=d.envelope.queue)) for d, e in deliveries])


class BuryLoses(Good):
    def bury(self, deliveries):
        return self.ack([d for d, _ in deliveries])


class BuryKeepsTheOldBody(Good):
    def bury(self, deliveries):
        return super().bury([(d, d.envelope) for d, _ in deliveries])


CAUGHT_BY = {
    BodiesAsText: "bodies_are_opaque",
    GroupDropped: "an_enqueued_job_comes_back_as_it_was",
    QueuesIgnoreCase: "a_queue_may_have_any_legal_name",
    DedupeIgnored: "a_stored_id_is_not_stored_again",
    DoneIdsRemembered: "an_id_is_free_when_its_job_is_done",
    BatchCut: "a_large_batch_is_stored_whole",
    ScheduleEarly: "a_delayed_job_is_never_early",
    InstantIgnored: "a_job_with_an_instant_is_never_early",
    NamespaceIgnored: "namespaces_are_apart",
    LastInFirstOut: "first_in_first_out",
    DuplicateClaim: "a_lent_job_is_not_lent_again",
    ClaimNotAtomic: "concurrent_dequeues_share_no_job",
    LimitIgnored: "no_more_than_the_limit",
    AllQueues: "only_the_asked_queues_are_looked_at",
    StrictOrderIgnored: "strict_order_of_queues",
    LightQueuesStarve: "weights_share_the_attention",
    LightQueuesForgotten: "weighted_queues_leave_no_job_behind",
    ReceiptReused: "receipts_are_never_used_twice",
    DueToTheFront: "a_due_job_goes_behind_the_backlog",
    EnqueueWakesNobody: "an_enqueue_ends_it",
    DueWakesNobody: "a_due_job_ends_it",
    WakeIgnored: "wake_ends_it",
    WakeForgotten: "wake_is_kept_for_the_next_one",
    NeverWaits: "it_waits_as_long_as_it_may",
    CloseOnce: "close_may_be_called_twice",
    AckIgnored: "an_acked_job_is_stored_nowhere",
    AckTwiceLeavesIt: "one_loan_twice_in_a_batch",
    LostSettlesHidden: "each_loan_is_settled_once",
    NoFencing: "a_stale_receipt_does_not_touch_the_next_loan",
    ReleaseToTheBack: "released_jobs_go_to_the_front",
    ReleaseTurnsAround: "released_jobs_go_to_the_front",
    LostOnRequeue: "a_requeue_replaces_the_job",
    RequeueNotAtomic: "a_requeued_job_is_stored_at_every_moment",
    RequeueDuplicates: "a_lost_loan_is_not_requeued",
    RequeueToTheFront: "a_requeued_job_goes_to_the_back",
    RequeueWithoutDelay: "a_requeued_job_is_never_early",
    RequeueKeepsTheQueue: "a_requeue_replaces_the_job",
    BuryLoses: "a_buried_job_is_kept",
    BuryKeepsTheOldBody: "a_buried_job_is_kept",
}
"""Each broken broker and the test, without its ``test_``, that must fail for it."""
