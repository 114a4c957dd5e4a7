"""Promises that hold however many threads, objects and transactions there are at once."""

# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from goose.brokers.base import (
    Broker,
    Capability,
    Delivery,
    Sessions,
    Share,
    Transactional,
    Upkeep,
)
from goose.errors import SessionLost
from goose.testing.suite.base import QUEUE, Tools, ids, job, jobs, needs, needs_capability


class Crowds(Tools):
    """Nothing is lost or doubled between threads."""

    COUNT = 60

    def test_concurrent_dequeues_share_no_job(self, broker: Broker) -> None:
        """Of several sessions that take at once, each job goes to exactly one."""
        broker.enqueue(jobs(self.COUNT))
        found = self.together(*[self.taker(broker) for _ in range(4)])
        assert ids(jobs(self.COUNT)) == sorted(name for names in found for name in names)

    def test_objects_on_one_store_share_no_job(self, broker: Broker) -> None:
        """The same for several broker objects on one store."""
        other = self.reopen(broker)
        if other is None:
            pytest.skip(f"{type(broker).__name__} has no second object on one store")
        broker.enqueue(jobs(self.COUNT))
        found = self.together(self.taker(broker), self.taker(other))
        assert ids(jobs(self.COUNT)) == sorted(name for names in found for name in names)
        other.close()

    def taker(self, broker: Broker) -> Callable[[], list[str]]:
        """Return a call that takes and acks until a queue is empty, and tells what it took."""
        session = self.open(broker)

        def take() -> list[str]:
            found: list[str] = []
            while lent := broker.dequeue(session, [Share(QUEUE)], limit=4, wait=self.lull):
                assert [] == list(broker.ack(lent)), "somebody else settled our loan"
                found += ids(lent)
            return found

        return take

    def test_concurrent_enqueues_are_all_stored(self, broker: Broker) -> None:
        """What several threads enqueue at once is all there, each thread's jobs in their order."""
        session = self.open(broker)

        def enqueue(prefix: str) -> Callable[[], None]:
            def run() -> None:
                for envelope in jobs(10, prefix=prefix):
                    broker.enqueue([envelope])

            return run

        self.together(*[enqueue(prefix) for prefix in "abc"])
        lent = ids(self.take(broker, session, 30))
        for prefix in "abc":
            assert ids(jobs(10, prefix=prefix)) == [name for name in lent if name[0] == prefix]

    def test_concurrent_enqueues_of_an_id_store_one(self, broker: Broker) -> None:
        """With `DEDUPES`, ids that several threads enqueue at once are stored once each."""
        needs_capability(broker, Capability.DEDUPES)
        session = self.open(broker)
        self.together(*[lambda: broker.enqueue(jobs(10))] * 4)
        assert ids(jobs(10)) == sorted(ids(self.take(broker, session, 10)))
        self.assert_nothing(broker, session, why="each id was stored once")

    def test_concurrent_upkeep_promotes_once(self, broker: Broker) -> None:
        """However many do the upkeep at once, each due job is promoted once."""
        upkeep = needs(broker, Upkeep)
        session = self.open(broker)
        broker.schedule([job(f"later-{n:04}", delay=self.delay) for n in range(20)])
        self.advance(broker, self.delay * 1.2)

        def promote() -> int:
            return sum(upkeep.promote_due(limit=3).promoted for _ in range(8))

        assert sum(self.together(*[promote] * 3)) <= 20
        lent = ids(self.take(broker, session, 20))
        assert [f"later-{n:04}" for n in range(20)] == sorted(lent)
        self.assert_nothing(broker, session, why="each was promoted once")

    def test_settles_and_dequeues_at_once(self, broker: Broker) -> None:
        """While threads take, release and requeue, every job is there until it is acked."""
        broker.enqueue(jobs(self.COUNT))

        def work() -> list[Delivery]:
            session = self.open(broker)
            acked: list[Delivery] = []
            for turn in range(self.COUNT * 3):
                lent = broker.dequeue(session, [Share(QUEUE)], limit=3, wait=0)
                for number, delivery in enumerate(lent):
                    verb = ("ack", "release", "requeue")[(turn + number) % 3]
                    assert [] == list(self.settle(broker, verb, delivery)), "a good loan was lost"
                    if verb == "ack":
                        acked.append(delivery)
            return acked

        acked = [delivery for each in self.together(*[work] * 3) for delivery in each]
        left = self.COUNT - len(acked)
        assert left >= 0, "a job was acked twice"
        rest = self.take(broker, self.open(broker), left) if left else []
        assert ids(jobs(self.COUNT)) == sorted(ids([*acked, *rest]))


