"""Promises about settling: ack, release, requeue and bury, and the fence around them."""

# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import threading
import time

from goose.brokers.base import Broker, Inspector, State
from goose.testing.suite.base import QUEUE, Background, Tools, ids, job, jobs, needs

VERBS = ("ack", "release", "requeue", "bury")


class Settling(Tools):
    """A loan is settled once, by who holds it; whatever else is tried changes nothing."""

    LOOKS = 30

    def test_an_acked_job_is_gone(self, broker: Broker) -> None:
        """An acked job is not lent again; the others of its batch are not touched."""
        session = self.open(broker)
        broker.enqueue(jobs(3))
        first, second, third = self.take(broker, session, 3)
        assert [] == list(broker.ack([first, third]))
        broker.release([second])
        assert ids([second]) == ids(self.take(broker, session, 1))
        self.assert_nothing(broker, session, why="two are acked and one is held")

    def test_an_acked_job_is_stored_nowhere(self, broker: Broker) -> None:
        """The inspector finds nothing of a done job."""
        inspector = needs(broker, Inspector)
        broker.enqueue([job("one")])
        broker.ack(self.take(broker, self.open(broker), 1))
        assert None is inspector.find("one")
        assert [] == list(inspector.queues())

    def test_each_loan_is_settled_once(self, broker: Broker) -> None:
        """A second settle of a loan returns it, and changes nothing, whatever the two are."""
        session = self.open(broker)
        for first in VERBS:
            for second in VERBS:
                name = f"{first} then {second}"
                broker.enqueue([job(name)])
                lent = self.take(broker, session, 1)[0]
                assert [] == list(self.settle(broker, first, lent)), f"the {first} was refused"
                refused = list(self.settle(broker, second, lent))
                assert [lent] == refused, f"{name}: the second was not returned as lost"
                if first in ("release", "requeue"):
                    again = self.take(broker, session, 1)
                    assert [name] == ids(again), f"{name}: the job is gone"
                    broker.ack(again)
                self.assert_nothing(broker, session, why=f"{name}: it is done or dead")

    def test_a_stale_receipt_does_not_touch_the_next_loan(self, broker: Broker) -> None:
        """Once a job is lent again, a settle by the earlier receipt leaves the later loan alone."""
        old, new = self.open(broker), self.open(broker)
        for verb in VERBS:
            broker.enqueue([job(verb)])
            stale = self.take(broker, old, 1)[0]
            broker.release([stale])
            good = self.take(broker, new, 1)[0]
            assert [stale] == list(self.settle(broker, verb, stale)), f"{verb} was not refused"
            self.assert_nothing(broker, old, why=f"{verb} by a stale receipt changes nothing")
            assert [] == list(broker.ack([good])), f"a stale {verb} ended the good loan"

    def test_a_settle_returns_only_what_was_lost(self, broker: Broker) -> None:
        """In a batch, what is still ours is settled and the rest comes back."""
        session = self.open(broker)
        broker.enqueue(jobs(4))
        lent = self.take(broker, session, 4)
        broker.ack([lent[1], lent[3]])
        assert ids([lent[1], lent[3]]) == ids(broker.ack(lent))
        self.assert_nothing(broker, session, why="all four are done")

    def test_one_loan_twice_in_a_batch(self, broker: Broker) -> None:
        """A batch that names a loan twice settles it once, and stores no second copy."""
        session = self.open(broker)
        for verb in VERBS:
            broker.enqueue([job(verb)])
            lent = self.take(broker, session, 1)[0]
            lost = self.settle(broker, verb, lent, lent)
            # Whether the second mention counts as lost is the broker's to say.
            assert list(lost) in ([], [lent]), f"{verb} of one loan twice"
            if verb in ("release", "requeue"):
                broker.ack(self.take(broker, session, 1))
            self.assert_nothing(broker, session, why=f"one job was settled by {verb}")

    def test_released_jobs_go_to_the_front(self, broker: Broker) -> None:
        """What is given back unstarted is lent before the backlog, in the order it had."""
        session = self.open(broker)
        broker.enqueue(jobs(6))
        lent = self.take(broker, session, 4)
        assert [] == list(broker.release(lent[1:]))
        assert ids(jobs(6)[1:]) == ids(self.take(broker, session, 5))

    def test_a_requeued_job_goes_to_the_back(self, broker: Broker) -> None:
        """A job that is run again now waits behind the backlog."""
        session = self.open(broker)
        broker.enqueue(jobs(3))
        first = self.take(broker, session, 1)[0]
        assert [] == list(broker.requeue([(first, first.envelope)]))
        assert ["job-0001", "job-0002", "job-0000"] == ids(self.take(broker, session, 3))

    def test_a_requeue_replaces_the_job(self, broker: Broker) -> None:
        """After a requeue there is one job, with the new body, in the new queue."""
        session = self.open(broker)
        broker.enqueue([job("one")])
        lent = self.take(broker, session, 1)[0]
        broker.requeue([(lent, job("one", "other", b"next state"))])
        self.assert_nothing(broker, session, why="it moved to another queue")
        again = self.take(broker, session, 1, "other")[0].envelope
        assert ("one", "other", b"next state") == (again.id, again.queue, again.body)

    def test_a_requeued_job_is_never_early(self, broker: Broker) -> None:
        """A requeue with a delay is lent after it and not before, to anybody."""
        session = self.open(broker)
        broker.enqueue([job("one")])
        lent = self.take(broker, session, 1)[0]
        before = self.clock()
        broker.requeue([(lent, job("one", body=b"next", delay=self.delay))])
        again = self.arrival(broker, session)
        waited = self.clock() - before
        assert b"next" == again.envelope.body
        assert waited >= self.delay - 0.005, f"lent after {waited:.3f} s, not {self.delay}"

    def test_a_requeued_job_is_stored_at_every_moment(self, broker: Broker) -> None:
        """Nobody who looks while a job is requeued ever finds it gone."""
        inspector = needs(broker, Inspector)
        inspector.count(State.RUNNING)  # where nobody sees running jobs, it seems to be gone
        session = self.open(broker)
        broker.enqueue([job("one")])

        enough = threading.Event()
        turns = 0

        def run() -> None:
            nonlocal turns
            while not enough.is_set():
                lent = self.take(broker, session, 1)[0]
                broker.requeue([(lent, job("one", body=b"%d" % turns, delay=0))])
                turns += 1

        thread = Background(run)
        deadline = time.monotonic() + self.patience
        looks = 0
        try:
            while (looks < self.LOOKS or turns < self.LOOKS) and not thread.ended_mono:
                assert inspector.find("one"), "the job was gone for a moment"
                assert time.monotonic() < deadline, f"only {turns} turns and {looks} looks"
                looks += 1
        finally:
            enough.set()
        thread.result(self.patience, "a job is requeued again and again")

    def test_a_lost_loan_is_not_requeued(self, broker: Broker) -> None:
        """A requeue by a receipt that is no longer good stores nothing."""
        session = self.open(broker)
        broker.enqueue([job("one")])
        lent = self.take(broker, session, 1)[0]
        broker.ack([lent])
        assert [lent] == list(broker.requeue([(lent, job("one"))]))
        self.assert_nothing(broker, session, why="it was done before the requeue")

    def test_a_buried_job_is_not_lent(self, broker: Broker) -> None:
        """A dead job is no worker's any more."""
        session = self.open(broker)
        broker.enqueue([job("one")])
        lent = self.take(broker, session, 1)[0]
        assert [] == list(broker.bury([(lent, lent.envelope)]))
        self.assert_nothing(broker, session, why="it is dead")

    def test_a_buried_job_is_kept(self, broker: Broker) -> None:
        """A dead job is found with the body it was buried with, in that envelope's queue."""
        inspector = needs(broker, Inspector)
        session = self.open(broker)
        broker.enqueue([job("one"), job("two")])
        one, two = self.take(broker, session, 2)
        broker.bury([(one, job("one", body=b"why")), (two, job("two", "other", b"moved"))])
        dead = {item.envelope.id: item.envelope for item in inspector.page(State.DEAD).items}
        assert {"one", "two"} == set(dead), "a buried job is missing"
        assert (QUEUE, b"why") == (dead["one"].queue, dead["one"].body)
        assert ("other", b"moved") == (dead["two"].queue, dead["two"].body)
