"""A job that waits for others can be cancelled: it ends for good, and never runs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

import goose
from goose.brokers.base import Inspector, State
from goose.cancelling import Canceller
from goose.errors import JobFailed
from goose.features import asking
from goose.features.batches.book import SWEEP
from goose.features.batches.trait import Sweeper
from goose.features.controls import Controls
from goose.features.flows import book
from goose.features.flows.book import Flows
from goose.features.flows.records import body_key, key_of
from goose.features.traits import Traits
from goose.inspecting import Inspection
from goose.stores.base import Get, Put
from goose.testing.faults import Crash
from tests.features.places import ALL, SOME, Place, Tripwire, WiredBroker, WiredStore

APP = """
import goose
runs = []
during = []

def one(word: str) -> str:
    runs.append(word)
    return word

def two(word: str) -> str:
    runs.append("second")
    while during:
        during.pop()()
    return word

def broken() -> str:
    runs.append("broken")
    raise ValueError("no")

def tidy(what: str = "tidy") -> None:
    runs.append(what)
"""
ONCE = goose.Retry(max_retries=0)
Side = Literal["before", "after"]


@pytest.fixture(autouse=True)
def app(importable: Path) -> Any:
    """The functions of the jobs."""
    (importable / "feature_app.py").write_text(APP)
    import feature_app  # type: ignore[import-not-found]

    feature_app.runs.clear()
    return feature_app


class Scene:
    """Three jobs in a row, one that comes after the second in any case, and one that comes to all."""

    def __init__(self, place: Place, app: Any) -> None:
        app.runs.clear()
        self.place = place
        self.runs: list[str] = app.runs
        with place.client.batch() as batch, batch.flow() as flow:
            self.first = flow.add(app.one, "first")
            self.second = flow.add(app.two, self.first.output)
            self.third = flow.add(app.one, self.second.output)
            after = goose.after(self.second, on_failure="run")
            self.anyway = flow.using(depends_on=after).add(app.tidy, "anyway")
        self.batch = batch

    def check_cancelled(self, where: object = "") -> None:
        """Assert that the second ended as cancelled, and that everybody knows."""
        self.place.process().run()
        jobs = (self.first, self.second, self.third, self.anyway)
        statuses = [job.status() for job in jobs]
        assert ["done", "cancelled", "cancelled", "done"] == statuses, where
        assert {"anyway", "first"} == {*self.runs}, where
        progress = self.batch.progress()
        assert (2, 2, 0) == (progress.done, progress.cancelled, progress.remaining), where
        assert {} == self.place.client.controls.marks(), where
        assert not any(self.place.counts().values()), where


def wired(place: Place, wire: Tripwire) -> Canceller:
    """Return what cancels, and dies at a call to broker or store."""
    broker: Any = WiredBroker(place.broker, wire)
    store: Any = WiredStore(place.store, wire)
    traits = Traits(broker, lambda: store)
    shown = Inspection(broker, traits=traits) if isinstance(place.broker, Inspector) else None
    return Canceller(shown, Controls(store), Flows(store, broker, traits.tools.ended))


class Interloper(Tripwire):
    """Does something else at one of the calls, once, instead of dying there."""

    def __init__(self, at: int, side: Side, do: Callable[[], object]) -> None:
        super().__init__(at, side)
        self._do = do

    def call(self, name: str, do: Callable[[], Any]) -> Any:
        """Return what *do* returns, with something else before or after it."""
        self.calls.append(name)
        now = len(self.calls) == self.at
        if now and self.side == "before":
            self._do()
        try:
            return do()
        finally:
            if now and self.side == "after":
                self._do()


class Dying(Interloper):
    """Does something else at one of the calls, and dies before one that comes after."""

    last = 0

    def call(self, name: str, do: Callable[[], Any]) -> Any:
        """Return what *do* returns, until it dies."""
        if len(self.calls) >= self.last:
            raise Crash("here")
        return super().call(name, do)


def points(place: Place) -> Iterator[tuple[int, Side]]:
    """Yield calls and sides, all in memory and some elsewhere, until the caller has enough."""
    sides: tuple[Side, Side] = ("before", "after")
    for at in range(1, 1000, 1 if place.name == "memory" or ALL else SOME):
        for side in sides:
            yield at, side


def sweep(place: Place) -> None:
    """Do what workers do once in a while."""
    Sweeper(place.process().engine.traits.tools).step(0.0)


# --- what becomes of it ------------------------------------------------------------------------


def test_a_waiting_job_is_removed(place: Place, app: Any) -> None:
    """It ends as cancelled, and so do its dependents, by the policy of their edges; all are told."""
    scene = Scene(place, app)

    assert {scene.second.id: "removed"} == place.client.cancel(scene.second)
    assert ["cancelled", "cancelled"] == [scene.second.status(), scene.third.status()]
    assert {} == place.client.controls.marks()
    again = place.client.cancel(scene.second)[scene.second.id]
    assert ("asked" if place.url.startswith("amqp") else "not_found") == again
    place.client.controls.unmark([scene.second.id])
    with pytest.raises(JobFailed, match="cancelled: it was cancelled while it waited"):
        scene.second.result(5)
    scene.check_cancelled()
    bodies = [key for key, _ in place.store.scan("flow:") if key.endswith(":body")]
    # Of the third, which would wait again if the second did.
    assert [f"flow:{{{scene.third.id}}}:body"] == bodies


def test_it_gives_its_key_back(place: Place, app: Any) -> None:
    """A unique key that it held is free, and the next call of that key is another job."""
    with place.client.flow() as flow:
        first = flow.add(app.one, "first")
    after = place.client.using(depends_on=first, unique="key")
    waits = after.enqueue(app.tidy)
    assert waits.id == after.enqueue(app.tidy).id
    place.client.cancel(waits)

    assert waits.id != after.enqueue(app.tidy).id


def test_asyncio_code_cancels_it(place: Place, app: Any) -> None:
    """The verb to await does the same."""
    scene = Scene(place, app)

    assert {scene.second.id: "removed"} == asyncio.run(place.client.aio.cancel(scene.second))
    scene.check_cancelled()


def test_a_batch_cancels_its_member(place: Place, app: Any) -> None:
    """A batch that is told which member ends it where it waits."""
    scene = Scene(place, app)

    assert {scene.second.id: "removed"} == scene.batch.cancel(scene.second)
    scene.check_cancelled()


def test_one_that_waits_for_a_replay_is_cancelled_for_good(place: Place, app: Any) -> None:
    """Neither one that waits for a dead job nor one that ended with it comes back with it."""
    with place.client.using(retry=ONCE).flow() as flow:
        dead = flow.add(app.broken)
        waits = flow.using(depends_on=goose.after(dead, on_failure="wait")).add(app.tidy, "waits")
        ended = flow.using(depends_on=dead).add(app.tidy, "ended")
        other = flow.using(depends_on=dead).add(app.tidy, "other")
    process = place.process()
    process.run()
    assert ["waiting", "cancelled", "cancelled"] == [job.status() for job in (waits, ended, other)]
    assert {waits.id: "removed", ended.id: "removed"} == place.client.cancel(waits, ended)
    app.broken.__code__ = (lambda: "mended").__code__
    place.client.inspector.replay()
    process.run()

    assert ["done", "cancelled", "cancelled", "done"] == [job.status() for job in flow.jobs]
    assert ["broken", "other"] == app.runs


def test_a_result_does_not_wait_for_one_that_was_cancelled(place: Place, app: Any) -> None:
    """A parent that ends after that is told of nobody, and keeps its result for its own time."""
    with place.client.flow() as flow:
        first = flow.add(app.one, "first")
        second = flow.add(app.one, first.output)
    place.client.cancel(second)
    kept = [key for key, _ in place.store.scan("result:") if first.id in key]
    assert all(":past:" in key for key in kept), kept
    place.process().run()

    assert "first" == first.result(5)


def test_it_is_not_cancelled_before_it_is_enqueued(place: Place, app: Any) -> None:
    """One whose client is still telling its parents of it is not there yet, and waits after that."""
    wire = Interloper(3, "after", lambda: answers.update(place.client.cancel(second)))
    answers: dict[str, str] = {}
    flow = place.client.flow()
    first = flow.add(app.one, "first")
    second = flow.add(app.one, first.output)
    from goose.features import asking

    store: Any = WiredStore(place.store, wire)
    claimed = asking.claimed(flow._sealed, place.broker, store)
    place.broker.enqueue([envelope for _, envelope in claimed.sealed])
    hidden = place.url.startswith("amqp")
    assert {second.id: "asked" if hidden else "not_found"} == answers
    assert "waiting" == second.status()


# --- races and crashes -------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["second", "anyway"])
def test_a_cancel_at_any_moment_of_a_parents_end(
    new_place: Callable[[], Place], app: Any, victim: str
) -> None:
    """Whatever the worker that ends the parent is at, what was removed does not run."""
    seen: set[str] = set()
    kind = new_place()
    for at, side in points(kind):
        place = new_place()
        scene = Scene(place, app)
        job = getattr(scene, victim)
        answers: dict[str, str] = {}

        def cancel(place: Place = place, job: Any = job, told: dict[str, str] = answers) -> None:
            told["before"] = job.status()
            told.update(place.client.cancel(job))

        process = place.process(Interloper(at, side, cancel))
        process.run()
        if not answers:
            break
        before, answer = answers.pop("before"), answers[job.id]
        seen.add(answer)
        place.process().run()
        ran = victim in scene.runs
        if answer == "removed":
            assert ("cancelled", False) == (job.status(), ran), (at, side)
            assert 0 == scene.batch.progress().remaining, (at, side)
            assert {} == place.client.controls.marks(), (at, side)
        elif answer == "not_found":
            assert ("done", "done", True) == (before, job.status(), ran), (at, side)
        place.close()
    assert "removed" in seen


def test_a_parents_end_at_any_moment_of_a_cancel(new_place: Callable[[], Place], app: Any) -> None:
    """Whatever the cancel is at when its parents end, what was removed does not run."""
    kind, seen = new_place(), set[str]()
    for at, side in points(kind):
        place = new_place()
        scene = Scene(place, app)
        wire = Interloper(at, side, place.process().run)
        [answer] = wired(place, wire).cancel([scene.second.id]).values()
        seen.add(answer)
        place.process().run()
        assert "removed" != answer or "second" not in scene.runs, (at, side)
        states = {"removed": ["cancelled"], "not_found": ["done"]}
        assert scene.second.status() in states.get(answer, ["done", "cancelled"]), (at, side)
        place.close()
        if len(wire.calls) < at:
            break
    assert "removed" in seen


def test_a_parents_end_at_any_moment_of_a_cancel_is_in_time(
    new_place: Callable[[], Place], app: Any
) -> None:
    """A job that is sent while it is cancelled is removed from the store or from the broker."""
    kind = new_place()
    for at, side in points(kind):
        place = new_place()
        scene = Scene(place, app)
        process = place.process()

        def send(process: Any = process, scene: Any = scene) -> None:
            process.run(until=lambda: scene.first.status() == "done")

        wire = Interloper(at, side, send)
        [answer] = wired(place, wire).cancel([scene.second.id]).values()
        assert answer == "removed" or place.url.startswith("amqp"), (at, side)
        if answer == "removed":
            process.run()
            scene.check_cancelled((at, side))
        place.close()
        if len(wire.calls) < at:
            break


@pytest.mark.parametrize("first_at_it", ["the client", "who cancels"])
def test_an_enqueue_that_is_given_up_beside_a_cancel(
    new_place: Callable[[], Place], app: Any, first_at_it: str
) -> None:
    """What was ``removed`` stays so though its enqueue failed, whatever meets whom, and is sent again."""
    seen: list[str] = []
    for at, side in points(new_place()):
        place = new_place()
        app.runs.clear()
        flow = place.client.flow()
        first = flow.add(app.one, "first")
        second = flow.add(app.tidy, first.output)
        wire = Interloper(0, side, lambda: None)
        store: Any = WiredStore(place.store, wire)
        claimed = asking.claimed(flow._sealed, place.broker, store)
        lost: dict[Any, Any] = {job: "not_stored" for job, _ in flow._sealed}
        answers: dict[str, str] = {}
        if first_at_it == "the client":
            wire.at, wire._do = len(wire.calls) + at, partial(_cancel, place, second, answers)
            claimed.undo(lost)
        else:
            wire = Interloper(at, side, partial(claimed.undo, lost))
            answers.update(wired(place, wire).cancel([second.id]))
        place.client.submit(lost)
        place.process().run()
        if not answers or (first_at_it != "the client" and len(wire.calls) < at):
            break

        answer, where = answers[second.id], f"{side} call {at}"
        seen.append(answer)
        expected = ["first"] if answer == "removed" else ["first", "first"]
        assert expected == app.runs, where
        assert ("cancelled" if answer == "removed" else "done") == second.status(), where
        assert place.store.get(body_key(second.id)) is None, where
        place.close()
    assert {"removed", "asked" if place.url.startswith("amqp") else "not_found"} == set(seen)


def test_no_crash_of_an_enqueue_that_is_given_up_leaves_a_job_waiting(
    app: Any, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """A client that dies while it removes a node leaves a whole one, or one that is soon forgotten."""
    states: set[str] = set()
    for at in range(1, 100):
        place = Place("memory", f"memory://feature-{uuid.uuid4()}")
        app.runs.clear()
        flow = place.client.flow()
        first = flow.add(app.one, "first")
        second = flow.add(app.tidy, first.output)
        wire = Tripwire()
        store: Any = WiredStore(place.store, wire)
        claimed = asking.claimed(flow._sealed, place.broker, store)
        wire.at = len(wire.calls) + at
        with monkeypatch.context() as patch:
            patch.setattr(book, "JOINING", 0.05)
            try:
                claimed.undo({job: "not_stored" for job, _ in flow._sealed})
            except Crash:
                # Whatever is kept for as long as somebody joins is gone when this is.
                place.store.apply([Put("clock", b"", ttl=book.JOINING)])
                wait_until(partial(_is_gone, place, "clock"))
            else:
                break
        place.broker.enqueue([flow._sealed[0][1]])
        place.process().run()
        states.add(second.status())
        assert (second.status() == "done") == (app.runs == ["first", "first"]), at
        place.close()
    assert "waiting" not in states
    assert "done" in states


def _is_gone(place: Place, key: str) -> bool:
    return place.store.get(key) is None


def _cancel(place: Place, job: Any, answers: dict[str, str]) -> None:
    answers.update(place.client.cancel(job))


def test_one_that_is_just_being_sent_is_left_to_its_worker(place: Place, app: Any) -> None:
    """Nobody says that it is removed while a copy is on its way; whoever gets that ends it."""
    scene = Scene(place, app)
    answers: dict[str, str] = {}

    class Slow(Tripwire):
        def call(self, name: str, do: Callable[[], Any]) -> Any:
            if name == "enqueue" and not answers:
                answers.update(wired(place, watch).cancel([scene.second.id]))
                sweep(place)
            return do()

    watch = Tripwire()
    process = place.process(Slow())
    process.run(until=lambda: answers)
    assert {scene.second.id: "asked"} == answers
    assert "enqueue" not in watch.calls
    process.engine.stops.marked = place.client.controls.marks()
    process.run()
    place.client.controls.unmark(list(process.engine.stops.over))
    scene.check_cancelled()


def test_one_that_is_free_does_not_wait_again(place: Place, app: Any) -> None:
    """A replay of what it need not wait for changes nothing, so no cancel takes it for one that waits."""
    with place.client.using(retry=ONCE).flow() as flow:
        dead = flow.add(app.broken)
        good = flow.using(queue="later").add(app.one, "good")
        parents = [goose.after(dead, on_failure="run"), good]
        last = flow.using(depends_on=parents, queue="later").add(app.tidy, "last")
    place.process().run()

    class Dying(Tripwire):
        def call(self, name: str, do: Callable[[], Any]) -> Any:
            result = do()
            if name == "enqueue":
                raise Crash("sent, and not marked so")
            return result

    process = place.process(Dying(), queues=["later"])
    with pytest.raises(Crash):
        process.run()
    place.client.inspector.replay()
    assert "leaving" == Flows(place.store, place.broker).stop(last.id)
    place.bury(process)
    place.process(queues=["later"]).run()

    assert ("done", 1) == (last.status(), app.runs.count("last"))


def test_one_that_was_sent_and_not_marked_so_is_found_where_it_runs(place: Place, app: Any) -> None:
    """While another worker runs it already, nobody is told that it has ended."""
    scene = Scene(place, app)
    traits = Traits(place.broker, lambda: place.store)
    seen: list[Any] = []

    def during() -> None:
        # Of a cancel whose first look came before.
        flows = Flows(place.store, place.broker, traits.tools.ended)
        assert "leaving" == flows.stop(scene.second.id)
        told = place.client.cancel(scene.second)
        seen.append((told, scene.third.status(), scene.anyway.status()))

    class Sent(Tripwire):
        def call(self, name: str, do: Callable[[], Any]) -> Any:
            result = do()
            if name == "enqueue" and not seen:
                app.during[:] = [during]
                place.process().run(until=lambda: seen)
            return result

    place.process(Sent()).run()
    answer = "asked" if place.url.startswith("amqp") else "stopping"

    assert [({scene.second.id: answer}, "waiting", "waiting")] == seen
    assert ["done"] * 3 == [job.status() for job in (scene.second, scene.third, scene.anyway)]


def test_a_parent_that_dies_at_the_same_moment_changes_nothing(
    new_place: Callable[[], Place], app: Any
) -> None:
    """What is cancelled at any moment of its parent's death is so for good, and forgotten by it."""
    kind = new_place()
    for at, side in points(kind):
        place = new_place()
        app.runs.clear()
        with place.client.using(retry=ONCE).flow() as flow:
            dead = flow.add(app.broken)
            job = flow.using(depends_on=dead).add(app.tidy)
        answers: dict[str, str] = {}

        def cancel(place: Place = place, job: Any = job, told: dict[str, str] = answers) -> None:
            told.update(place.client.cancel(job))

        place.process(Interloper(at, side, cancel)).run()
        if not answers:
            break
        assert {job.id: "removed"} == answers, (at, side)
        left = [key for key, _ in place.store.scan("result:") if f":child:{job.id}" in key]
        assert ([], "cancelled") == (left, job.status()), (at, side)
        place.client.inspector.replay()
        assert "cancelled" == job.status(), (at, side)
        place.close()


