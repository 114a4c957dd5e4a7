"""What a child's main thread does, without a process and without a runner."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from goose.brokers.base import Session
from goose.errors import BrokerUnavailable
from goose.worker.child import config_from
from goose.worker.control import (
    Bootstrap,
    Count,
    Dump,
    Empty,
    Leaving,
    Message,
    NewSession,
    Stop,
    Stopped,
)
from goose.worker.duty import Duty
from goose.worker.reload import SourceWatch
from goose.worker.standing import RunnerStatistics


class Work:
    """A runner that does what the test says."""

    def __init__(self) -> None:
        self.processed = 0
        self.empty: bool | Exception = False
        self.sessions: list[Session] = []
        self.graces: list[float] = []
        self.may_end = threading.Event()
        self.clean = True
        self.dumps = 0

    def stop(self, grace: float) -> bool:
        self.graces.append(grace)
        self.may_end.wait(20)
        return self.clean

    def new_session(self, session: Session) -> None:
        self.sessions.append(session)

    def statistics(self) -> RunnerStatistics:
        return RunnerStatistics(0, 0, 0, self.processed, 0, 0, 0, 0, 0)

    def dump(self) -> None:
        self.dumps += 1

    def is_empty(self) -> bool:
        if isinstance(self.empty, Exception):
            raise self.empty
        return self.empty


class World:
    """A duty, and what it said and did."""

    def __init__(self, **bootstrap: Any) -> None:
        self.work = Work()
        self.said: list[Message] = []
        self.counted: list[tuple[str, float, dict[str, str]]] = []
        self.handed_over: list[bool] = []
        self.made_way = 0
        self.rss = 0
        self.changed: str | None = None
        self.now = 100.0
        given = Bootstrap(
            supervisor=1, broker="x://", modules=["m"], config={"grace": 5.0}, session="s", epoch=1,
            **bootstrap,
        )  # fmt: skip
        self.duty = Duty(
            given,
            self.work,
            send=self.say,
            make_way=self.make_way,
            metrics=self,
            hand_over=lambda _now, last: self.handed_over.append(last),
            rss=lambda: self.rss,
            changed=lambda: self.changed,
        )

    def increment(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        self.counted.append((name, value, dict(tags)))

    gauge = timing = increment

    def say(self, message: Message) -> bool:
        self.said.append(message)
        return True

    def make_way(self) -> None:
        self.made_way += 1

    def step(self, *messages: Message, terminated: bool = False, after: float = 2.0) -> bool | None:
        self.now += after
        return self.duty.step(self.now, list(messages), terminated=terminated)

    def ends(self) -> bool:
        """Let the runner stop; return whether the child ended with nothing running."""
        self.work.may_end.set()
        deadline = time.monotonic() + 10
        while (clean := self.step(after=0)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return clean


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.work.may_end.set()


def test_a_child_without_a_reason_goes_on(world: World) -> None:
    """It says nothing and stops nothing."""
    for _ in range(100):
        assert world.step() is None

    assert ([], []) == (world.said, world.work.graces)


def test_a_stop_is_obeyed_with_its_grace(world: World) -> None:
    """The last word tells that nothing runs any more."""
    assert world.step(Stop(2.5)) is None

    assert world.ends()
    assert [2.5] == world.work.graces
    assert [Stopped(clean=True)] == world.said


def test_terminate_means_the_configured_grace(world: World) -> None:
    """However often it is looked at, the runner is stopped once."""
    assert world.step(terminated=True) is None
    assert world.step(terminated=True) is None

    assert world.ends()
    assert [5.0] == world.work.graces


def test_work_that_could_not_be_ended_is_told(world: World) -> None:
    """The supervisor gives back what runs under the end of the process."""
    world.work.clean = False
    world.step(Stop(0.0))

    assert not world.ends()
    assert [Stopped(clean=False)] == world.said


def test_a_stop_shortens_a_drain_that_had_all_the_time(world: World) -> None:
    """A child that was leaving without haste ends within the grace of a shutdown."""
    leaving = World(max_jobs=1)
    leaving.work.processed = 1
    leaving.step()
    assert leaving.work.graces == [math.inf]
    assert leaving.step(Stop(10.0)) is None
    assert leaving.step(after=9.0) is None

    assert leaving.step(after=1.5) is False
    assert Stopped(clean=False) == leaving.said[-1]
    leaving.work.may_end.set()


def test_only_a_child_whose_place_another_may_take_makes_way(world: World) -> None:
    """At the end of the whole worker its numbers can be read as long as it runs something."""
    world.step(Stop(10.0))
    assert 0 == world.made_way
    world.step(Stop(5.0, make_way=True))

    assert 1 == world.made_way
    assert [10.0] == world.work.graces
    world.work.may_end.set()


def test_way_is_made_once() -> None:
    """The ports of one that leaves may be its successor's by the time it is told to stop."""
    world = World(max_jobs=1)
    world.work.processed = 1
    world.step()
    world.step(Stop(10.0, make_way=True), Stop(5.0, make_way=True))

    assert 1 == world.made_way
    world.work.may_end.set()


