"""Promises about blocking: what a waiting `Broker.dequeue` waits for, and how it ends."""

from __future__ import annotations

import time

from goose.brokers.base import Broker, Share
from goose.testing.suite.base import QUEUE, Tools, ids, job


class Waiting(Tools):
    """A blocked dequeue ends promptly when there is a reason, and only then."""

    def test_without_waiting_it_returns_at_once(self, broker: Broker) -> None:
        """With *wait* 0, an empty queue is said to be empty at once."""
        session = self.open(broker)
        before = time.monotonic()
        assert [] == list(broker.dequeue(session, [Share(QUEUE)], limit=1, wait=0))
        assert time.monotonic() - before < self.prompt

    def test_it_waits_as_long_as_it_may(self, broker: Broker) -> None:
        """While nothing is ready, a dequeue blocks for *wait* seconds and lends nothing."""
        session = self.open(broker)
        before = time.monotonic()
        lent = broker.dequeue(session, [Share(QUEUE)], limit=1, wait=0.2)
        waited = time.monotonic() - before
        assert [] == list(lent)
        assert 0.19 <= waited <= 0.2 + self.prompt, f"waited {waited:.3f} s of 0.2"

    def test_an_enqueue_ends_it(self, broker: Broker) -> None:
        """A job that is enqueued goes to a waiting dequeue promptly."""
        thread = self.blocked(broker, self.open(broker), "other", QUEUE)
        broker.enqueue([job("one")])
        assert ["one"] == ids(thread.result(self.prompt, "an enqueue wakes a blocked dequeue"))

    def test_a_due_job_ends_it(self, broker: Broker) -> None:
        """A job that becomes due goes to a waiting dequeue promptly."""
        broker.schedule([job("one", delay=self.delay)])
        thread = self.blocked(broker, self.open(broker))
        self.advance(broker, self.delay * 1.1)
        self.keep_up(broker)
        assert ["one"] == ids(thread.result(self.prompt, "a due job wakes a blocked dequeue"))

    def test_a_job_scheduled_meanwhile_ends_it(self, broker: Broker) -> None:
        """The same for a job that is scheduled while the dequeue waits for a later one."""
        broker.schedule([job("far", delay=3600.0)])
        thread = self.blocked(broker, self.open(broker))
        broker.schedule([job("one", delay=self.delay)])
        self.advance(broker, self.delay * 1.1)
        self.keep_up(broker)
        assert ["one"] == ids(thread.result(self.prompt, "a due job wakes a blocked dequeue"))

    def test_a_release_ends_it(self, broker: Broker) -> None:
        """A job that is given back goes to a waiting dequeue promptly."""
        broker.enqueue([job("one")])
        lent = self.take(broker, self.open(broker), 1)
        thread = self.blocked(broker, self.open(broker))
        broker.release(lent)
        assert ["one"] == ids(thread.result(self.prompt, "a release wakes a blocked dequeue"))

    def test_a_requeue_ends_it(self, broker: Broker) -> None:
        """A job that is requeued without a delay goes to a waiting dequeue promptly."""
        broker.enqueue([job("one", "elsewhere")])
        lent = self.take(broker, self.open(broker), 1, "elsewhere")
        thread = self.blocked(broker, self.open(broker))
        broker.requeue([(lent[0], job("one"))])
        assert ["one"] == ids(thread.result(self.prompt, "a requeue wakes a blocked dequeue"))

    def test_wake_ends_it(self, broker: Broker) -> None:
        """`wake` ends a dequeue that waits in another thread, which lends nothing."""
        thread = self.blocked(broker, self.open(broker))
        broker.wake()
        assert [] == ids(thread.result(self.prompt, "wake ends a blocked dequeue"))

    def test_wake_is_kept_for_the_next_one(self, broker: Broker) -> None:
        """If none waits when `wake` is called, the next dequeue returns at once."""
        session = self.open(broker)
        broker.wake()
        thread = self.blocked(broker, session)
        assert [] == ids(thread.result(self.prompt, "a wake is kept for the next dequeue"))

    def test_wake_takes_no_job(self, broker: Broker) -> None:
        """Jobs are lent after a `wake` as if it had not been."""
        session = self.open(broker)
        broker.wake()
        broker.enqueue([job("one")])
        assert ["one"] == ids(self.take(broker, session, 1))

    def test_close_may_be_called_twice(self, broker: Broker) -> None:
        """Closing again does nothing."""
        closed = self.make_broker()
        closed.close()
        closed.close()
