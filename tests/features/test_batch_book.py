"""The batches of a store: made, counted and ended, whoever comes between whoever else's calls."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from goose.brokers.memory import MemoryBroker
from goose.errors import BatchError, BrokerUnavailable, ConfigError
from goose.features.batches import book
from goose.features.batches.book import Batches
from goose.features.batches.members import (
    CANCELLED,
    DEAD,
    DELETED,
    DONE,
    RENEWED,
    RETRYING,
    SHARD,
    SKIPPED,
    WAITING,
)
from goose.features.batches.records import ADDED, Event, Record, dump, parse
from goose.jobs import Job
from goose.stores.base import Operation, Swap
from goose.stores.memory import MemoryStore

CALLBACKS: dict[Event, Job[Any]] = {
    "complete": Job("", "app:complete"),
    "success": Job("", "app:success"),
}


class World:
    """A store under a clock, and what was enqueued."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.store = MemoryStore(MemoryBroker(clock=lambda: self.time))
        self.sent: list[str] = []
        self.ended: list[tuple[str | None, str | None]] = []
        self.batches = self.batches_on(self.store)

    def batches_on(self, store: Any) -> Batches:
        return Batches(
            store,
            lambda jobs: self.sent.extend(job.id for job in jobs),
            lambda before, after, _: self.ended.append((before.status, after.status)),
        )

    def open(self, **fields: Any) -> Record:
        return self.batches.open(Record(id="b", opened_at=0, **fields), CALLBACKS)

    def counts(self) -> dict[str, Any]:
        """What is not 0 of the batch's progress."""
        fields = self.batches.progress(self.batches.found("b")).fields()
        return {name: value for name, value in fields.items() if value not in (0, None, False)}

    def stored_keys(self) -> list[str]:
        return [key for key, _ in self.store.scan("batch", limit=1000)]


@pytest.fixture
def world() -> World:
    """A store and its batches."""
    return World()


def all_of(kind: int, *numbers: int) -> dict[int, int]:
    return dict.fromkeys(numbers, kind)


def test_a_batch_ends_with_its_last_member(world: World) -> None:
    """Open, sealed, ended: callbacks come once, with the last member, and progress says how far it is."""
    world.open()
    world.batches.report("b", all_of(WAITING, 0, 1, 2))
    world.batches.report("b", all_of(RETRYING, 1))
    expected = {"total": 3, "waiting": 2, "retrying": 1, "remaining": 3, "is_open": True}
    assert expected == world.counts()
    world.batches.report("b", all_of(DONE, 0, 1))
    world.batches.seal("b", 3)
    assert [] == world.sent
    world.time += 60
    world.batches.report("b", all_of(DONE, 2))
    world.batches.report("b", all_of(DONE, 0, 1, 2))

    assert {"total": 3, "done": 3, "status": "success"} == world.counts()
    assert ["b:complete", "b:success"] == world.sent
    assert [(None, "success")] == world.ended
    record = world.batches.found("b")
    assert ("ended", 1000.0, 1060.0) == (record.phase, record.opened_at, record.ended_at)


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ([], "success"),
        ([DONE, SKIPPED], "success"),
        ([DONE, DEAD], "partial"),
        ([SKIPPED, CANCELLED], "partial"),
        ([DEAD, DEAD], "dead"),
        ([DELETED, CANCELLED, DEAD], "dead"),
    ],
)
def test_the_status_says_how_it_ended(world: World, kinds: Sequence[int], status: str) -> None:
    """Success is every member done or skipped, dead is none; only success calls on_success."""
    world.open()
    world.batches.report("b", dict(enumerate(kinds)))
    world.batches.seal("b", len(kinds))

    assert status == world.batches.found("b").status
    assert ("b:success" in world.sent) == (status == "success")
    assert "b:complete" in world.sent


