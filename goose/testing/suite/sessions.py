"""Promises about sessions: life, death, and what becomes of a dead session's loans."""

# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import uuid

import pytest

from goose.brokers.base import Broker, Session, Sessions, Share
from goose.errors import BrokerError, SessionLost
from goose.testing.suite.base import LIVES, QUEUE, Tools, ids, job, jobs, needs
from goose.testing.suite.settling import VERBS


class Living(Tools):
    """Only a living session takes jobs, and only a silent one dies."""

    def dead_session(self, broker: Broker, heir: Session) -> Session:
        """Return a session that *heir* saw die; it held one job of the queue ``gone``."""
        session = self.open(broker, "dead")
        broker.enqueue([job(f"held by {session.id}", "gone")])
        self.take(broker, session, 1, "gone")
        self.fall_silent(broker, session)
        broker.ack(self.recover(broker, heir, 1))
        return session

    def test_an_unknown_session_takes_nothing(self, broker: Broker) -> None:
        """A dequeue for a session that was never opened raises `SessionLost`."""
        needs(broker, Sessions)
        session = self.open(broker)
        broker.enqueue([job("one")])
        with pytest.raises(SessionLost):
            broker.dequeue(Session("nobody"), [Share(QUEUE)], limit=1, wait=0)
        assert ["one"] == ids(self.take(broker, session, 1))

    def test_a_dead_session_takes_nothing(self, broker: Broker) -> None:
        """A dequeue for a session that was declared dead raises, and the job stays."""
        heir = self.open(broker)
        dead = self.dead_session(broker, heir)
        broker.enqueue([job("one")])
        with pytest.raises(SessionLost):
            broker.dequeue(dead, [Share(QUEUE)], limit=1, wait=0)
        assert ["one"] == ids(self.take(broker, heir, 1))

    def test_a_dead_session_stays_dead(self, broker: Broker) -> None:
        """A heartbeat of a session that was declared dead raises `SessionLost` and revives nothing."""
        sessions = needs(broker, Sessions)
        dead = self.dead_session(broker, self.open(broker))
        for _ in range(2):
            with pytest.raises(SessionLost):
                sessions.heartbeat(dead, ttl=LIVES)
        with pytest.raises(SessionLost):
            broker.dequeue(dead, [Share(QUEUE)], limit=1, wait=0)

    def test_a_dead_session_with_orphans_stays_dead(self, broker: Broker) -> None:
        """The same while some of its jobs wait to be taken over."""
        sessions = needs(broker, Sessions)
        dead, heir = self.open(broker, "dead"), self.open(broker)
        broker.enqueue(jobs(3))
        self.take(broker, dead, 3)
        sessions.recover(heir, limit=1, dead=dead)
        with pytest.raises(SessionLost):
            sessions.heartbeat(dead, ttl=LIVES)
        with pytest.raises(SessionLost):
            broker.dequeue(dead, [Share(QUEUE)], limit=1, wait=0)
        assert not sessions.end(dead), "it ended although orphans of it are left"
        self.recover(broker, heir, 2, dead=dead)

    def test_a_session_may_ask_what_it_holds(self, broker: Broker) -> None:
        """`held` shows all loans of one session, of any queue, and changes nothing about them."""
        sessions = needs(broker, Sessions)
        holder, other, dead = (self.open(broker) for _ in range(3))
        broker.enqueue([job("one"), job("two", "second"), job("other's"), job("orphan")])
        self.take(broker, holder, 1)
        self.take(broker, holder, 1, "second")
        self.take(broker, other, 1)
        self.take(broker, dead, 1)
        for _ in range(2):
            assert ["one", "two"] == sorted(ids(sessions.held(holder)))
        self.recover(broker, other, 1, dead=dead)
        assert ["orphan", "other's"] == sorted(ids(sessions.held(other)))
        for session in (dead, Session("nobody")):
            with pytest.raises(SessionLost):
                sessions.held(session)

    def test_what_is_held_can_be_settled(self, broker: Broker) -> None:
        """Deliveries from `held` carry the receipts that are good, and the jobs as they were lent."""
        sessions = needs(broker, Sessions)
        session = self.open(broker)
        broker.enqueue([job("one", body=b"1", group="g"), job("two")])
        lent = {d.envelope.id: d for d in self.take(broker, session, 2)}
        held = {d.envelope.id: d for d in sessions.held(session)}
        assert set(lent) == set(held)
        for name, delivery in held.items():
            assert lent[name].envelope == delivery.envelope
            assert (lent[name].receipt, session) == (delivery.receipt, delivery.session)
        assert [] == list(broker.ack([held["one"]]))
        assert [] == list(broker.release([held["two"]]))
        assert [] == ids(sessions.held(session))
        assert ["two"] == ids(self.take(broker, session, 1))
        self.assert_nothing(broker, session, why="one is done and one is held")

    def test_a_heartbeat_of_nobody_raises(self, broker: Broker) -> None:
        """A heartbeat does not create a session."""
        sessions = needs(broker, Sessions)
        nobody = Session("nobody")
        for _ in range(2):
            with pytest.raises(SessionLost):
                sessions.heartbeat(nobody, ttl=LIVES)

    def test_heartbeats_keep_a_session_alive(self, broker: Broker) -> None:
        """A session that goes on beating keeps its jobs for longer than any single beat."""
        sessions = needs(broker, Sessions)
        holder, other = self.open(broker), self.open(broker)
        broker.enqueue([job("one")])
        lent = self.take(broker, holder, 1)
        sessions.heartbeat(holder, ttl=self.ttl)
        sessions.heartbeat(holder, ttl=LIVES)
        self.advance(broker, self.ttl * 1.2)
        assert [] == ids(sessions.recover(other, limit=10)), "taken from a living session"
        assert [] == list(broker.ack(lent))

    def test_a_session_is_opened_once(self, broker: Broker) -> None:
        """Opening a session again raises `BrokerError`, while it lives and after."""
        sessions = needs(broker, Sessions)
        session = self.open(broker)
        with pytest.raises(BrokerError):
            sessions.open(session, ttl=LIVES)
        broker.enqueue(jobs(2))
        self.take(broker, session, 2)
        heir = self.open(broker)
        sessions.recover(heir, limit=1, dead=session)
        with pytest.raises(BrokerError):
            sessions.open(session, ttl=LIVES)
        ended = self.open(broker)
        assert sessions.end(ended)
        with pytest.raises(BrokerError):
            sessions.open(ended, ttl=LIVES)

    def test_epochs_are_sessions_of_their_own(self, broker: Broker) -> None:
        """The next epoch of a dead session lives, and holds none of its jobs."""
        sessions = needs(broker, Sessions)
        name = f"process-{uuid.uuid4()}"
        first, second = Session(name, 1), Session(name, 2)
        sessions.open(first, ttl=LIVES)
        broker.enqueue([job("one")])
        stale = self.take(broker, first, 1)
        sessions.open(second, ttl=LIVES)
        orphans = self.recover(broker, second, 1, dead=first)
        assert (second, first) == (orphans[0].session, orphans[0].orphan_of)
        assert stale == list(broker.ack(stale)), "the first epoch's receipt is still good"
        assert [] == list(broker.ack(orphans))

    def test_a_session_ends_only_without_loans(self, broker: Broker) -> None:
        """`end` refuses while a job is held, and says so; then the session ends and takes nothing."""
        sessions = needs(broker, Sessions)
        session, other = self.open(broker), self.open(broker)
        broker.enqueue([job("one")])
        lent = self.take(broker, session, 1)
        assert not sessions.end(session), "it ended with a job in its hands"
        sessions.heartbeat(session, ttl=LIVES)
        assert [] == list(broker.ack(lent)), "a refused end took the job away"
        assert sessions.end(session), "it did not end without jobs"
        with pytest.raises(SessionLost):
            broker.dequeue(session, [Share(QUEUE)], limit=1, wait=0)
        with pytest.raises(SessionLost):
            sessions.heartbeat(session, ttl=LIVES)
        assert [] == ids(sessions.recover(other, limit=10))

    def test_a_silent_session_without_loans_is_forgotten(self, broker: Broker) -> None:
        """Whoever recovers also buries the silent that held nothing; they learn it at the next beat."""
        sessions = needs(broker, Sessions)
        silent, other = self.open(broker), self.open(broker)
        self.fall_silent(broker, silent)
        assert [] == ids(sessions.recover(other, limit=10))
        with pytest.raises(SessionLost):
            sessions.heartbeat(silent, ttl=LIVES)