def test_a_new_session_reaches_the_runner(world: World) -> None:
    """Id and epoch are the supervisor's."""
    world.step(NewSession("s", 2))

    assert [Session("s", 2)] == world.work.sessions


def test_the_supervisors_numbers_are_counted(world: World) -> None:
    """What it did and what it measured, each with its tags, in the child's own metrics."""
    queue = {"queue": "mail"}
    world.step(Count([("jobs.recovered", 3, queue)], [("queue.oldest", 2.5, queue)]))

    assert [("jobs.recovered", 3, queue), ("queue.oldest", 2.5, queue)] == world.counted


def test_numbers_are_handed_over_at_each_step_and_at_the_end(world: World) -> None:
    """The last time says that it is the last, and comes before the child's last word."""
    world.step()
    world.step(Stop(0.0))
    world.ends()

    assert [False, False] == world.handed_over[:2]
    assert world.handed_over[-1]
    assert isinstance(world.said[-1], Stopped)


def test_a_dump_is_the_runners(world: World) -> None:
    """Running jobs are logged when the supervisor asks."""
    world.step(Dump())

    assert 1 == world.work.dumps


def test_enough_jobs_make_room_for_a_successor() -> None:
    """It frees its ports before it says so, and hurries no job."""
    world = World(max_jobs=10)
    world.work.processed = 9
    assert world.step() is None
    assert world.said == []
    world.work.processed = 10
    world.step()

    assert 1 == world.made_way
    assert isinstance(world.said[0], Leaving)
    assert world.ends()
    assert [math.inf] == world.work.graces


def test_too_much_memory_makes_room_for_a_successor() -> None:
    """But not before a job has run: a child too large from the start is not replaced for ever."""
    world = World(max_rss=1000)
    world.rss = 2000
    assert world.step() is None
    assert world.said == []
    world.work.processed = 1
    world.step()

    assert isinstance(world.said[0], Leaving)
    assert world.ends()


def test_changed_source_makes_room_within_the_grace() -> None:
    """New code is wanted soon."""
    world = World(reload=True)
    world.changed = "/app/tasks.py"
    world.step()

    assert [Leaving("/app/tasks.py has changed")] == world.said
    assert world.ends()
    assert [5.0] == world.work.graces


def test_nothing_left_is_the_end_if_asked_for() -> None:
    """It is said before the last word, and only when the end was clean."""
    world = World(until_empty=True)
    assert world.step() is None
    world.work.empty = BrokerUnavailable("gone")
    assert world.step() is None
    assert world.work.graces == []
    world.work.empty = True
    world.step()

    assert world.ends()
    assert [Empty(), Stopped(clean=True)] == world.said


def test_nothing_left_does_not_matter_otherwise(world: World) -> None:
    """A worker waits for more."""
    world.work.empty = True
    world.step()

    assert [] == world.work.graces


def test_the_configuration_survives_the_line() -> None:
    """Queues come back as shares."""
    config = config_from({"queues": [["mail", 2], ["default", 1]], "concurrency": 3})

    assert [("mail", 2), ("default", 1)] == [(s.queue, s.weight) for s in config.queues]
    assert 3 == config.concurrency


def test_a_source_watch_sees_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loaded file that is written or vanishes is told; one that is loaded later is watched too."""
    one, two = ModuleType("one_watched"), ModuleType("two_watched")
    for module in (one, two):
        path = tmp_path / f"{module.__name__}.py"
        path.write_text("x = 1")
        module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "one_watched", one)
    watch = SourceWatch()
    assert watch.changed() is None
    monkeypatch.setitem(sys.modules, "two_watched", two)
    assert watch.changed() is None
    (tmp_path / "two_watched.py").unlink()

    assert str(tmp_path / "two_watched.py") == watch.changed()
