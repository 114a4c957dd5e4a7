"""What a worker process tells its supervisor of the orders it reads, without either."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest

from goose.errors import BrokerUnavailable
from goose.features.controls import Controls, roll
from goose.features.controls import orders as told
from goose.features.controls.orders import Orders
from goose.stores.base import Put
from goose.stores.memory import MemoryStore
from goose.worker.config import WorkerConfig
from goose.worker.control import Ordered
from goose.worker.follower import EVERY, NEWS, REPEAT, Follower
from goose.worker.stops import Stops

OWN = 2
NOTHING = Ordered(None, None)


class Store(MemoryStore):
    """A store that can be made to fail."""

    down = False
    answers: int | None = None
    """Calls that are answered until it fails; None is all."""

    def apply(self, operations: Sequence[Any]) -> Sequence[Any]:
        self._answer()
        return super().apply(operations)

    def scan(
        self, prefix: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[tuple[str, bytes]]:
        self._answer()
        return super().scan(prefix, limit=limit, after=after)

    def _answer(self) -> None:
        if self.down or self.answers == 0:
            raise BrokerUnavailable("no route to host")
        if self.answers is not None:
            self.answers -= 1


class Followed:
    """Threads that do as they are told."""

    running = 0

    def __init__(self) -> None:
        self.config = WorkerConfig()
        self.stops = Stops()

    def work_by(self, config: WorkerConfig, paused: frozenset[str]) -> None:
        self.config = config

    def sift(self) -> None: ...


class World:
    """A worker process's follower, its store, and the time they live in."""

    def __init__(self, processes: int | None = OWN) -> None:
        self.now = 1000.0
        self.store = Store(clock=self.wall)
        self.controls = Controls(self.store)
        self.said: list[Ordered] = []
        self.levels: list[str] = []
        self.follower = Follower(
            self.store,
            version="1",
            name="web:1",
            log_level="info",
            set_log_level=self.levels.append,
            processes=processes,
            tell=self.said.append,
            clock=self,
        )
        self.followed = Followed()
        self.follower.follow(self.followed)

    def mono(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1e9 + self.now

    def looks(self, times: int = 1) -> list[Ordered]:
        """Let it look so often; return what it said meanwhile."""
        before = len(self.said)
        for _ in range(times):
            self.now += self.follower.step(self.now)
        return self.said[before:]

    def set(self, **values: Any) -> None:
        """Set what nobody checked, as another version may have."""
        value = told.dump(Orders().set("*", values))
        self.store.apply([Put(told.KEY, value, None)])

    @property
    def shown(self) -> int | None:
        """Return the number of processes that the list of workers shows."""
        [record] = self.controls.workers()
        return record.processes


def test_the_supervisor_is_told_at_once_what_is_set() -> None:
    """Of orders for this worker, at the first look that reads them."""
    world = World()
    world.controls.set("web:*", processes=3)
    world.controls.set("mail:*", processes=9, log_level="debug")
    assert [Ordered(3, None)] == world.looks()
    world.controls.set("*", log_level="error")

    assert [Ordered(3, "error")] == world.looks()
    assert ["error"] == world.levels


def test_what_is_new_is_said_at_every_look_for_a_while() -> None:
    """Another process may have said otherwise in between, and be gone; later that costs too much."""
    world = World()
    world.looks()
    world.controls.set("*", processes=3)
    news = int(NEWS / EVERY)

    assert [Ordered(3, None)] * news == world.looks(news)
    assert [] == world.looks()


def test_what_is_set_is_said_again_every_three_seconds() -> None:
    """The supervisor may have heard what others read; to hear all twice a second costs it too much."""
    world = World()
    world.controls.set("*", processes=3)
    assert 1 == len(world.looks())
    for _ in range(3):
        assert [] == world.looks(int(REPEAT / EVERY) - 1)
        assert [Ordered(3, None)] == world.looks()
        world.controls.pause("mail")  # is nothing to the supervisor


def test_the_supervisor_is_told_before_anything_else_is_asked_of_the_store() -> None:
    """Marks to read or to remove may take long, and what was read would be old by then."""
    world = World()
    world.controls.mark({"job": None})
    world.controls.set("*", processes=3)
    world.store.answers = 1
    with pytest.raises(BrokerUnavailable):  # it cannot read the marks
        world.looks()
    assert [Ordered(3, None)] == world.said
    world.store.answers = None
    world.looks()
    world.followed.stops.over.add("job")
    world.controls.set("*", processes=4)
    world.store.answers = 1
    with pytest.raises(BrokerUnavailable):  # nor remove one
        world.looks()

    assert [Ordered(3, None), Ordered(4, None)] == world.said


def test_where_nothing_is_set_little_is_said() -> None:
    """At first, when that has become so, and with each record of this process."""
    world = World()
    assert [NOTHING] == world.looks(5)
    world.controls.set("*", processes=3)
    world.looks(5)
    world.controls.reset()
    assert {NOTHING} == set(world.looks(int(NEWS / EVERY)))
    assert [] == world.looks(int(roll.EVERY / EVERY) - 1)

    assert [NOTHING] == world.looks(int(roll.EVERY / EVERY))


def test_who_cannot_read_says_nothing() -> None:
    """Neither at the start nor later is a store that fails taken for one without orders."""
    world = World()
    world.store.down = True
    world.follower.begin(world.now)
    assert [] == world.said
    world.store.down = False
    world.controls.set("*", processes=3)
    world.looks()
    world.store.down = True
    for _ in range(40):
        with pytest.raises(BrokerUnavailable):
            world.looks()
        world.now += EVERY

    assert [Ordered(3, None)] == world.said


def test_the_list_shows_how_many_processes_there_are_to_be() -> None:
    """The supervisor's own number, or what was ordered, as soon as it was."""
    world = World()
    world.looks()
    assert OWN == world.shown
    world.controls.set("*", processes=3)
    world.looks()
    assert 3 == world.shown
    world.controls.reset()
    world.looks()

    assert OWN == world.shown


def test_without_a_supervisor_nobody_is_told() -> None:
    """A worker in a program of its own is one process whatever is ordered, and says so."""
    world = World(processes=None)
    world.controls.set("*", processes=3, log_level="debug")

    assert [] == world.looks(30)
    assert world.shown is None
    assert ["debug"] == world.levels


@pytest.mark.parametrize("processes", [0, -1, 257, 10**9, True, "3", 2.5, [3], None])
def test_a_number_that_cannot_be_meant_is_not_obeyed(processes: Any) -> None:
    """Whoever can write to the store cannot have a machine filled with processes."""
    world = World()
    world.set(processes=processes, log_level="debug")

    assert [Ordered(None, "debug")] == world.looks()
    assert OWN == world.shown


@pytest.mark.parametrize("level", ["loud", "", 10, None, ["debug"]])
def test_a_log_level_that_is_not_known_is_not_obeyed(level: Any) -> None:
    """A later version's, say; the rest of the order is."""
    world = World()
    world.set(processes=3, log_level=level)

    assert [Ordered(3, None)] == world.looks()
    assert [] == world.levels


def test_a_record_of_an_earlier_version_is_shown() -> None:
    """It tells of no number of processes, for that version obeys none."""
    world = World()
    world.looks()
    [record] = world.controls.workers()
    before = roll.dump(record).replace(b'"processes":2,', b"")
    assert b"processes" not in before

    found = roll.parse(before)
    assert found is not None
    assert (None, os.getpid()) == (found.processes, found.pid)
    assert roll.parse(before.replace(b'"pid"', b'"dip"')) is None