def test_who_is_slow_to_say_how_it_ended_looks_once_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that was cancelled is done after all, between a look and what is said by it."""
    world.open()
    world.batches.report("b", all_of(DEAD, 1))
    world.batches.seal("b", 2)
    other, look = world.batches_on(world.store), Batches._ended
    late = [all_of(DONE, 0)]

    def slow(batches: Batches, record: Record) -> Any:
        found = look(batches, record)
        if batches is world.batches and late:
            other.report("b", late.pop())
        return found

    monkeypatch.setattr(Batches, "_ended", slow)
    world.batches.report("b", all_of(CANCELLED, 0))

    assert not late
    record = world.batches.found("b")
    assert ("partial", "ended") == (record.status, record.phase)
    assert {"b:complete"} == set(world.sent)


def test_a_replayed_member_changes_the_batch(world: World) -> None:
    """A dead member that is replayed opens the end again; when it succeeds, so does the batch."""
    world.open()
    world.batches.report("b", all_of(DONE, 0) | all_of(DEAD, 1))
    world.batches.seal("b", 2)
    assert ["b:complete"] == world.sent
    world.batches.report("b", all_of(RENEWED, 0, 1))
    assert {"total": 2, "done": 1, "waiting": 1, "remaining": 1} == world.counts()
    world.batches.report("b", all_of(DONE, 1))

    assert ["b:complete", "b:success"] == world.sent
    assert [(None, "partial"), ("partial", "success")] == world.ended
    assert "success" == world.batches.found("b").status


def test_members_from_elsewhere_are_awaited(world: World) -> None:
    """A member that adds others before it ends keeps the batch from ending without them."""
    world.open()
    world.batches.report("b", all_of(WAITING, 0))
    world.batches.seal("b", 1)
    first = world.batches.reserve("b", 2 * SHARD)
    assert ADDED == first
    assert ADDED + 2 * SHARD == world.batches.reserve("b", 1)
    child = ADDED + 2 * SHARD
    world.batches.report("b", all_of(WAITING, child))
    world.batches.report("b", all_of(DONE, 0))
    assert [] == world.sent
    world.batches.report("b", all_of(DEAD, child))

    assert {"total": 2, "done": 1, "dead": 1, "status": "partial"} == world.counts()
    assert ["b:complete"] == world.sent
    with pytest.raises(BatchError, match="does not exist"):
        world.batches.reserve("other", 1)
    assert not any("other" in key for key in world.stored_keys())


def test_many_members_are_in_many_shards(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of more shards than one look reads ends with the last of them, and not before."""
    monkeypatch.setattr(book, "LOOK", 3)
    monkeypatch.setattr(book, "PAGE", 4)
    total = 10 * SHARD + 1
    world.open()
    for first in range(0, total, 500):
        world.batches.report("b", all_of(WAITING, *range(first, min(first + 500, total))))
    world.batches.seal("b", total)
    order = list(range(0, total, 97))
    rest = sorted(set(range(total)) - set(order))
    random.Random(1).shuffle(order)
    world.batches.report("b", all_of(DONE, *rest))
    for number in order[:-1]:
        world.batches.report("b", all_of(SKIPPED, number))
    assert [] == world.sent
    assert 1 == world.counts()["remaining"]
    world.batches.report("b", all_of(DONE, order[-1]))

    assert {
        "total": total,
        "done": len(rest) + 1,
        "skipped": len(order) - 1,
        "status": "success",
    } == (world.counts())
    assert ["b:complete", "b:success"] == world.sent
    assert bytes([DONE, DONE]) == world.batches.kinds("b", SHARD - 1, 4)[1:3]


def test_an_ended_batch_goes_after_its_linger(world: World) -> None:
    """Nothing of it is left in the store then; what members still say is ignored."""
    world.open(name="nightly", linger=60.0)
    world.batches.report("b", all_of(DEAD, 0) | all_of(DONE, SHARD))
    world.batches.reserve("b", 1)
    world.batches.seal("b", SHARD + 1)
    world.time += 30
    world.batches.report("b", all_of(RENEWED, 0))
    world.time += 29
    assert "partial" == world.batches.found("nightly").status
    world.time += 100
    assert [] == world.stored_keys()
    world.batches.report("b", all_of(DONE, 0))

    assert [] == world.stored_keys()
    with pytest.raises(ConfigError, match="nightly"):
        world.batches.found("nightly")