def test_who_was_late_does_not_make_it_wait_again(place: Place, app: Any) -> None:
    """A parent's death that was on its way when the job was stopped does not undo that."""
    scene = Scene(place, app)
    flows = Flows(place.store, place.broker)

    def crash(_: object) -> None:
        raise Crash("here")

    with pytest.raises(Crash):
        Flows(place.store, place.broker, crash).stop(scene.second.id)
    flows.cancel(scene.second.id, "a job it depends on is dead")
    node = flows.node(scene.second.id)
    assert node is not None
    assert ("stopped", "waiting") == (node.state, scene.second.status())

    assert {scene.second.id: "removed"} == place.client.cancel(scene.second)
    scene.check_cancelled()


@pytest.mark.parametrize("key", [key_of, body_key])
def test_one_that_cannot_be_read_holds_up_no_other(
    place: Place, app: Any, caplog: pytest.LogCaptureFixture, key: Callable[[str], str]
) -> None:
    """A marked job of a later Goose is told of once; the others are stopped, and batches are swept."""
    with place.client.batch() as batch, batch.flow() as flow:
        first = flow.add(app.one, "first")
        jobs = [flow.using(depends_on=first).add(app.tidy) for _ in range(3)]
    odd = jobs[1]
    [value] = place.store.apply([Get(key(odd.id))])
    place.store.apply([Put(key(odd.id), value.replace(b'"v":1', b'"v":2'))])
    place.client.controls.mark(dict.fromkeys((job.id for job in jobs), None))
    sweeper = Sweeper(place.process().engine.traits.tools)
    sweeper.step(0.0)
    sweeper.step(0.0)

    assert ["cancelled"] * 2 == [jobs[0].status(), jobs[2].status()]
    assert 1 == sum(odd.id in record.message for record in caplog.records)
    assert place.store.apply([Get(SWEEP)]) != [None]


