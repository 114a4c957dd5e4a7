"""Who removes or cancels a job that others wait for, and dies over it, does not have them wait for ever."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

import goose
from goose import inspecting
from goose.brokers.base import State
from goose.cancelling import Canceller
from goose.errors import BrokerUnavailable
from goose.features import removals
from goose.features.batches.trait import Sweeper
from goose.features.controls import Controls
from goose.features.flows.book import Flows
from goose.features.traits import Traits
from goose.inspecting import Inspection
from goose.jobs import new_id
from goose.testing.faults import Crash
from tests.features.places import ALL, SOME, Place, Tripwire, WiredBroker, WiredStore

APP = """
runs = []

def work(what: str) -> str:
    runs.append(what)
    return what
"""
WAYS = ("delete", "purge", "cancel")


@pytest.fixture(autouse=True)
def app(importable: Path) -> Any:
    """The function of the jobs."""
    (importable / "feature_app.py").write_text(APP)
    import feature_app  # type: ignore[import-not-found]

    return feature_app


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes are taken for those of the dead at once."""
    monkeypatch.setattr(removals, "LEFT", 0.0)


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that shows all of its jobs is taken for one that does not."""
    for module in (inspecting, removals):
        monkeypatch.setattr(module, "sees_all", lambda _: False)


class Scene:
    """A job, one that takes what it returns, and one that comes after each of them in any case."""

    def __init__(self, place: Place, app: Any) -> None:
        app.runs.clear()
        self.place = place
        self.runs: list[str] = app.runs
        with place.client.batch() as batch, batch.flow() as flow:
            self.first = flow.add(app.work, "first")
            second = flow.add(app.work, self.first.output)
            for parent, name in ((self.first, "beside"), (second, "after")):
                after = goose.after(parent, on_failure="run")
                flow.using(depends_on=after).add(app.work, name)
        self.jobs = flow.jobs
        self.batch = batch

    def end(self, way: str, wire: Tripwire) -> None:
        """End the first job as an operator, who dies where *wire* says."""
        broker: Any = WiredBroker(self.place.broker, wire)
        store: Any = WiredStore(self.place.store, wire)
        traits = Traits(broker, lambda: store)
        inspection = Inspection(broker, traits=traits)
        if way == "delete":
            inspection.delete([self.first.id], state=State.READY)
        elif way == "purge":
            inspection.purge(State.READY, "default")
        else:
            flows = Flows(store, broker, traits.tools.ended)
            Canceller(inspection, Controls(store), flows).cancel([self.first.id])

    def sweep(self) -> None:
        """Do what workers do once in a while."""
        Sweeper(self.place.process().engine.traits.tools).step(0.0)

    def check(self, where: object) -> None:
        """Assert that all have ended, with the first or as if nothing had happened."""
        self.sweep()
        self.place.process().run()
        first = self.first.status()
        well = first == "done"
        assert first in ("done", "cancelled", "deleted"), where
        others = ["done"] * 3 if well else ["cancelled", "done", "done"]
        assert others == [job.status() for job in self.jobs[1:]], where
        assert ({"beside", "after"} | ({"first"} if well else set())) == {*self.runs}, where
        assert 0 == self.batch.progress().remaining, where
        assert [] == self.place.store.scan(removals.PREFIX), where


class Dying(Tripwire):
    """Dies before anything is sent."""

    def call(self, name: str, do: Callable[[], Any]) -> Any:
        """Return what *do* returns, unless it sends a job."""
        if name == "enqueue":
            raise Crash("free, and not sent")
        return super().call(name, do)


def crashes(
    new_place: Callable[[], Place], app: Any, way: str
) -> Iterator[tuple[Scene, Tripwire, str]]:
    """Yield what an operator leaves who dies at one call after the other, and where that was."""
    at, has_crashed = 1, True
    while has_crashed:
        has_crashed = False
        sides: tuple[Literal["before", "after"], ...] = ("before", "after")
        for side in sides:
            place, wire = new_place(), Tripwire(at, side)
            scene = Scene(place, app)
            try:
                scene.end(way, wire)
            except Crash as crash:
                has_crashed = True
                yield scene, wire, str(crash)
            place.close()
        at += 1 if place.name == "memory" or ALL else SOME


def is_unknown(wire: Tripwire) -> bool:
    """Say whether its crash was after the broker removed jobs, and before that was noted."""
    if wire.side == "after":
        return wire.calls[-1] == "delete"
    return wire.calls[-2:] == ["delete", "Put"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("way", WAYS)
def test_every_crash_of_who_ends_a_parent_is_made_good(
    new_place: Callable[[], Place], app: Any, way: str
) -> None:
    """Wherever an operator dies, the jobs that wait end as their edges say; or nothing has happened."""
    points = 0
    for scene, wire, crash in crashes(new_place, app, way):
        if not (scene.place.url.startswith("amqp") and is_unknown(wire)):
            points += 1
            scene.check(crash)
    assert points > 2


@pytest.mark.usefixtures("hide")
@pytest.mark.parametrize("way", WAYS)
def test_where_jobs_are_hidden_one_moment_is_left_to_people(
    app: Any, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    """Between removing and noting that, nobody can tell those that wait; a worker says so, and a copy helps."""
    unknown = 0
    for scene, wire, crash in crashes(memory, app, way):
        if is_unknown(wire):
            unknown += 1
            assert "waiting" == scene.jobs[1].status(), crash
            caplog.clear()
            scene.sweep()
            assert [scene.first.id in record.message for record in caplog.records] == [True], crash
            scene.place.client.submit([scene.first])
        scene.check(crash)
    assert 2 == unknown


def memory() -> Place:
    """Return a place that is quick."""
    return Place("memory", f"memory://feature-{uuid.uuid4()}")


@pytest.mark.parametrize("way", WAYS)
def test_one_that_was_set_free_by_who_died_is_sent(place: Place, app: Any, way: str) -> None:
    """A job whose last edge is written and which is not on the broker yet gets there."""
    scene = Scene(place, app)
    with pytest.raises(Crash):
        scene.end(way, Dying())
    states = [job.status() for job in scene.jobs]

    assert "waiting" in states[2:], states
    scene.check(way)


def test_nothing_is_removed_while_the_store_is_away(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could be told of the end, so an operator is told to come back, and the flow goes on."""
    scene = Scene(place, app)

    def away(*_: object, **__: object) -> Any:
        raise BrokerUnavailable("the store is away")

    with monkeypatch.context() as patch, pytest.raises(BrokerUnavailable):
        patch.setattr(WiredStore, "apply", away)
        scene.end("delete", Tripwire())
    scene.check("away")

    assert "done" == scene.first.status()