def test_a_deleted_batch_leaves_nothing(world: World) -> None:
    """Its name is free again; members run on, and what they say is ignored."""
    world.open(name="nightly")
    world.batches.report("b", all_of(WAITING, 0, 5000))
    with pytest.raises(BatchError, match="nightly"):
        world.batches.open(Record(id="other", opened_at=0, name="nightly"), CALLBACKS)
    assert world.batches.delete("b")
    assert not world.batches.delete("b")
    assert [] == world.stored_keys()
    world.batches.report("b", all_of(DONE, 0))
    assert world.batches.seal("b", 1) is None
    assert [] == world.stored_keys()
    world.batches.open(Record(id="other", opened_at=0, name="nightly"), CALLBACKS)

    found = world.batches.named("nightly")
    assert found is not None
    assert "other" == found.id


def test_what_is_written_beside_a_delete_is_removed(world: World) -> None:
    """A report that was under way when the batch was deleted leaves no shard behind."""
    world.open()
    real = world.store.apply

    def apply(operations: Sequence[Operation]) -> Sequence[Any]:
        if any(isinstance(operation, Swap) for operation in operations):
            world.batches.delete("b")
        return real(operations)

    other = MemoryStore(MemoryBroker())
    other.apply = apply  # type: ignore[method-assign]
    other.now = world.store.now  # type: ignore[method-assign]
    world.batches_on(other).report("b", all_of(WAITING, 0))

    assert [] == world.stored_keys()


def test_a_name_whose_batch_is_gone_is_free(world: World) -> None:
    """A crash in the middle of a delete does not keep the name."""
    world.open(name="nightly")
    world.store.delete("batch:{b}")
    world.batches.open(Record(id="c", opened_at=0, name="nightly"), {})

    found = world.batches.named("nightly")
    assert found is not None
    assert "c" == found.id


def test_a_sweep_brings_to_its_end_what_somebody_died_over(world: World) -> None:
    """Sealed and not looked at, ended and not called, half deleted: a sweep a minute does the rest."""
    record = world.open()
    world.batches.report("b", all_of(DONE, 0))
    world.store.put(record.key, dump(record.sealed(1, 0.0)))
    other = replace(record, id="c", on=()).sealed(0, 0.0).concluded("success", 5.0, "x")
    world.store.put(other.key, dump(other))
    world.store.put("batch:{d}", dump(replace(record, id="d", phase="deleted")))
    world.store.put("batch.members:{d}:0000000000", b"12345")
    world.batches.sweep()
    assert ["b:complete", "b:success"] == world.sent
    assert "ended" == world.batches.found("c").phase
    assert not any("{d}" in key for key in world.stored_keys())
    world.store.put(record.key, dump(record.sealed(1, 0.0)))
    world.batches.sweep()
    assert 2 == len(world.sent)
    world.time += book.SWEEP_SECONDS
    world.batches.sweep()

    assert 4 == len(world.sent)


def test_a_later_versions_fields_survive() -> None:
    """What this Goose does not know of a record is kept; another version is refused."""
    value = dump(Record(id="b", opened_at=1.0))
    later = value.replace(b'"v":1', b'"v":1,"colour":"red"')
    assert b'"colour":"red"' in dump(replace(parse(later), phase="sealed"))
    with pytest.raises(ConfigError, match="version 2"):
        parse(value.replace(b'"v":1', b'"v":2'))
    with pytest.raises(ConfigError, match="no batch"):
        parse(b"[]")


# --- interleaved -------------------------------------------------------------------------


