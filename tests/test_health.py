"""A monitor says that jobs are failing when that lasts, and not before."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

import goose
from goose.brokers.base import Session, Share
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerUnavailable
from goose.health import Monitor, Problem
from goose.jobs import Failure, decode, seal


def work() -> None: ...


class Scene:
    """A broker whose jobs are brought into a state, under a clock that is turned."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.broker = MemoryBroker(clock=lambda: self.now)
        self.client = goose.Client(self.broker)
        self.session = Session("holder")
        self.broker.open(self.session, ttl=1e9)
        self.told: list[Any] = []

    def monitor(self, **given: Any) -> Monitor:
        """Return a monitor that tells this scene, and has one look of all well behind it."""
        options: dict[str, Any] = {"allowed": 100, "grace": 0, "looks": 2, "repeat": 50}
        return Monitor(
            self.client,
            clock=lambda: self.now,
            on_unhealthy=lambda problems: self.told.append([p.queue for p in problems]),
            on_recovered=lambda: self.told.append("recovered"),
            **{**options, **given},
        )

    def fail(self, queue: str = "mail", *, dead: bool = False) -> str:
        """Store a job that has failed once, just now."""
        self.client.using(queue=queue).enqueue(work)
        [loan] = self.broker.dequeue(self.session, [Share(queue)], limit=1, wait=0)
        failure = Failure("app:Oops", "no", self.now, self.now)
        envelope = seal(decode(loan.envelope).evolve(attempt=1, failure=failure), delay=30.0)
        if dead:
            self.broker.bury([(loan, envelope)])
        else:
            self.broker.requeue([(loan, envelope)])
        return envelope.id

    def look(self, monitor: Monitor, times: int, every: float = 10.0) -> None:
        """Look so often."""
        for _ in range(times):
            self.now += every
            monitor.step()


@pytest.fixture
def scene() -> Scene:
    """A fresh one."""
    return Scene()


def test_a_job_may_fail_for_a_while(scene: Scene) -> None:
    """Failures count from the allowed time on, once two looks agree, and until none is left."""
    monitor = scene.monitor()
    failing = scene.fail()
    scene.look(monitor, 10)
    assert monitor.healthy()
    scene.look(monitor, 1)
    assert (True, []) == (monitor.healthy(), scene.told)
    scene.look(monitor, 1)
    assert (False, [["mail"]]) == (monitor.healthy(), scene.told)
    assert failing == monitor.problems[0].job

    scene.client.inspector.delete([failing], state=goose.brokers.base.State.READY)
    scene.look(monitor, 1)
    assert not monitor.healthy()
    scene.look(monitor, 3)
    assert (True, [["mail"], "recovered"]) == (monitor.healthy(), scene.told)


def test_it_says_so_again_now_and_then(scene: Scene) -> None:
    """While it lasts the callback comes again after the repeat interval, and no sooner."""
    monitor = scene.monitor()
    scene.fail()
    scene.look(monitor, 12)
    assert 1 == len(scene.told)
    scene.look(monitor, 4)
    assert 1 == len(scene.told)
    scene.look(monitor, 2)
    assert 2 == len(scene.told)


def test_a_flicker_is_not_told(scene: Scene) -> None:
    """One look that differs from those around it changes nothing."""
    monitor = scene.monitor(looks=3)
    for _ in range(3):
        failing = scene.fail()
        scene.now += 150
        monitor.step()
        monitor.step()
        scene.broker.promote_due(limit=10)
        scene.client.inspector.delete([failing], state=goose.brokers.base.State.READY)
        monitor.step()
    assert (True, []) == (monitor.healthy(), scene.told)


def test_deaths_count_for_as_long(scene: Scene) -> None:
    """A job that died while the monitor looked is a problem for the allowed time; older ones are none."""
    scene.fail(dead=True)
    monitor = scene.monitor()
    scene.look(monitor, 3)
    assert monitor.healthy()
    scene.fail("bills", dead=True)
    scene.look(monitor, 2)
    assert [["bills"]] == scene.told
    scene.look(monitor, 12)
    assert "recovered" == scene.told[-1]


def test_nothing_counts_at_first(scene: Scene) -> None:
    """During the grace after the start a backlog of failures is not told."""
    scene.fail()
    scene.now += 500
    monitor = scene.monitor(grace=60)
    monitor.step()
    scene.look(monitor, 5)
    assert monitor.healthy()
    scene.look(monitor, 3)
    assert not monitor.healthy()


def test_a_broker_that_is_away_is_a_problem(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot look does not say that all is well."""
    monitor = scene.monitor()

    def refuse() -> None:
        raise BrokerUnavailable("no answer")

    monkeypatch.setattr(scene.broker, "queues", refuse)
    scene.look(monitor, 2)
    assert "no answer" in monitor.problems[0].reason


def test_only_some_queues(scene: Scene) -> None:
    """Queues that were not asked for do not count."""
    monitor = scene.monitor(queues=["bills"])
    scene.fail("mail")
    scene.look(monitor, 20)
    assert monitor.healthy()


def test_it_looks_by_itself(scene: Scene) -> None:
    """Started, it looks on a thread; a callback that raises ends nothing."""
    called = threading.Event()

    def shout(problems: Sequence[Problem]) -> None:
        called.set()
        raise RuntimeError("the callback is broken")

    scene.fail()
    scene.now += 500
    with Monitor(
        scene.client, grace=0, looks=1, every=0.01, allowed=1, on_unhealthy=shout,
        clock=lambda: scene.now,
    ) as monitor:  # fmt: skip
        assert called.wait(10)
        assert not monitor.healthy()