@pytest.mark.usefixtures("hide")
def test_an_answer_that_cannot_be_noted_is_told_at_once(
    app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The store fails after the broker has removed a job: whoever removed it lives, and tells of it."""

    class Hiccup(Tripwire):
        def call(self, name: str, do: Callable[[], Any]) -> Any:
            self.calls.append(name)
            if self.calls[-2:] == ["delete", "Put"]:
                raise BrokerUnavailable("the store was away for a moment")
            return do()

    scene = Scene(memory(), app)
    scene.end("delete", Hiccup())

    assert "the store was away for a moment" in caplog.text
    assert ("deleted", "cancelled") == (scene.first.status(), scene.jobs[1].status())
    scene.check("noted")


@pytest.mark.usefixtures("hide")
def test_what_the_broker_cannot_do_leaves_no_note(app: Any) -> None:
    """A removal that is refused has removed nothing, and nobody is warned of it."""

    class Refusing(Tripwire):
        def call(self, name: str, do: Callable[[], Any]) -> Any:
            if name == "delete":
                raise goose.Unsupported("this broker cannot look at such jobs")
            return do()

    scene = Scene(memory(), app)
    with pytest.raises(goose.Unsupported):
        scene.end("delete", Refusing())

    assert [] == scene.place.store.scan(removals.PREFIX)
    scene.check("refused")


@pytest.mark.parametrize("hidden", [False, True], ids=["shown", "hidden"])
def test_what_was_removed_before_a_refusal_is_told(
    app: Any, request: pytest.FixtureRequest, hidden: bool
) -> None:
    """A purge removes what features know, and cannot do the rest: workers tell of what is gone."""
    if hidden:
        request.getfixturevalue("hide")

    class Refusing(Tripwire):
        def call(self, name: str, do: Callable[[], Any]) -> Any:
            if name == "purge":
                raise goose.Unsupported("this broker cannot tell how old they are")
            return do()

    scene = Scene(memory(), app)
    with pytest.raises(goose.Unsupported):
        scene.end("purge", Refusing())
    scene.check("refused half way")

    assert "deleted" == scene.first.status()


def test_notes_of_large_jobs_are_cut(place: Place) -> None:
    """Any number of jobs of any size can be removed: no note is larger than a store takes."""
    traits = {"toy": '\\"é' * 10_000}
    jobs = [goose.Job(id=new_id(), fn="m:f", traits=traits) for _ in range(60)]
    with removals.noted(place.store, "deleted", jobs, shown=False) as confirm:
        notes = place.store.scan(removals.PREFIX)
        confirm([job.id for job in jobs[::2]])
        kept = [json.loads(value) for _, value in place.store.scan(removals.PREFIX)]

    assert len(notes) > 1
    assert jobs[::2] == sorted(
        (removals.unpacked(body) for note in kept if note["gone"] for body in note["jobs"]),
        key=lambda job: job.id,
    )
    assert [] == place.store.scan(removals.PREFIX)