def test_every_crash_of_a_cancel_is_made_good(new_place: Callable[[], Place], app: Any) -> None:
    """Either it has done nothing, or workers finish it, whatever the parent does meanwhile."""
    kind = new_place()
    finished = 0
    for at, side in points(kind):
        place = new_place()
        scene = Scene(place, app)
        try:
            wired(place, Tripwire(at, side)).cancel([scene.second.id])
        except Crash:
            if not place.client.controls.marks() and scene.second.status() == "waiting":
                continue
            finished += 1
            sweep(place)
            place.client.controls.unmark([scene.second.id])
            scene.check_cancelled((at, side))
            place.close()
            continue
        break
    assert finished > 1


def test_a_crash_of_a_cancel_is_made_good_by_another(
    new_place: Callable[[], Place], app: Any
) -> None:
    """Who cancels again after a crash has the job end as if there had been none."""
    kind = new_place()
    for at, side in points(kind):
        place = new_place()
        scene = Scene(place, app)
        try:
            wired(place, Tripwire(at, side)).cancel([scene.second.id])
        except Crash:
            place.client.cancel(scene.second)
            place.client.controls.unmark([scene.second.id])
            scene.check_cancelled((at, side))
            place.close()
            continue
        break


def test_two_cancels_at_once_say_the_same(new_place: Callable[[], Place], app: Any) -> None:
    """At whatever moment the other comes, the job ends once, and everybody is told."""
    kind = new_place()
    for at, side in points(kind):
        place = new_place()
        scene = Scene(place, app)
        others: dict[str, str] = {}

        def cancel(place: Place = place, job: Any = scene.second, told: Any = others) -> None:
            told.update(place.client.cancel(job))

        answer = wired(place, Interloper(at, side, cancel)).cancel([scene.second.id])
        if not others:
            break
        assert "removed" in (*answer.values(), *others.values()), (at, side)
        place.client.controls.unmark([scene.second.id])
        scene.check_cancelled((at, side))
        place.close()


