"""Promises about storing: `Broker.enqueue` and `Broker.schedule`."""

# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import queue
from collections.abc import Callable

import pytest

from goose.brokers.base import Broker, Capability, Inspector, Posting, State
from goose.testing.suite.base import QUEUE, Tools, ids, job, jobs, needs, needs_capability

YEAR = 365 * 86400.0


class Storing(Tools):
    """What is stored comes back as it was, once, and never early."""

    def test_an_enqueued_job_comes_back_as_it_was(self, broker: Broker) -> None:
        """Id, queue, body and group of a lent job are those that were enqueued."""
        session = self.open(broker)
        broker.enqueue([job("one", body=b'{"v":1}', group="tenant")])
        lent = self.take(broker, session, 1)[0].envelope
        assert ("one", QUEUE, b'{"v":1}', "tenant") == (lent.id, lent.queue, lent.body, lent.group)

    def test_bodies_are_opaque(self, broker: Broker) -> None:
        """Any bytes come back unchanged: none, NUL, every value, bad UTF-8, a megabyte."""
        session = self.open(broker)
        bodies = {
            "empty": b"",
            "nul": b"\0",
            "every": bytes(range(256)),
            "bad": b"\xff\xfe\xed\xa0\x80",
            "quotes": b"'\"\\; -- %s $1 {0}\r\n",
            "large": bytes(range(256)) * 4096,
        }
        broker.enqueue([job(name, body=body) for name, body in bodies.items()])
        lent = self.take(broker, session, len(bodies))
        for delivery in lent:
            name = delivery.envelope.id
            assert bodies[name] == delivery.envelope.body, f"the {name} body changed"

    def test_an_id_may_be_any_text(self, broker: Broker) -> None:
        """Ids are text, and not only plain letters: they come back, and settle, as they are."""
        session = self.open(broker)
        names = ["ü-日本-🪿", "a b'c\"d{e}\\f%g", "x" * 200, "ID", "id"]
        broker.enqueue([job(name) for name in names])
        lent = self.take(broker, session, len(names))
        assert sorted(names) == sorted(ids(lent))
        assert [] == list(broker.ack(lent))

    def test_a_queue_may_have_any_legal_name(self, broker: Broker) -> None:
        """Every legal queue name is a queue of its own, whatever case and length it has."""
        session = self.open(broker)
        names = ["a", "A", "_x.y:z-0", "q" * 100, "9"]
        broker.enqueue([job(f"in {name}", name) for name in names])
        for name in names:
            lent = self.take(broker, session, 1, name)[0].envelope
            assert (f"in {name}", name) == (lent.id, lent.queue)
            self.assert_nothing(broker, session, name, why="it belongs to another queue")

    def test_a_large_batch_is_stored_whole(self, broker: Broker) -> None:
        """All of a thousand jobs enqueued in one call can be taken."""
        session = self.open(broker)
        broker.enqueue(jobs(1000))
        assert ids(jobs(1000)) == sorted(ids(self.take(broker, session, 1000, limit=100)))

    def test_nothing_may_be_enqueued(self, broker: Broker) -> None:
        """Every verb that takes several takes none, and does nothing."""
        session = self.open(broker)
        broker.enqueue([])
        broker.schedule([])
        for settle in (broker.ack, broker.release, broker.requeue, broker.bury):
            assert [] == list(settle([]))
        self.assert_nothing(broker, session, why="nothing was enqueued")

    def test_posted_jobs_are_stored_when_that_is_told(self, broker: Broker) -> None:
        """What `Posting.post` takes is stored once its callers are told, each once, of nothing wrong."""
        posting = needs(broker, Posting)
        session = self.open(broker)
        broker.enqueue(jobs(1))  # so that the queue is known
        told: queue.SimpleQueue[tuple[str, BaseException | None]] = queue.SimpleQueue()

        def by(name: str) -> Callable[[BaseException | None], None]:
            return lambda error: told.put((name, error))

        calls = [([job(f"{name} {n}") for n in range(3)], by(name)) for name in "abc"]
        assert posting.post([*calls, ([], by("none"))]), "it has to wait for something"
        answers = [told.get(timeout=self.patience) for _ in range(4)]
        assert [(name, None) for name in ("a", "b", "c", "none")] == sorted(answers)
        assert 10 == len(self.take(broker, session, 10))
        assert told.empty(), "somebody was told twice"

    def test_what_cannot_be_posted_is_not_stored(self, broker: Broker) -> None:
        """A `Posting.post` that says no has stored nothing and told nobody."""
        posting = needs(broker, Posting)
        session = self.open(broker)
        broker.enqueue([job("known")])
        told: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        calls = [([job("old")], told.put), ([job("new", "unused")], told.put), ([], told.put)]
        names = [QUEUE]
        if posting.post(calls):
            assert [None] * 3 == [told.get(timeout=self.patience) for _ in calls]
            names = [QUEUE, QUEUE, "unused"]
        for name in names:
            self.take(broker, session, 1, name)
        for name in (QUEUE, "unused"):
            self.assert_nothing(broker, session, name, why="it was refused, or is lent")
        assert told.empty(), "somebody was told of what was refused, or twice"

    def test_a_stored_id_is_not_stored_again(self, broker: Broker) -> None:
        """With `DEDUPES`, an id that waits, runs or is dead is left out, and its body stays."""
        needs_capability(broker, Capability.DEDUPES)
        session = self.open(broker)
        first, other = b"first", b"second"
        broker.enqueue([job("waits", body=first), job("waits", body=other)])
        broker.enqueue([job("waits", body=other), job("new")])
        broker.schedule([job("waits", body=other, delay=YEAR)])
        lent = self.take(broker, session, 2)
        assert ["waits", "new"] == ids(lent)
        assert first == lent[0].envelope.body, "the second body replaced the first"
        broker.enqueue([job("waits", body=other)])
        self.assert_nothing(broker, session, why="a job of this id is running")
        broker.bury([(lent[0], lent[0].envelope)])
        broker.enqueue([job("waits", body=other)])
        self.assert_nothing(broker, session, why="a job of this id is dead")

    def test_a_scheduled_id_is_not_stored_again(self, broker: Broker) -> None:
        """With `DEDUPES`, an id that is scheduled is left out, and keeps its time."""
        needs_capability(broker, Capability.DEDUPES)
        session = self.open(broker)
        broker.schedule([job("later", delay=YEAR)])
        broker.enqueue([job("later")])
        broker.schedule([job("later", delay=0)])
        self.assert_nothing(broker, session, why="it is scheduled for next year")

    def test_an_id_is_free_when_its_job_is_done(self, broker: Broker) -> None:
        """Ids are unique among stored jobs only: a done job's id can be enqueued again."""
        session = self.open(broker)
        for body in (b"first", b"second"):
            broker.enqueue([job("again", body=body)])
            lent = self.take(broker, session, 1)
            assert body == lent[0].envelope.body
            assert [] == list(broker.ack(lent))
        self.assert_nothing(broker, session, why="both are done")

    def test_scheduled_without_a_time_is_ready(self, broker: Broker) -> None:
        """No delay, a delay of 0 and an instant that has passed all mean now."""
        session = self.open(broker)
        past = self.clock() - 3600
        broker.schedule([job("none"), job("zero", delay=0.0), job("past", due_at=past)])
        assert ["none", "past", "zero"] == sorted(ids(self.take(broker, session, 3)))

    def test_a_delayed_job_is_never_early(self, broker: Broker) -> None:
        """A job is lent after its delay and not before, by any count of dequeues."""
        session = self.open(broker)
        before = self.clock()
        broker.schedule([job("later", delay=self.delay)])
        assert "later" == self.arrival(broker, session).envelope.id
        waited = self.clock() - before
        assert waited >= self.delay - 0.005, f"lent after {waited:.3f} s, not {self.delay}"

    def test_a_job_with_an_instant_is_never_early(self, broker: Broker) -> None:
        """With a clock of its own, a broker lends a job at its instant and not before."""
        needs_capability(broker, Capability.CLOCK)
        session = self.open(broker)
        due_at = self.clock() + self.delay
        broker.schedule([job("later", due_at=due_at)])
        assert "later" == self.arrival(broker, session).envelope.id
        early = due_at - self.clock()
        assert early <= 0.005, f"lent {early:.3f} s early"

    def test_a_far_instant_is_kept(self, broker: Broker) -> None:
        """A job may be scheduled for next year; it is not lent today."""
        session = self.open(broker)
        broker.schedule([job("delay", delay=YEAR), job("due", due_at=self.clock() + YEAR)])
        self.assert_nothing(broker, session, why="both are due next year")

    def test_a_due_job_is_lent_once(self, broker: Broker) -> None:
        """However often upkeep runs, each due job is made ready once."""
        session = self.open(broker)
        broker.schedule([job(f"later-{n}", delay=self.delay) for n in range(5)])
        lent = [self.arrival(broker, session) for _ in range(5)]
        assert [f"later-{n}" for n in range(5)] == sorted(ids(lent))
        self.assert_nothing(broker, session, why="each was lent already")

    def test_what_is_stored_outlives_the_object(self, broker: Broker) -> None:
        """A second broker on the same store lends what the first one stored and closed on."""
        first = self.make_broker()
        second = self.reopen(first)
        if second is None:
            pytest.skip(f"{type(broker).__name__} has no second object on one store")
        first.enqueue(jobs(2))
        first.close()
        session = self.open(second)
        assert ids(jobs(2)) == ids(self.take(second, session, 2))
        second.close()

    def test_namespaces_are_apart(self, broker: Broker) -> None:
        """The same id in the same queue of another namespace is another job."""
        other = self.other_namespace(broker)
        if other is None:
            pytest.skip(f"{type(broker).__name__} has no namespaces")
        here, there = self.open(broker), self.open(other)
        broker.enqueue([job("same", body=b"here")])
        self.assert_nothing(other, there, why="it is in another namespace")
        other.enqueue([job("same", body=b"there")])
        assert b"here" == self.take(broker, here, 1)[0].envelope.body
        assert b"there" == self.take(other, there, 1)[0].envelope.body
        if isinstance(other, Inspector):
            assert 1 == needs(other, Inspector).count(State.RUNNING)
        other.close()