class Recovering(Tools):
    """A dead session's jobs go to exactly one living session, all of them."""

    def test_orphans_are_transferred(self, broker: Broker) -> None:
        """All jobs of a silent session, of any queue, go to the caller as they were."""
        dead, heir = self.open(broker, "dead"), self.open(broker, "heir")
        broker.enqueue([job("one", body=b"1", group="g"), job("two", "other", b"2")])
        old = self.take(broker, dead, 2, QUEUE, "other")
        self.fall_silent(broker, dead)
        new = self.recover(broker, heir, 2)
        told = {(d.envelope.id, d.envelope.queue, d.envelope.body, d.envelope.group) for d in new}
        assert {("one", QUEUE, b"1", "g"), ("two", "other", b"2", None)} == told
        assert {(heir, dead)} == {(d.session, d.orphan_of) for d in new}
        receipts = {repr(d.receipt) for d in (*old, *new)}
        assert 4 == len(receipts), "a receipt was used again for an orphan"
        sessions = needs(broker, Sessions)
        assert [] == ids(sessions.recover(heir, limit=10)), "an orphan was transferred twice"

    def test_an_orphan_is_not_lent_to_others(self, broker: Broker) -> None:
        """A transferred job is on loan to its heir, and not ready for anybody."""
        dead, heir = self.open(broker, "dead"), self.open(broker, "heir")
        broker.enqueue(jobs(3))
        self.take(broker, dead, 3)
        self.fall_silent(broker, dead)
        self.recover(broker, heir, 3)
        self.assert_nothing(broker, heir, why="its heir holds it already")

    def test_who_is_late_itself_judges_nobody(self, broker: Broker) -> None:
        """After an outage for all, the first to be heard takes nothing from others before it has beaten."""
        sessions = needs(broker, Sessions)
        other, early = self.open(broker, "other"), self.open(broker, "early")
        broker.enqueue(jobs(2))
        self.take(broker, other, 2)
        sessions.heartbeat(early, ttl=self.ttl)
        self.fall_silent(broker, other)
        assert [] == ids(sessions.recover(early, limit=10)), "it was silent for as long"
        sessions.heartbeat(other, ttl=self.ttl)
        self.fall_silent(broker, other)
        sessions.heartbeat(early, ttl=LIVES)
        assert ids(jobs(2)) == sorted(ids(self.recover(broker, early, 2)))

    def test_nothing_is_taken_from_the_living(self, broker: Broker) -> None:
        """Recovery leaves the jobs of living sessions alone, the caller's own among them."""
        sessions = needs(broker, Sessions)
        dead, alive, heir = (self.open(broker) for _ in range(3))
        broker.enqueue(jobs(3))
        self.take(broker, dead, 1)
        others = [*self.take(broker, alive, 1), *self.take(broker, heir, 1)]
        assert [] == ids(sessions.recover(heir, limit=10)), "nobody is dead"
        self.fall_silent(broker, dead)
        assert ["job-0000"] == ids(self.recover(broker, heir, 1))
        assert [] == ids(sessions.recover(alive, limit=10)), "taken from a living session"
        assert [] == list(broker.ack(others)), "a living session lost its job"

    def test_recovery_is_bounded(self, broker: Broker) -> None:
        """One call transfers at most *limit* jobs; the next calls get the rest, each job once."""
        sessions = needs(broker, Sessions)
        dead, heir = self.open(broker, "dead"), self.open(broker, "heir")
        broker.enqueue(jobs(5))
        self.take(broker, dead, 5)
        found: list[str] = []
        for _ in range(5):
            orphans = sessions.recover(heir, limit=2, dead=dead)
            assert len(orphans) <= 2, f"{len(orphans)} orphans with limit=2"
            found += ids(orphans)
        assert ids(jobs(5)) == sorted(found)

    def test_receipts_of_the_dead_are_void(self, broker: Broker) -> None:
        """Once its session is dead, no settle counts, also for jobs not yet transferred."""
        sessions = needs(broker, Sessions)
        heir = self.open(broker, "heir")
        for verb in VERBS:
            dead = self.open(broker, "dead")
            broker.enqueue(jobs(3, prefix=verb))
            stale = self.take(broker, dead, 3)
            found = list(sessions.recover(heir, limit=1, dead=dead))
            for delivery in stale:
                lost = list(self.settle(broker, verb, delivery))
                assert [delivery] == lost, f"a zombie's {verb} was accepted"
            self.assert_nothing(broker, heir, why=f"a zombie's {verb} changes nothing")
            found += self.recover(broker, heir, 2, dead=dead)
            assert [] == list(broker.ack(found)), f"a zombie's {verb} ended its heir's loan"
            self.assert_nothing(broker, heir, why="all of it is done")

    def test_an_heir_settles_in_every_way(self, broker: Broker) -> None:
        """An orphan is its heir's to ack, release, requeue or bury."""
        heir = self.open(broker, "heir")
        for verb in VERBS:
            dead = self.open(broker, "dead")
            broker.enqueue([job(verb)])
            self.take(broker, dead, 1)
            orphan = self.recover(broker, heir, 1, dead=dead)[0]
            assert [] == list(self.settle(broker, verb, orphan)), f"{verb} was refused"
            if verb in ("release", "requeue"):
                broker.ack(self.take(broker, heir, 1))
            self.assert_nothing(broker, heir, why=f"it ended by {verb}")

    def test_an_heir_may_die_too(self, broker: Broker) -> None:
        """Orphans of an heir that dies go on to the next one, which learns who held them last."""
        dead, second, third = (self.open(broker) for _ in range(3))
        broker.enqueue([job("one")])
        self.take(broker, dead, 1)
        self.recover(broker, second, 1, dead=dead)
        orphan = self.recover(broker, third, 1, dead=second)[0]
        assert (third, second) == (orphan.session, orphan.orphan_of)

    def test_a_word_is_enough(self, broker: Broker) -> None:
        """With `dead=`, that session loses its jobs however fresh its heartbeat; no other does."""
        sessions = needs(broker, Sessions)
        dead, silent, heir = (self.open(broker) for _ in range(3))
        broker.enqueue(jobs(2))
        self.take(broker, dead, 1)
        self.take(broker, silent, 1)
        self.fall_silent(broker, silent)
        sessions.heartbeat(dead, ttl=LIVES)
        assert ["job-0000"] == ids(self.recover(broker, heir, 1, dead=dead))
        with pytest.raises(SessionLost):
            sessions.heartbeat(dead, ttl=LIVES)
        assert [] == ids(sessions.recover(heir, limit=10, dead=dead))
        sessions.heartbeat(silent, ttl=LIVES)  # nobody has declared this one dead
        self.fall_silent(broker, silent)
        assert ["job-0001"] == ids(self.recover(broker, heir, 1))

    def test_a_word_about_nobody_is_ignored(self, broker: Broker) -> None:
        """With `dead=` a session that does not exist, nothing happens, and nobody loses a loan."""
        sessions = needs(broker, Sessions)
        holder, heir = self.open(broker), self.open(broker)
        broker.enqueue([job("one")])
        lent = self.take(broker, holder, 1)
        assert [] == ids(sessions.recover(heir, limit=10, dead=Session("nobody")))
        assert [] == list(broker.ack(lent))

    def test_silence_is_no_proof(self, broker: Broker) -> None:
        """With `proven=True` a silent session whose process is there keeps its jobs, and its life."""
        sessions = needs(broker, Sessions)
        silent, heir = self.open(broker), self.open(broker)
        broker.enqueue([job("one")])
        lent = self.take(broker, silent, 1)
        self.fall_silent(broker, silent)
        assert [] == ids(sessions.recover(heir, limit=10, proven=True))
        sessions.heartbeat(silent, ttl=LIVES)
        assert [] == list(broker.ack(lent))

    def test_the_dead_recover_nobody(self, broker: Broker) -> None:
        """A session that is dead or unknown cannot take orphans over: `SessionLost`."""
        sessions = needs(broker, Sessions)
        holder, dead, heir = (self.open(broker) for _ in range(3))
        broker.enqueue([job("one")])
        self.take(broker, holder, 1)
        sessions.recover(heir, limit=1, dead=dead)
        for caller in (dead, Session("nobody")):
            with pytest.raises(SessionLost):
                sessions.recover(caller, limit=10, dead=holder)
        assert ["one"] == ids(self.recover(broker, heir, 1, dead=holder))

    def test_an_audit_finds_nothing(self, broker: Broker) -> None:
        """Every loan belongs to a session that exists, alive or dead, before and after recovery."""
        sessions = needs(broker, Sessions)
        dead, heir = self.open(broker, "dead"), self.open(broker, "heir")
        broker.enqueue(jobs(4))
        self.take(broker, dead, 3)
        assert [] == ids(sessions.audit(heir, limit=10))
        sessions.recover(heir, limit=1, dead=dead)
        assert [] == ids(sessions.audit(heir, limit=10))
        self.recover(broker, heir, 2, dead=dead)
        assert [] == ids(sessions.audit(heir, limit=10))
