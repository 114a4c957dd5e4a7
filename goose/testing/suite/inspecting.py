"""Promises of the optional `Inspector` and `Upkeep`: looking at jobs, and moving them by hand."""

# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from goose.brokers.base import Broker, Inspector, State, Upkeep
from goose.errors import GooseError
from goose.testing.suite.base import QUEUE, Tools, ids, job, jobs, needs

YEAR = 365 * 86400.0


class Inspecting(Tools):
    """Each job is in one state and is shown there; changes apply to the asked state only."""

    def one_of_each(self, broker: Broker) -> Inspector:
        """Store a job in every state, each named for its state."""
        inspector = needs(broker, Inspector)
        session = self.open(broker)
        broker.enqueue([job("dead"), job("running")])
        lent = self.take(broker, session, 2)
        broker.bury([(lent[0], lent[0].envelope)])
        broker.schedule([job("scheduled", delay=YEAR)])
        self.rest(broker)
        broker.enqueue([job("ready")])
        return inspector

    def bury(self, broker: Broker, count: int, prefix: str = "job") -> None:
        """Store *count* dead jobs."""
        broker.enqueue(jobs(count, prefix=prefix))
        lent = self.take(broker, self.open(broker), count)
        broker.bury([(delivery, delivery.envelope) for delivery in lent])
        self.rest(broker)

    def listed(self, inspector: Inspector, state: State, queue: str | None = None) -> list[str]:
        """Return the ids in *state*, page by page."""
        found: list[str] = []
        after: str | None = None
        while True:
            page = inspector.page(state, queue, limit=2, after=after)
            assert len(page.items) <= 2, "a page is longer than its limit"
            assert {state} >= {item.state for item in page.items}, "a page shows another state"
            found += [item.envelope.id for item in page.items]
            if page.next is None:
                return found
            after = page.next

    def test_each_job_is_in_one_state(self, broker: Broker) -> None:
        """Counts, listings and `find` agree about where each job is."""
        inspector = self.one_of_each(broker)
        for state in State:
            assert 1 == inspector.count(state), f"count of {state.value} jobs"
            assert 1 == inspector.count(state, QUEUE)
            assert 0 == inspector.count(state, "other")
            assert [state.value] == self.listed(inspector, state)
            found = inspector.find(state.value)
            assert found is not None, f"the {state.value} job is not found"
            assert (state, state.value) == (found.state, found.envelope.id)
            assert (state is State.RUNNING) == (found.session is not None)
        assert None is inspector.find("nobody")

    def test_queues_are_counted(self, broker: Broker) -> None:
        """Every queue with a job is listed by name, with all its counts."""
        inspector = self.one_of_each(broker)
        inspector.count(State.RUNNING)  # where nobody sees running jobs, their count is missing
        broker.enqueue(jobs(2, "another", "a"))
        told = {stats.queue: dict(stats.counts) for stats in inspector.queues()}
        assert ["another", QUEUE] == [stats.queue for stats in inspector.queues()]
        assert dict.fromkeys(State, 1) == told[QUEUE]
        assert {**dict.fromkeys(State, 0), State.READY: 2} == told["another"]

    def test_the_oldest_has_an_age(self, broker: Broker) -> None:
        """A queue tells for how many seconds its longest waiting ready job has waited."""
        inspector = needs(broker, Inspector)
        if not self.tells_ages:
            pytest.skip(f"{type(broker).__name__} does not tell ages")
        broker.enqueue([job("one")])
        self.advance(broker, self.delay)
        broker.enqueue([job("two")])
        broker.schedule([job("later", "scheduled-only", delay=YEAR)])
        told = {stats.queue: stats.oldest for stats in inspector.queues()}
        oldest = told[QUEUE]
        assert oldest is not None
        assert self.delay * 0.9 <= oldest <= self.delay + self.patience
        assert None is told["scheduled-only"]

    def test_pages_list_everything_in_order(self, broker: Broker) -> None:
        """Page by page, ready jobs come by their turn, scheduled ones by time, dead ones by death."""
        inspector = needs(broker, Inspector)
        self.bury(broker, 5, "dead")
        broker.enqueue([*jobs(5), job("elsewhere", "other")])
        broker.schedule([job(f"later-{n}", delay=YEAR - n) for n in range(5)])
        assert ids(jobs(5)) == self.listed(inspector, State.READY, QUEUE)
        assert [*ids(jobs(5)), "elsewhere"] == sorted(
            self.listed(inspector, State.READY), key=lambda name: name == "elsewhere"
        )
        assert [f"later-{n}" for n in (4, 3, 2, 1, 0)] == self.listed(inspector, State.SCHEDULED)
        assert ids(jobs(5, prefix="dead")) == sorted(self.listed(inspector, State.DEAD))

    def test_paging_survives_changes(self, broker: Broker) -> None:
        """A listing goes on rightly after jobs it has shown already are gone."""
        inspector = needs(broker, Inspector)
        broker.enqueue(jobs(5))
        page = inspector.page(State.READY, QUEUE, limit=2)
        inspector.delete(ids(jobs(2)), state=State.READY)
        rest = inspector.page(State.READY, QUEUE, limit=10, after=page.next)
        assert ids(jobs(5)[2:]) == [item.envelope.id for item in rest.items]
        assert None is rest.next

    def test_delete_looks_at_the_state(self, broker: Broker) -> None:
        """Jobs are deleted only from the state that is named; what was deleted is told."""
        inspector = self.one_of_each(broker)
        names = [state.value for state in State]
        for state in (State.SCHEDULED, State.READY, State.DEAD):
            assert [state.value] == list(inspector.delete([*names, "nobody"], state=state))
            assert None is inspector.find(state.value)
            assert [] == list(inspector.delete(names, state=state))
        assert inspector.find("running"), "a running job was deleted"

    def test_running_jobs_are_not_deleted(self, broker: Broker) -> None:
        """Nobody deletes or purges what a worker is running."""
        inspector = self.one_of_each(broker)
        # Refusing with an error is as good as doing nothing.
        with contextlib.suppress(GooseError, ValueError):
            assert [] == list(inspector.delete(["running"], state=State.RUNNING))
        with contextlib.suppress(GooseError, ValueError):
            assert 0 == inspector.purge(State.RUNNING)
        assert 1 == inspector.count(State.RUNNING)

    def test_a_deleted_job_is_not_lent(self, broker: Broker) -> None:
        """What was deleted while it waited is never run, and its id is free."""
        inspector = needs(broker, Inspector)
        session = self.open(broker)
        broker.enqueue(jobs(3))
        inspector.delete(["job-0001"], state=State.READY)
        assert ["job-0000", "job-0002"] == ids(self.take(broker, session, 2))
        self.assert_nothing(broker, session, why="it was deleted")
        broker.enqueue([job("job-0001", body=b"new")])
        assert b"new" == self.take(broker, session, 1)[0].envelope.body

    def test_promote_makes_scheduled_jobs_ready(self, broker: Broker) -> None:
        """A promoted job is lent at once, behind the backlog; others keep their state."""
        inspector = self.one_of_each(broker)
        session = self.open(broker)
        told = inspector.promote(["scheduled", "ready", "running", "dead", "nobody"])
        assert ["scheduled"] == list(told)
        assert ["ready", "scheduled"] == ids(self.take(broker, session, 2))
        self.assert_nothing(broker, session, why="the others are running or dead")

    def test_prioritise_moves_to_the_front(self, broker: Broker) -> None:
        """Prioritised jobs are lent first, in the order given; only ready ones move."""
        inspector = self.one_of_each(broker)
        session = self.open(broker)
        broker.enqueue(jobs(4))
        wanted = ["job-0003", "dead", "job-0001", "scheduled", "running", "nobody"]
        assert ["job-0003", "job-0001"] == list(inspector.prioritise(wanted))
        assert ["job-0003", "job-0001", "ready", "job-0000", "job-0002"] == ids(
            self.take(broker, session, 5)
        )

    def test_purge_removes_a_state(self, broker: Broker) -> None:
        """A purge removes what is in one state, of one queue or of all, and counts it."""
        inspector = self.one_of_each(broker)
        broker.enqueue(jobs(2, "other", "other"))
        assert 2 == inspector.purge(State.READY, "other")
        for state in (State.READY, State.SCHEDULED, State.DEAD):
            assert 1 == inspector.purge(state), f"purge of {state.value}"
            assert 0 == inspector.count(state)
        assert 1 == inspector.count(State.RUNNING)

    def test_purge_may_look_at_the_age(self, broker: Broker) -> None:
        """With *older_than*, only jobs that are in their state for that long are removed."""
        inspector = needs(broker, Inspector)
        stores: dict[State, Callable[[str], None]] = {
            State.DEAD: lambda prefix: self.bury(broker, 1, prefix),
            State.READY: lambda prefix: broker.enqueue(jobs(1, prefix=prefix)),
        }
        age = self.delay * 2
        for state, store in stores.items():
            store("old")
            self.advance(broker, age * 1.1)
            store("new")
            assert 0 == inspector.purge(state, older_than=YEAR)
            assert 1 == inspector.purge(state, older_than=age), "of an old and a new job"
            assert ["new-0000"] == self.listed(inspector, state)
            inspector.purge(state)

    def test_replay_makes_dead_jobs_ready(self, broker: Broker) -> None:
        """Replayed jobs are lent with their new bodies and queues, at the back; others stay."""
        self.bury(broker, 1, "second")
        inspector = self.one_of_each(broker)
        session = self.open(broker)
        told = inspector.replay(
            [
                job("dead", body=b"fresh"),
                job("second-0000", "other", b"moved"),
                *(job(name) for name in ("ready", "running", "scheduled", "nobody")),
            ]
        )
        assert ["dead", "second-0000"] == sorted(told)
        assert ["ready", "dead"] == ids(lent := self.take(broker, session, 2))
        assert b"fresh" == lent[1].envelope.body
        assert b"moved" == self.take(broker, session, 1, "other")[0].envelope.body
        assert 0 == inspector.count(State.DEAD)

    def test_states_follow_a_job(self, broker: Broker) -> None:
        """A job's state is what was done to it last."""
        inspector = needs(broker, Inspector)
        inspector.count(State.RUNNING)  # where nobody sees running jobs, none of this can be seen
        session = self.open(broker)

        def state() -> State | None:
            found = inspector.find("one")
            return None if found is None else found.state

        broker.enqueue([job("one")])
        assert State.READY is state()
        lent = self.take(broker, session, 1)
        found = inspector.find("one")
        assert found is not None
        assert (State.RUNNING, session) == (found.state, found.session)
        broker.release(lent)
        assert State.READY is state()
        lent = self.take(broker, session, 1)
        broker.requeue([(lent[0], job("one", delay=self.delay))])
        assert State.SCHEDULED is state()
        again = self.arrival(broker, session)
        broker.bury([(again, again.envelope)])
        assert State.DEAD is state()
        inspector.replay([job("one")])
        broker.ack(self.take(broker, session, 1))
        assert None is state()