def test_a_parent_that_died_over_its_end_sends_nothing(
    new_place: Callable[[], Place], app: Any
) -> None:
    """A worker dies at any step of the parent's end, then the job is cancelled: it does not run."""
    kind = new_place()
    for at, side in points(kind):
        place = new_place()
        scene = Scene(place, app)
        process = place.process(Tripwire(at, side))
        with contextlib.suppress(Crash):
            process.run()
        if len(process.wire.calls) < at:
            break
        had_run = "second" in scene.runs
        [answer] = place.client.cancel(scene.second).values()
        place.bury(process)
        place.process().run()
        if answer == "removed":
            assert ("second" in scene.runs) is had_run, (at, side)
            assert "cancelled" == scene.second.status(), (at, side)
        place.close()


def test_a_replay_at_any_moment_of_a_cancel(new_place: Callable[[], Place], app: Any) -> None:
    """A dead parent is replayed while its dependent is cancelled: it stays cancelled."""
    kind = new_place()
    for at, side in points(kind):
        place = new_place()
        app.runs.clear()
        with place.client.using(retry=ONCE).flow() as flow:
            dead = flow.add(app.broken)
            ended = flow.using(depends_on=dead).add(app.tidy, "ended")
        place.process().run()
        assert State.DEAD in place.counts()
        wire = Interloper(at, side, place.client.inspector.replay)
        assert {ended.id: "removed"} == wired(place, wire).cancel([ended.id]), (at, side)
        place.process().run()
        assert ("cancelled", ["broken"]) == (ended.status(), sorted({*app.runs})), (at, side)
        place.close()
        if len(wire.calls) < at:
            break