class Turns:
    """Lets threads call a store one call at a time, in an order that a seed decides."""

    def __init__(self, store: MemoryStore, seed: int) -> None:
        self._store = store
        self._chance = random.Random(seed)
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
        self._alive = 0
        self._turn: int | None = None

    def run(self, *actors: Callable[[], object]) -> None:
        """Run *actors*, each on a thread, until all have ended."""
        self._alive = len(actors)
        threads = [threading.Thread(target=self._act, args=(actor,)) for actor in actors]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)

    def _act(self, actor: Callable[[], object]) -> None:
        try:
            actor()
        finally:
            with self._changed:
                self._alive -= 1
                self._choose()

    def _choose(self) -> None:
        if self._turn is None and self._waiting and len(self._waiting) == self._alive:
            self._turn = self._chance.choice(sorted(self._waiting))
            self._changed.notify_all()

    def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
        return self._at_its_turn(lambda: self._store.apply(operations))

    def scan(self, prefix: str, *, limit: int = 100, after: str = "") -> Sequence[Any]:
        return self._at_its_turn(lambda: self._store.scan(prefix, limit=limit, after=after))

    def now(self) -> float:
        return self._store.now()

    def _at_its_turn(self, call: Callable[[], Any]) -> Any:
        me = threading.get_ident()
        with self._changed:
            self._waiting.add(me)
            self._choose()
            assert self._changed.wait_for(lambda: self._turn == me, timeout=10)
            try:
                return call()
            finally:
                self._waiting.discard(me)
                self._turn = None
                # The next turn is given once this thread waits again, or has ended.


def test_whatever_the_order_of_calls_callbacks_come_once(world: World) -> None:
    """The client seals while members end, one of which adds another: every order ends the batch once.

    No callback is enqueued before the last member has ended, children included.
    """
    for seed in range(150):
        world = World()
        world.open()
        world.batches.report("b", all_of(WAITING, 0, 1, SHARD))
        turns = Turns(world.store, seed)
        open_members = {0, 1, SHARD}
        early: list[set[int]] = []

        def send(jobs: Sequence[Job[Any]], world: World = world) -> None:
            world.sent.extend(job.id for job in jobs)
            if open_members:  # noqa: B023 - all of one seed
                early.append(set(open_members))  # noqa: B023

        def batches(send: Any = send, turns: Turns = turns) -> Batches:
            return Batches(turns, send)

        def end(number: int, of: Batches) -> None:
            open_members.discard(number)  # noqa: B023
            of.report("b", all_of(DONE, number))

        def parent() -> None:
            mine = batches()
            child = mine.reserve("b", 1)
            open_members.add(child)  # noqa: B023
            mine.report("b", all_of(WAITING, child))
            end(0, mine)
            end(child, batches())

        turns.run(
            lambda: batches().seal("b", SHARD + 1),
            parent,
            lambda: end(1, batches()),
            lambda: end(SHARD, batches()),
        )

        assert [] == early, seed
        assert ["b:complete", "b:success"] == sorted(world.sent), seed
        assert 4 == world.counts()["done"]


@pytest.mark.parametrize("dies", [False, True])
def test_a_cut_at_any_call_is_made_up_for(dies: bool, world: World) -> None:
    """Wherever a call fails, and whether the caller tries again or dies, callbacks follow the last.

    Who tries again makes none of them twice, but for the one whose enqueue it was not sure of.
    """
    calls = 1
    cut = True
    while cut:
        for side in ("before", "after"):
            world = World()
            world.open()
            store = Cut(world.store, calls, side)
            batches = world.batches_on(store)
            reports = [all_of(DONE, 0), all_of(DONE, 1), None, all_of(DONE, 2)]
            for report in reports:
                for _ in range(2):
                    try:
                        batches.report("b", report) if report else batches.seal("b", 3)
                        break
                    except BrokerUnavailable:
                        if dies:
                            batches = world.batches_on(world.store)
            world.time += 2 * book.SWEEP_SECONDS
            world.batches.sweep()
            assert {"b:complete", "b:success"} == set(world.sent)
            assert len(world.sent) == 2 or store.cut
            assert "ended" == world.batches.found("b").phase
            cut = store.cut
        calls += 1

    assert calls > 10


class Cut:
    """A store whose call of that number fails, before or after it is carried out."""

    def __init__(self, store: MemoryStore, at: int, side: str) -> None:
        self._store = store
        self._left = at
        self._side = side
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)

        def call(*args: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._side == "before":
                self.cut = True
                raise BrokerUnavailable("cut")
            answer = real(*args, **named)
            if self._left == 0:
                self.cut = True
                raise BrokerUnavailable("cut")
            return answer

        return call
