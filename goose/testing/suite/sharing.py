"""Promises of the optional `Grouped`: groups of jobs take turns in their queue."""

# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

from goose.brokers.base import (
    Broker,
    Capability,
    Delivery,
    Grouped,
    Inspector,
    Session,
    Sessions,
    State,
    Transactional,
)
from goose.jobs import Envelope
from goose.testing.suite.base import QUEUE, Tools, ids, job, needs, needs_capability


def of(group: str | None, count: int, start: int = 0, queue: str = QUEUE) -> list[Envelope]:
    """Return *count* envelopes of *group*, named for it, with ids that sort in their order."""
    name = group or "none"
    return [job(f"{name}-{n:04}", queue, group=group) for n in range(start, start + count)]


def groups(lent: Sequence[Delivery]) -> list[str]:
    """Return the groups that the jobs are named for."""
    return [name.partition("-")[0] for name in ids(lent)]


class Sharing(Tools):
    """Nobody waits for the backlog of another group."""

    def one_by_one(self, broker: Broker, session: Session, count: int) -> list[Delivery]:
        """Lend *count* jobs, each by a call of its own."""
        return self.take(broker, session, count, limit=1)

    def test_groups_take_turns(self, broker: Broker) -> None:
        """Whoever has few jobs waits for one of each other group; within a group order stays."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue([*of("a", 6), *of("b", 2), *of("c", 1)])
        lent = self.one_by_one(broker, session, 9)
        assert ["a", "b", "c"] == sorted(groups(lent[:3]))
        assert ["a", "b"] == sorted(groups(lent[3:5]))
        for group, count in (("a", 6), ("b", 2), ("c", 1)):
            assert ids(of(group, count)) == [id_ for id_ in ids(lent) if id_.startswith(group)]

    def test_groups_take_turns_in_batches(self, broker: Broker) -> None:
        """The same if many jobs are lent and stored at a time."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue(of("a", 60))
        broker.enqueue([*of("b", 60), *of("c", 60)])
        counts = Counter(groups(self.take(broker, session, 90, limit=45)))
        assert all(28 <= counts[group] <= 32 for group in "abc"), f"no equal shares: {counts}"

    def test_a_late_group_need_not_wait(self, broker: Broker) -> None:
        """A group that comes when others have a backlog has its turn after one job of each."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue([*of("a", 40), *of("b", 40)])
        self.take(broker, session, 30)
        broker.enqueue(of("c", 2))
        lent = groups(self.one_by_one(broker, session, 8))
        assert "c" in lent[:4], f"its first job waited: {lent}"
        assert 2 == lent.count("c"), f"its second job waited: {lent}"

    def test_no_group_is_served_twice_while_another_waits(self, broker: Broker) -> None:
        """Whatever comes when, a group that waits sees two jobs of another one before its own at most."""
        needs(broker, Grouped)
        session = self.open(broker)
        chance = random.Random(5)
        stored: defaultdict[str, int] = defaultdict(int)
        passed: defaultdict[tuple[str, str], int] = defaultdict(int)
        waiting: Counter[str] = Counter()
        for _ in range(60):
            group = chance.choice("aaaaabcd")
            count = chance.randrange(1, 6)
            broker.enqueue(of(group, count, stored[group]))
            stored[group] += count
            waiting[group] += count
            for _ in range(min(chance.randrange(4), waiting.total())):
                [lent] = groups(self.one_by_one(broker, session, 1))
                for other in waiting:
                    if other == lent or not waiting[other]:
                        passed[lent, other] = passed[other, lent] = 0
                    else:
                        passed[lent, other] += 1
                        passed[other, lent] = 0
                        assert passed[lent, other] <= 2, f"{other} waited for {lent}"
                waiting[lent] -= 1

    def test_jobs_without_a_group_are_one_more(self, broker: Broker) -> None:
        """What comes without a group while there are groups has turns like one."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue(of("a", 10))
        broker.enqueue(of(None, 10))
        counts = Counter(groups(self.one_by_one(broker, session, 10)))
        assert all(4 <= counts[name] <= 6 for name in ("a", "none")), f"no equal shares: {counts}"
        lent = ids(self.take(broker, session, 10))
        assert 10 == len(lent)

    def test_what_was_ready_before_the_first_group_goes_first(self, broker: Broker) -> None:
        """Jobs without a group that were alone in their queue are lent before what came later."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue(of(None, 3))
        broker.enqueue(of("a", 3))
        lent = self.one_by_one(broker, session, 6)
        assert ids([*of(None, 3), *of("a", 3)]) == ids(lent)

    def test_an_empty_queue_begins_anew(self, broker: Broker) -> None:
        """Once no grouped job is left, the order is that of the queue again."""
        needs(broker, Grouped)
        session = self.open(broker)
        for start in (0, 5):
            broker.enqueue([*of("a", 5, start), *of("b", 5, start)])
            broker.ack(self.take(broker, session, 10))
        self.assert_nothing(broker, session, why="all are done")
        broker.enqueue(of(None, 4))
        assert ids(of(None, 4)) == ids(self.take(broker, session, 4))

    def test_queues_share_by_themselves(self, broker: Broker) -> None:
        """A group's backlog in one queue takes nothing from it in another."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue([*of("a", 20, queue="one"), *of("a", 2, 50, "two"), *of("b", 2, 50, "two")])
        self.take(broker, session, 5, "one")
        assert ["a", "b"] == sorted(groups(self.take(broker, session, 2, "two")))

    def test_released_jobs_have_their_turn_again(self, broker: Broker) -> None:
        """What is given back unstarted comes before what had not been lent."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue([*of("a", 4), *of("b", 4)])
        lent = self.take(broker, session, 4)
        assert [] == list(broker.release(lent))
        again = self.take(broker, session, 4)
        assert sorted(ids(lent)) == sorted(ids(again))
        for group in "ab":
            assert ids(of(group, 2)) == [id_ for id_ in ids(again) if id_.startswith(group)]

    def test_a_late_release_keeps_nobody_waiting(self, broker: Broker) -> None:
        """What is given back long after its turn is next, and whoever comes then begins no earlier."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue([*of("a", 1), *of("b", 90)])
        late = next(d for d in self.take(broker, session, 2) if d.envelope.group == "a")
        self.take(broker, session, 40)
        assert [] == list(broker.release([late]))
        broker.enqueue(of("c", 30))
        lent = groups(self.one_by_one(broker, session, 11))
        assert "a" in lent[:2], f"what was given back waits: {lent}"
        assert lent.count("b") >= 4, f"it waited: {lent}"

    def test_released_jobs_stay_before_their_group(self, broker: Broker) -> None:
        """What was given back is lent before later jobs of its group, whatever else is there."""
        needs(broker, Grouped)
        session = self.open(broker)
        for others in (of("b", 20), []):
            broker.enqueue([*of("a", 5), *others])
            lent = self.one_by_one(broker, session, 9 if others else 5)
            broker.release([each for each in lent if each.envelope.group == "a"])
            broker.enqueue(of("a", 3, 5))
            rest = self.one_by_one(broker, session, 8 + (16 if others else 0))
            mine = [id_ for id_ in ids(rest) if id_.startswith("a")]
            assert ids(of("a", 8)) == mine
            broker.ack([*lent, *rest])

    def test_released_jobs_without_a_group_keep_their_place(self, broker: Broker) -> None:
        """What was ready before the first group goes first again, in its order."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue(of(None, 3))
        broker.enqueue(of("a", 1))
        broker.release(self.take(broker, session, 1))
        assert ids([*of(None, 3), *of("a", 1)]) == ids(self.one_by_one(broker, session, 4))

    def test_a_group_that_comes_back_begins_at_the_head(self, broker: Broker) -> None:
        """Nothing is held against a group that was served alone, and found its queue empty."""
        needs(broker, Grouped)
        session = self.open(broker)
        for number in range(30):
            broker.enqueue(of("a", 1, number))
            broker.ack(self.take(broker, session, 1))
        broker.enqueue(of("b", 60))
        broker.enqueue(of("a", 1, 30))
        lent = groups(self.one_by_one(broker, session, 4))
        assert "a" in lent, f"it waited: {lent}"

    def test_one_job_over_and_over_starves_nobody(self, broker: Broker) -> None:
        """A job that is requeued at once, and jobs that come one by one, wait for the others' turns."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue([*of("a", 1), *of("b", 30)])
        served: list[str] = []
        for number in range(20):
            [lent] = self.one_by_one(broker, session, 1)
            served += groups([lent])
            if lent.envelope.group == "a" and number % 2:
                broker.requeue([(lent, lent.envelope)])
            elif lent.envelope.group == "a":
                broker.ack([lent])
                broker.enqueue(of("a", 1, number + 1))
        assert served.count("b") >= 8, f"it starved: {served}"

    def test_writers_at_once_have_one_share(self, broker: Broker) -> None:
        """A group whose jobs are enqueued by many threads has no more turns than another."""
        needs(broker, Grouped)
        session = self.open(broker)

        def enqueue(start: int) -> None:
            for envelope in of("a", 10, start):
                broker.enqueue([envelope])

        broker.enqueue(of("b", 40))
        self.together(*[lambda start=start: enqueue(start) for start in range(0, 60, 10)])
        lent = groups(self.one_by_one(broker, session, 30))
        assert 11 <= lent.count("b") <= 19, f"no equal shares: {lent}"

    def test_a_requeued_job_goes_behind_its_group(self, broker: Broker) -> None:
        """A job that is to run again waits behind the others of its group, and no other."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.enqueue([*of("a", 3), *of("b", 12)])
        first = next(d for d in self.take(broker, session, 2) if d.envelope.group == "a")
        assert [] == list(broker.requeue([(first, first.envelope)]))
        lent = ids(self.one_by_one(broker, session, 8))
        assert ["a-0001", "a-0002", "a-0000"] == [id_ for id_ in lent if id_.startswith("a")]

    def test_due_jobs_take_turns(self, broker: Broker) -> None:
        """Scheduled jobs of one group, all due at once, are no backlog for others either."""
        needs(broker, Grouped)
        session = self.open(broker)
        broker.schedule([job(f"a-{n:04}", delay=self.delay, group="a") for n in range(30)])
        self.advance(broker, self.delay * 1.2)
        self.keep_up(broker)
        broker.enqueue(of("b", 2))
        lent = groups(self.one_by_one(broker, session, 6))
        assert 2 == lent.count("b"), f"it waited: {lent}"

    def test_grouped_jobs_are_stored_once(self, broker: Broker) -> None:
        """With `DEDUPES`, an id that is stored already changes nothing, whatever its group."""
        needs(broker, Grouped)
        needs_capability(broker, Capability.DEDUPES)
        session = self.open(broker)
        broker.enqueue([*of("a", 2), *of("a", 2)])
        broker.enqueue(of("a", 3))
        assert ids(of("a", 3)) == ids(self.take(broker, session, 3))
        self.assert_nothing(broker, session, why="each id was stored once")

    def test_orphans_of_groups_come_back(self, broker: Broker) -> None:
        """Grouped jobs of a dead session are taken over, given back and lent again."""
        needs(broker, Grouped)
        needs(broker, Sessions)
        session, heir = self.open(broker), self.open(broker)
        broker.enqueue([*of("a", 2), *of("b", 2)])
        lent = self.take(broker, session, 4)
        broker.release(self.recover(broker, heir, 4, dead=session))
        assert sorted(ids(lent)) == sorted(ids(self.take(broker, heir, 4)))

    def test_a_grouped_job_says_since_when_it_was_ready(self, broker: Broker) -> None:
        """`ready_at` and the age of the oldest job tell time, whatever turns there are."""
        needs(broker, Grouped)
        needs_capability(broker, Capability.CLOCK)
        session = self.open(broker)
        before = self.clock()
        broker.enqueue([*of("a", 3), *of("b", 3)])
        after = self.clock()
        if isinstance(broker, Inspector) and self.tells_ages:
            [queue] = broker.queues()
            assert queue.oldest is not None
            assert 0 <= queue.oldest <= self.clock() - before + 1
        for delivery in self.take(broker, session, 6):
            if delivery.ready_at is not None:
                assert before - 1 <= delivery.ready_at <= after + 1

    def test_grouped_jobs_can_be_looked_at_and_changed(self, broker: Broker) -> None:
        """Counting, listing, deleting, putting first, burying and replaying know groups."""
        needs(broker, Grouped)
        inspector = needs(broker, Inspector)
        session = self.open(broker)
        everything = [*of("a", 5), *of("b", 3)]
        broker.enqueue(everything)
        assert 8 == inspector.count(State.READY, QUEUE)
        shown = [item.envelope for item in inspector.page(State.READY, QUEUE, limit=100).items]
        assert sorted(ids(everything)) == sorted(ids(shown))
        assert {("a", "a"), ("b", "b")} == {(e.id[0], e.group) for e in shown}
        assert ["a-0000"] == list(inspector.delete(["a-0000"], state=State.READY))
        assert ["b-0002"] == list(inspector.prioritise(["b-0002"]))
        lent = self.one_by_one(broker, session, 2)
        assert "b-0002" == lent[0].envelope.id
        broker.bury([(delivery, delivery.envelope) for delivery in lent])
        assert 2 == len(inspector.replay([delivery.envelope for delivery in lent]))
        assert 7 == len(self.take(broker, session, 7))
        self.assert_nothing(broker, session, why="seven were left")

    def test_purged_groups_are_gone(self, broker: Broker) -> None:
        """Nothing is left of grouped jobs that were purged."""
        grouped = needs(broker, Grouped)
        inspector = needs(broker, Inspector)
        session = self.open(broker)
        broker.enqueue([*of("a", 5), *of("b", 5)])
        assert 10 == inspector.purge(State.READY, QUEUE)
        assert [] == list(grouped.next_groups(QUEUE))
        self.assert_nothing(broker, session, why="all were purged")

    def test_groups_can_be_listed(self, broker: Broker) -> None:
        """`next_groups` names each group with ready jobs once, and no more than the limit."""
        grouped = needs(broker, Grouped)
        session = self.open(broker)
        assert [] == list(grouped.next_groups(QUEUE))
        broker.enqueue([*of("a", 9), *of("b", 1), *of("c", 1), *of(None, 3)])
        assert ["a", "b", "c"] == sorted(grouped.next_groups(QUEUE))
        assert 2 == len(grouped.next_groups(QUEUE, limit=2))
        assert [] == list(grouped.next_groups("other"))
        self.take(broker, session, 14)
        assert [] == list(grouped.next_groups(QUEUE))

    def test_groups_in_a_transaction(self, broker: Broker) -> None:
        """Jobs stored in a caller's transaction take turns once that is committed."""
        needs(broker, Grouped)
        transactional = needs(broker, Transactional)
        session = self.open(broker)
        connection = self.connection(broker)
        if connection is None:
            pytest.skip("the suite has no connection of a caller's")
        broker.enqueue(of("a", 20))
        transactional.enqueue_within(connection, of("b", 2))
        connection.commit()
        connection.close()
        lent = groups(self.one_by_one(broker, session, 6))
        assert 2 == lent.count("b"), f"it waited: {lent}"