def test_a_cancel_at_any_moment_of_a_replay(new_place: Callable[[], Place], app: Any) -> None:
    """A dependent is cancelled while its dead parent is replayed: it stays cancelled, for all."""
    kind = new_place()
    for at, side in points(kind):
        place = new_place()
        app.runs.clear()
        with place.client.using(retry=ONCE).batch() as batch, batch.flow() as flow:
            dead = flow.add(app.broken)
            ended = flow.using(depends_on=dead).add(app.tidy, "ended")
        place.process().run()
        answers: dict[str, str] = {}

        def cancel(place: Place = place, job: Any = ended, told: Any = answers) -> None:
            told.update(place.client.cancel(job))

        wire = Interloper(at, side, cancel)
        broker: Any = WiredBroker(place.broker, wire)
        store: Any = WiredStore(place.store, wire)
        Inspection(broker, traits=Traits(broker, lambda store=store: store)).replay([dead.id])
        if not answers:
            break
        assert {ended.id: "removed"} == answers, (at, side)
        place.process().run()
        assert ("cancelled", {"broken"}) == (ended.status(), {*app.runs}), (at, side)
        assert 1 == batch.progress().cancelled, (at, side)
        place.close()


def test_a_replay_that_failed_is_done_again(new_place: Callable[[], Place], app: Any) -> None:
    """Wherever a replay fails, called again it brings back all that depends on the dead job."""
    kind, broken = new_place(), app.broken.__code__
    for at, side in points(kind):
        place = new_place()
        app.runs.clear()
        app.broken.__code__ = broken
        with place.client.using(retry=ONCE).batch() as batch, batch.flow() as flow:
            second = flow.add(app.one, flow.add(app.broken).output)
            flow.add(app.two, second.output)
        place.process().run()
        assert ["dead", "cancelled", "cancelled"] == [job.status() for job in flow.jobs]
        app.broken.__code__ = (lambda: "mended").__code__
        wire = Tripwire(at, side)
        broker: Any = WiredBroker(place.broker, wire)
        store: Any = WiredStore(place.store, wire)
        with contextlib.suppress(Crash):
            Inspection(broker, traits=Traits(broker, lambda store=store: store)).replay()
        place.client.inspector.replay()
        place.process().run()
        assert ["done"] * 3 == [job.status() for job in flow.jobs], (at, side)
        assert (3, 0) == (batch.progress().done, batch.progress().remaining), (at, side)
        place.close()
        if len(wire.calls) < at:
            break


