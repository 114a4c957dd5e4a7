"""Promises about lending: which jobs `Broker.dequeue` lends, in which order, to whom."""

from __future__ import annotations

from goose.brokers.base import Broker, Capability, Share
from goose.testing.suite.base import QUEUE, Tools, ids, job, jobs, needs_capability

DRAWS = 100


class Lending(Tools):
    """Each ready job is lent to one session, in order."""

    def test_first_in_first_out(self, broker: Broker) -> None:
        """Jobs are lent in the order they were enqueued, over batches and calls."""
        session = self.open(broker)
        everything = jobs(12)
        broker.enqueue(everything[:5])
        for envelope in everything[5:]:
            broker.enqueue([envelope])
        assert ids(everything) == ids(self.take(broker, session, 12, limit=5))

    def test_no_more_than_the_limit(self, broker: Broker) -> None:
        """A dequeue lends at most *limit* jobs, from all its queues together."""
        session = self.open(broker)
        broker.enqueue([*jobs(5, "one", "a"), *jobs(5, "two", "b")])
        shares = [Share("one"), Share("two")]
        found: list[str] = []
        for limit in (1, 3, 6):
            self.keep_up(broker)
            lent = broker.dequeue(session, shares, limit=limit, wait=self.patience)
            assert 1 <= len(lent) <= limit, f"{len(lent)} jobs with limit={limit}"
            found += ids(lent)
        assert len(set(found)) == len(found), "a job was lent twice"

    def test_a_lent_job_is_not_lent_again(self, broker: Broker) -> None:
        """Neither its holder nor anybody else gets a job that is on loan."""
        holder, other = self.open(broker), self.open(broker)
        broker.enqueue(jobs(3))
        self.take(broker, holder, 3)
        self.assert_nothing(broker, holder, why="it holds them")
        self.assert_nothing(broker, other, why="another session holds them")

    def test_a_delivery_names_its_session(self, broker: Broker) -> None:
        """A delivery says who holds it, and that it was nobody's before."""
        session = self.open(broker)
        broker.enqueue([job("one")])
        lent = self.take(broker, session, 1)[0]
        assert (session, None) == (lent.session, lent.orphan_of)

    def test_a_delivery_says_since_when_it_was_ready(self, broker: Broker) -> None:
        """With a clock of its own, a broker that tells `ready_at` tells when the job was stored."""
        needs_capability(broker, Capability.CLOCK)
        session = self.open(broker)
        before = self.clock()
        broker.enqueue([job("one")])
        after = self.clock()
        ready_at = self.take(broker, session, 1)[0].ready_at
        if ready_at is not None:
            assert before - 1 <= ready_at <= after + 1, "ready_at is not when the job was stored"

    def test_receipts_are_never_used_twice(self, broker: Broker) -> None:
        """Every loan has a receipt of its own, also the next loan of the same job."""
        session = self.open(broker)
        broker.enqueue(jobs(3))
        receipts: list[object] = []
        for _ in range(4):
            lent = self.take(broker, session, 3)
            receipts += [delivery.receipt for delivery in lent]
            broker.release(lent)
        assert len(receipts) == len({repr(receipt) for receipt in receipts}), "a receipt came twice"

    def test_only_the_asked_queues_are_looked_at(self, broker: Broker) -> None:
        """A job of another queue is not lent."""
        session = self.open(broker)
        broker.enqueue([job("elsewhere", "other"), job("here")])
        assert ["here"] == ids(self.take(broker, session, 1, QUEUE, "third"))
        self.assert_nothing(broker, session, QUEUE, "third", why="it is in another queue")

    def test_strict_order_of_queues(self, broker: Broker) -> None:
        """Without weights, a queue is looked at only when those before it are empty."""
        session = self.open(broker)
        broker.enqueue(jobs(3, "low", "low"))
        broker.enqueue(jobs(3, "high", "high"))
        lent = ids(self.take(broker, session, 6, "high", "low", limit=1))
        assert ids(jobs(3, "high", "high")) + ids(jobs(3, "low", "low")) == lent

    def test_weights_share_the_attention(self, broker: Broker) -> None:
        """With weights 3 and 1, both queues are served, the heavy one clearly more often."""
        session = self.open(broker)
        broker.enqueue([*jobs(DRAWS, "heavy", "heavy"), *jobs(DRAWS, "light", "light")])
        shares = [Share("heavy", 3), Share("light", 1)]
        light = 0
        for _ in range(DRAWS):
            lent = broker.dequeue(session, shares, limit=1, wait=self.patience)
            assert 1 == len(lent), "nothing lent from two full queues"
            light += lent[0].envelope.queue == "light"
        # 25 are expected with a deviation of 4.3: a fair broker is outside once in a million.
        assert 3 <= light <= 48, f"{light} of {DRAWS} jobs came from the queue with weight 1 of 4"

    def test_weighted_queues_leave_no_job_behind(self, broker: Broker) -> None:
        """With weights, a queue's jobs are lent also when the heavier queues are empty."""
        session = self.open(broker)
        broker.enqueue(jobs(5, "light", "light"))
        shares = [Share("heavy", 99), Share("light", 1)]
        lent: list[str] = []
        while len(lent) < 5:
            taken = broker.dequeue(session, shares, limit=2, wait=self.patience)
            assert taken, "nothing lent although the light queue has jobs"
            lent += ids(taken)
        assert ids(jobs(5, "light", "light")) == lent

    def test_a_due_job_goes_behind_the_backlog(self, broker: Broker) -> None:
        """A newly due job is lent after all that was ready before it was due."""
        session = self.open(broker)
        broker.enqueue([job("a")])
        broker.schedule([job("due", delay=self.delay * 2)])
        broker.enqueue([job("b")])
        self.advance(broker, self.delay * 2.2)
        self.keep_up(broker)
        assert ["a", "b", "due"] == ids(self.take(broker, session, 3))

    def test_a_due_job_goes_before_what_came_later(self, broker: Broker) -> None:
        """What is enqueued after a job was made due is lent after it."""
        session = self.open(broker)
        broker.schedule([job("due", delay=self.delay)])
        self.advance(broker, self.delay * 1.2)
        self.keep_up(broker)
        broker.enqueue([job("later")])
        assert ["due", "later"] == ids(self.take(broker, session, 2))

    def test_due_jobs_go_by_their_instants(self, broker: Broker) -> None:
        """Jobs that are due at different instants are lent in the order of these."""
        session = self.open(broker)
        step = self.delay / 3
        later = {"third": 3 * step, "first": step, "second": 2 * step}
        broker.schedule([job(name, delay=delay) for name, delay in later.items()])
        self.advance(broker, self.delay * 1.2)
        assert ["first", "second", "third"] == ids(self.take(broker, session, 3))