class Racing(Tools):
    """Recovery is safe however many do it, and whatever the dying session does meanwhile."""

    ORPHANS = 24

    def test_each_orphan_has_one_heir(self, broker: Broker) -> None:
        """Of several sessions that recover at once, each orphan goes to exactly one."""
        sessions = needs(broker, Sessions)
        dead = self.open(broker, "dead")
        broker.enqueue(jobs(self.ORPHANS))
        self.take(broker, dead, self.ORPHANS)

        def heir() -> list[Delivery]:
            session = self.open(broker, "heir")
            found: list[Delivery] = []
            while orphans := sessions.recover(session, limit=5, dead=dead):
                found += orphans
            return found

        found = [delivery for taken in self.together(*[heir] * 3) for delivery in taken]
        assert ids(jobs(self.ORPHANS)) == sorted(ids(found))
        assert [] == list(broker.ack(found))

    def test_a_job_is_acked_or_transferred(self, broker: Broker) -> None:
        """While a session that is declared dead acks, each job counts for it or for its heir."""
        sessions = needs(broker, Sessions)
        dead, heir = self.open(broker, "dead"), self.open(broker, "heir")
        broker.enqueue(jobs(self.ORPHANS))
        lent = self.take(broker, dead, self.ORPHANS)

        def ack() -> list[Delivery]:
            return [d for d in lent if not broker.ack([d])]

        def recover() -> list[Delivery]:
            found: list[Delivery] = []
            while orphans := sessions.recover(heir, limit=5, dead=dead):
                found += orphans
            return found

        acked, transferred = self.together(ack, recover)
        assert ids(jobs(self.ORPHANS)) == sorted(ids(acked) + ids(transferred))
        assert [] == list(broker.ack(transferred))

    def test_a_dying_session_strands_nothing(self, broker: Broker) -> None:
        """What a session takes while it is declared dead is recovered or was never taken."""
        sessions = needs(broker, Sessions)
        dying, heir = self.open(broker, "dying"), self.open(broker, "heir")
        broker.enqueue(jobs(self.ORPHANS))
        busy = threading.Event()

        def take_until_dead() -> list[Delivery]:
            deadline = time.monotonic() + self.patience
            try:
                while time.monotonic() < deadline:
                    broker.dequeue(dying, [Share(QUEUE)], limit=1, wait=0)
                    busy.set()
            except SessionLost:
                return []
            pytest.fail("a session that was declared dead went on taking jobs")

        def declare_dead() -> list[Delivery]:
            busy.wait(self.patience)  # so that it dies while it takes
            return list(sessions.recover(heir, limit=self.ORPHANS, dead=dying))

        calls: list[Callable[[], list[Delivery]]] = [take_until_dead, declare_dead]
        found = [delivery for taken in self.together(*calls) for delivery in taken]
        found += sessions.recover(heir, limit=self.ORPHANS, dead=dying)
        found += self.take(broker, heir, self.ORPHANS - len(found))
        assert ids(jobs(self.ORPHANS)) == sorted(ids(found))


class Transactions(Tools):
    """A job enqueued in the caller's transaction exists if and only if that commits."""

    def test_a_job_commits_with_its_transaction(self, broker: Broker) -> None:
        """Nothing is lent before the commit, and everything after it, also what is due later."""
        transactional = needs(broker, Transactional)
        connection = self.connection(broker)
        if connection is None:
            pytest.skip(f"{type(self).__name__} has no connection")
        session = self.open(broker)
        transactional.enqueue_within(connection, [job("one"), job("later", delay=self.delay)])
        self.assert_nothing(broker, session, why="the transaction is open")
        connection.commit()
        assert "one" == self.arrival(broker, session).envelope.id
        assert "later" == self.arrival(broker, session).envelope.id
        connection.close()

    def test_a_job_rolls_back_with_its_transaction(self, broker: Broker) -> None:
        """After a rollback the job never was, and its id is free."""
        transactional = needs(broker, Transactional)
        connection = self.connection(broker)
        if connection is None:
            pytest.skip(f"{type(self).__name__} has no connection")
        session = self.open(broker)
        transactional.enqueue_within(connection, [job("one")])
        connection.rollback()
        self.assert_nothing(broker, session, why="the transaction was rolled back")
        broker.enqueue([job("one", body=b"second")])
        assert b"second" == self.take(broker, session, 1)[0].envelope.body
        connection.close()
