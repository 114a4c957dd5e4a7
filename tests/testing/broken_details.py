"""Brokers that are wrong in a detail: an argument read otherwise, an answer that is not true."""

from __future__ import annotations

import dataclasses
import sqlite3

from goose.brokers.base import Session, State
from goose.brokers.sqlite import SQLiteBroker
from tests.testing.broken_brokers import Good


class LentToSomebody(Good):
    def dequeue(self, session, queues, *, limit, wait):
        taken = super().dequeue(session, queues, limit=limit, wait=wait)
        return [d.evolve(session=Session("somebody")) for d in taken]


class ReadySinceTheBoot(Good):
    """Tells instants by a clock that does not count from the epoch."""

    def dequeue(self, session, queues, *, limit, wait):
        taken = super().dequeue(session, queues, limit=limit, wait=wait)
        return [d.evolve(ready_at=d.ready_at % 1000) for d in taken]


class ScheduledIdsForgotten(Good):
    def enqueue(self, envelopes):
        for envelope in envelopes:
            entry = self.store.jobs.get(envelope.id)
            if entry is not None and entry.state is State.SCHEDULED:
                self.store.forget(entry)
        super().enqueue(envelopes)


class IdsIgnoreCase(Good):
    def enqueue(self, envelopes):
        super().enqueue([e.evolve(id=e.id.lower()) for e in envelopes])


class NothingIsTooLittle(Good):
    """Makes one statement of all values, also when there are none."""

    def requeue(self, deliveries):
        if not deliveries:
            raise ValueError("no values given")
        return super().requeue(deliveries)


class PastForgotten(Good):
    def schedule(self, envelopes):
        now = self._clock()
        super().schedule([e for e in envelopes if e.due_at is None or e.due_at > now])


class PromotesAll(Good):
    def promote_due(self, *, limit):
        return super().promote_due(limit=1_000_000)


class YoungestForOldest(Good):
    def queues(self):
        found = super().queues()
        return [dataclasses.replace(s, oldest=None if s.oldest is None else 0.0) for s in found]


class WakeTakesAJob(Good):
    """Looks whether it was woken only after it has lent."""

    woken = False

    def wake(self):
        self.woken = True

    def dequeue(self, session, queues, *, limit, wait):
        taken = super().dequeue(session, queues, limit=limit, wait=wait)
        woken = self.woken
        if taken:
            self.woken = False
        return [] if woken else taken


class AlwaysWaits(Good):
    def dequeue(self, session, queues, *, limit, wait):
        return super().dequeue(session, queues, limit=limit, wait=max(wait, 0.4))


class NobodyIsEverybody(Good):
    """Takes the loans of all others when the session it was told of is not there."""

    def recover(self, session, *, limit, proven=False, dead=None):
        if dead not in (*self.store.living, *self.store.dead):
            with self.store.lock:
                for lease in list(self.store.living.values()):
                    if lease.session != session:
                        self.store.declare_dead(lease)
            dead = None
        return super().recover(session, limit=limit, proven=proven, dead=dead)


class ForgetsAtItsEnd(Good):
    """Keeps its jobs for only as long as the object that stored them."""

    def close(self):
        if not self._closed:
            for entry in list(self.store.jobs.values()):
                self.store.forget(entry)
        super().close()


CAUGHT_BY = {
    LentToSomebody: "a_delivery_names_its_session",
    ReadySinceTheBoot: "a_delivery_says_since_when_it_was_ready",
    ScheduledIdsForgotten: "a_scheduled_id_is_not_stored_again",
    IdsIgnoreCase: "an_id_may_be_any_text",
    NothingIsTooLittle: "nothing_may_be_enqueued",
    PastForgotten: "scheduled_without_a_time_is_ready",
    PromotesAll: "promotion_is_bounded",
    YoungestForOldest: "the_oldest_has_an_age",
    WakeTakesAJob: "wake_takes_no_job",
    AlwaysWaits: "without_waiting_it_returns_at_once",
    NobodyIsEverybody: "a_word_about_nobody_is_ignored",
    ForgetsAtItsEnd: "what_is_stored_outlives_the_object",
}
"""Each broken broker and the test, without its ``test_``, that must fail for it."""


# --- inside a caller's transaction, which the memory broker cannot join ------------------


class CommitsByItself(SQLiteBroker):
    """Stores on a connection of its own, whatever becomes of the caller's transaction."""

    def enqueue_within(self, connection: sqlite3.Connection, envelopes):
        self.schedule(envelopes)


class CommitsForTheCaller(SQLiteBroker):
    def enqueue_within(self, connection: sqlite3.Connection, envelopes):
        super().enqueue_within(connection, envelopes)
        connection.commit()


class LosesWhatIsLater(SQLiteBroker):
    def enqueue_within(self, connection: sqlite3.Connection, envelopes):
        now = [e for e in envelopes if e.delay is None and e.due_at is None]
        super().enqueue_within(connection, now)


WITHIN = {
    CommitsByItself: "a_job_rolls_back_with_its_transaction",
    CommitsForTheCaller: "a_job_commits_with_its_transaction",
    LosesWhatIsLater: "a_job_commits_with_its_transaction",
}
"""The same for brokers that join a transaction."""