def test_a_cancel_beside_a_replay_that_fails_is_final(app: Any) -> None:
    """A dependent is cancelled while it is revived by somebody who dies then: it has ended for all."""
    seen: set[str] = set()
    for at, more in itertools.product(range(1, 30), (0, 2, 5)):
        place = Place("memory", f"memory://feature-{uuid.uuid4()}")
        with place.client.using(retry=ONCE).batch() as batch, batch.flow() as flow:
            ended = flow.using(depends_on=flow.add(app.broken)).add(app.tidy, "ended")
            last = flow.using(depends_on=ended).add(app.tidy, "last")
        place.process().run()
        answers: dict[str, str] = {}

        def cancel(place: Place = place, job: Any = ended, told: Any = answers) -> None:
            told.update(place.client.cancel(job))

        wire = Dying(at, "after", cancel)
        wire.last = at + more
        broker: Any = WiredBroker(place.broker, wire)
        store: Any = WiredStore(place.store, wire)
        with contextlib.suppress(Crash):
            Inspection(broker, traits=Traits(broker, lambda store=store: store)).replay()
        seen |= {*answers.values()}
        for _ in range(2):
            place.client.inspector.replay()
            place.process().run()
            sweep(place)
        statuses = [job.status() for job in (ended, last)]
        wanted = ["cancelled"] * 2
        assert (wanted, 0) == (statuses, batch.progress().remaining), (at, more, answers)
        assert [] == place.store.scan(f"revival:{ended.id}"), (at, more)
        place.close()
    assert {"removed"} == seen