class Upkeeping(Tools):
    """Due jobs are promoted in bounded steps, and dead ones are not kept for ever."""

    def test_promotion_says_when_to_come_again(self, broker: Broker) -> None:
        """Upkeep tells the seconds until the next job is due, or that there is none."""
        upkeep = needs(broker, Upkeep)
        assert None is upkeep.promote_due(limit=10).next_due_in
        broker.schedule([job("far", delay=YEAR), job("near", delay=100.0)])
        next_due_in = upkeep.promote_due(limit=10).next_due_in
        assert next_due_in is not None
        assert 100 - self.patience <= next_due_in <= 100.01

    def test_promotion_is_bounded(self, broker: Broker) -> None:
        """One call promotes at most *limit* jobs; further calls promote the rest."""
        upkeep = needs(broker, Upkeep)
        session = self.open(broker)
        broker.schedule([job(f"later-{n}", delay=self.delay) for n in range(5)])
        self.advance(broker, self.delay * 1.2)
        for _ in range(3):
            assert upkeep.promote_due(limit=2).promoted <= 2
        assert None is upkeep.promote_due(limit=2).next_due_in
        assert 5 == len(self.take(broker, session, 5))

    def test_old_dead_jobs_are_dropped(self, broker: Broker) -> None:
        """Upkeep drops dead jobs over the age it was told, and counts them."""
        keeping = self.make_keeping(dead_max_age=self.delay * 3, dead_max_count=1000)
        if keeping is None:
            pytest.skip(f"{type(broker).__name__} has no limits of dead jobs")
        self.drop(keeping, 3, kept=2, wait=self.delay * 3.3)

    def test_too_many_dead_jobs_are_dropped(self, broker: Broker) -> None:
        """Upkeep drops the oldest dead jobs of a queue over the count it was told."""
        keeping = self.make_keeping(dead_max_age=YEAR, dead_max_count=2)
        if keeping is None:
            pytest.skip(f"{type(broker).__name__} has no limits of dead jobs")
        self.drop(keeping, 3, kept=2, wait=0)

    def drop(self, broker: Broker, old: int, *, kept: int, wait: float) -> None:
        """Bury some, then *kept* more, and see that only these stay."""
        upkeep, inspector = needs(broker, Upkeep), needs(broker, Inspector)
        session = self.open(broker)
        for names in (jobs(old, prefix="old"), jobs(kept, prefix="new")):
            broker.enqueue(names)
            for delivery in self.take(broker, session, len(names)):
                broker.bury([(delivery, delivery.envelope)])
            self.advance(broker, wait if names[0].id.startswith("old") else 0)
        trimmed = sum(upkeep.promote_due(limit=2).trimmed for _ in range(4))
        left = [item.envelope.id for item in inspector.page(State.DEAD).items]
        assert ids(jobs(kept, prefix="new")) == left
        # A broker may drop some of those over the count at once when it buries the next.
        assert trimmed <= old
        broker.close()
