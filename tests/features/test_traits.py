"""Traits take part in the life of the jobs that bear them, and in no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import goose
import goose.testing
from goose.brokers.base import State
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerUnavailable, StoreError, Unsupported
from goose.features import asking, traits
from goose.features.once import once
from goose.features.traits import Admission, Defer, Ended, Fill, Finish, Tools, Traits
from goose.jobs import Job, new_id, seal
from goose.stores.base import Get, Put
from goose.worker.outcomes import Ending
from tests.features.places import Place, Process, crash_points

APP = """
import goose
import goose.testing
runs = []

def note(*words):
    runs.append(words)
    return [*words]

def fail():
    raise ValueError("no")

def skip():
    raise goose.Skip("not today")
"""


class Toy:
    """A trait that does what its job says, and remembers in the store who ended and how."""

    told: list[tuple[str, str]]
    broken: BaseException | None = None

    def __init__(self, tools: Tools) -> None:
        self.tools = tools

    def admit(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Admission]:
        if isinstance(Toy.broken, StoreError):
            raise Toy.broken
        said: dict[str, Any] = {
            "defer": Defer(30, "not yet"),
            "skip": Finish("skipped", "by the toy"),
            "dead": Finish("dead", "toyed"),
            "cancel": Finish("cancelled", "by the toy"),
            "copy": Finish("skipped", "a copy", told=True),
            "fill": Fill(("filled",), {}),
        }
        return {job.id: said[job.traits["toy"]] for job in jobs if job.traits["toy"] in said}  # type: ignore[index]

    def ended(self, endings: Sequence[Ended]) -> None:
        if Toy.broken is not None:
            raise Toy.broken
        for end in endings:
            Toy.told.append((end.ending, end.reason))
            value = repr((end.ending, end.result, end.failure and end.failure.message)).encode()
            self.tools.store().apply([Put(f"toy:{end.job.id}", value)])


@pytest.fixture(autouse=True)
def toy(importable: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The functions of the jobs, and the toy among the known traits."""
    (importable / "feature_app.py").write_text(APP)
    monkeypatch.setitem(traits.KNOWN, "toy", f"{__name__}:Toy")
    Toy.told, Toy.broken = [], None
    import feature_app  # type: ignore[import-not-found]

    feature_app.runs.clear()
    return feature_app


def job(fn: str, said: str = "", *args: Any, **fields: Any) -> Job[Any]:
    """Return a job that bears the toy."""
    fields.setdefault("traits", {"toy": said})
    return Job(new_id(), f"feature_app:{fn}", args, enqueued_at=1.0, **fields)


def remembered(place: Place, job: Job[Any]) -> str:
    """Return what the toy wrote down about *job*."""
    [value] = place.store.apply([Get(f"toy:{job.id}")])
    return "" if value is None else value.decode()


def test_every_end_is_told_before_the_broker_forgets(place: Place, toy: Any) -> None:
    """Done, skipped and dead jobs are told with what they returned or why they died."""
    jobs = [job("note", "", "a"), job("skip"), job("fail", retry={"max_retries": 0})]
    place.broker.enqueue([seal(one) for one in jobs])
    place.process().run()

    assert "('done', ['a'], None)" == remembered(place, jobs[0])
    assert "('skipped', None, None)" == remembered(place, jobs[1])
    assert "('dead', None, 'no')" == remembered(place, jobs[2])
    assert 1 == place.counts()[State.DEAD]


def test_a_retry_is_no_end(place: Place) -> None:
    """A job that will run again has not ended."""
    place.broker.enqueue([seal(job("fail"))])
    place.process().run()

    assert [] == Toy.told


@pytest.mark.parametrize(
    ("said", "told", "dead"),
    [
        ("skip", [("skipped", "by the toy")], 0),
        ("cancel", [("cancelled", "by the toy")], 0),
        ("dead", [("dead", "toyed")], 1),
        ("copy", [], 0),
        ("defer", [], 0),
    ],
)
def test_a_job_is_admitted_or_not(
    place: Place, toy: Any, said: str, told: list[Any], dead: int
) -> None:
    """What a trait ends or defers does not run; its end is told unless that is known."""
    place.broker.enqueue([seal(job("note", said))])
    process = place.process()
    process.run()

    assert [] == toy.runs
    assert told == Toy.told
    assert (0, dead) == (place.counts()[State.READY], place.counts()[State.DEAD])
    if said == "defer" and State.SCHEDULED in place.counts():
        [stored] = place.client.inspector.find(State.SCHEDULED)
        assert (0, 0) == (stored.job.attempt, process.engine.report.processed)  # type: ignore[union-attr]


def test_a_trait_may_fill_in_arguments(place: Place, toy: Any) -> None:
    """The function gets what the trait found, and the stored job stays as it was."""
    place.broker.enqueue([seal(job("note", "fill", None))])
    place.process().run()

    assert [("filled",)] == toy.runs


def test_a_job_without_traits_meets_none(place: Place, toy: Any) -> None:
    """It runs, and not even the store is opened."""
    Toy.broken = RuntimeError("not for this one")
    place.broker.enqueue([seal(job("note", traits={}))])
    process = place.process()
    process.run()

    assert ([()], []) == (toy.runs, Toy.told)
    assert not {"Get", "Put", "scan"} & set(process.wire.calls)


def test_while_the_store_is_away_only_bearers_wait(
    place: Place, toy: Any, wait_until: Callable[..., None]
) -> None:
    """A job that ended stays unsettled until its traits are told; others are settled meanwhile."""
    Toy.broken = BrokerUnavailable("no store")
    bearer, other = job("note"), job("note", traits={})
    place.broker.enqueue([seal(bearer), seal(other)])
    process = place.process()
    wait_until(lambda: process.step() and process.engine.report.endings[Ending.DONE])

    assert (2, 1) == (len(toy.runs), process.engine.settler.pending)
    Toy.broken = None
    process.run(until=lambda: not process.engine.settler.pending)
    assert [("done", "")] == Toy.told
    assert 2 == process.engine.report.endings[Ending.DONE]


def test_what_a_trait_cannot_note_does_not_hold_the_job(
    place: Place, toy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect of a trait is logged, and the job is settled."""
    Toy.broken = RuntimeError("a defect")
    place.broker.enqueue([seal(job("note")), seal(job("note"))])
    place.process().run()

    assert 2 == len(toy.runs)
    assert 2 == caplog.text.count("is not noted")
    assert 0 == place.counts()[State.READY]


def test_a_trait_that_cannot_be_asked_defers(place: Place, toy: Any) -> None:
    """Where a trait is refused by its store its jobs come back later, unharmed."""
    Toy.broken = StoreError("refused")
    place.broker.enqueue([seal(job("note"))])
    process = place.process()
    process.run(until=lambda: process.engine.report.endings[Ending.WAITING])

    assert [] == toy.runs
    if State.SCHEDULED in place.counts():
        assert 1 == place.counts()[State.SCHEDULED]


def test_an_unknown_trait_is_left_for_others(
    place: Place, toy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A job of a later Goose is not run here, nor lost."""
    place.broker.enqueue([seal(job("note", traits={"later": 1}))])
    place.process().run()

    assert [] == toy.runs
    assert "bears the trait 'later'" in caplog.text
    if State.SCHEDULED in place.counts():
        assert 1 == place.counts()[State.SCHEDULED]


def test_a_worker_without_a_store_leaves_bearers(
    toy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It says what is missing, and the job goes back."""
    real = MemoryBroker()
    names = [name for name in dir(real) if not name.startswith("_") and name != "open_store"]
    storeless: Any = type("Storeless", (), {name: getattr(real, name) for name in names})()
    answers = Traits(storeless).admit([one := job("note")])

    assert isinstance(answers[one.id], Defer)
    assert "Storeless has no store" in caplog.text


# --- looking and changing ------------------------------------------------------------------


def test_what_an_operator_removes_has_ended(place: Place) -> None:
    """Deleted and purged jobs are told, each once; those without traits are just removed."""
    one, other, plain = job("note"), job("note"), job("note", traits={})
    place.broker.enqueue([seal(each) for each in (one, other, plain)])
    inspector = place.client.inspector

    assert [one.id] == inspector.delete([one.id], state=State.READY)
    assert [("deleted", "")] == Toy.told
    assert 2 == inspector.purge(State.READY)
    assert 2 * [("deleted", "")] == Toy.told
    assert 0 == inspector.count(State.READY)


def test_a_dead_job_that_is_replayed_is_renewed(place: Place, toy: Any) -> None:
    """Traits are told before it can run again."""
    place.broker.enqueue([seal(job("fail", retry={"max_retries": 0}))])
    process = place.process()
    process.run()
    place.client.inspector.replay()
    process.run()

    assert ["dead", "renewed", "dead"] == [ending for ending, _ in Toy.told]


# --- crashes -------------------------------------------------------------------------------


def test_every_crash_leaves_the_end_told(new_place: Callable[[], Place], toy: Any) -> None:
    """Wherever a worker dies, another one ends the job, and the trait is told at least once."""
    jobs: list[Job[Any]] = []

    def scene(place: Place, _: Process) -> None:
        jobs[:] = [job("note", "", "a"), job("note", "", "b")]
        place.broker.enqueue([seal(one) for one in jobs])

    points = 0
    for place, crash in crash_points(new_place, scene):
        points += 1
        place.process().run()
        assert all("'done'" in remembered(place, one) for one in jobs), crash
        assert 0 == sum(place.counts().values()), crash
    assert points >= 2


# --- once ----------------------------------------------------------------------------------


def test_a_second_copy_is_skipped(place: Place, toy: Any) -> None:
    """A once-job that was done is not run again, though the broker has forgotten its id."""
    single = once(job("note", traits={}))
    process = place.process()
    for _ in range(2):
        place.broker.enqueue([seal(single)])
        process.run()

    assert [()] == toy.runs
    assert 1 == process.engine.report.endings[Ending.SKIPPED]


def test_a_once_job_that_died_can_be_replayed(place: Place, toy: Any) -> None:
    """Its death is not taken for its end."""
    single = once(job("fail", traits={}, retry={"max_retries": 0}))
    place.broker.enqueue([seal(single)])
    process = place.process()
    process.run()
    place.client.inspector.replay()
    process.run()

    assert 2 == process.engine.report.endings[Ending.DEAD]


def test_a_once_job_runs_twice_only_if_a_crash_hits_its_end(
    new_place: Callable[[], Place], toy: Any
) -> None:
    """Copies sent before and after a crash anywhere run once, or twice if it hit run and record."""
    for copies in (1, 2):
        single = once(job("note", traits={}))

        def scene(place: Place, _: Process, single: Job[Any] = single) -> None:
            toy.runs.clear()
            place.broker.enqueue([seal(single)])

        for place, crash in crash_points(new_place, scene):
            heir = place.process()
            for _ in range(copies):
                heir.run()
                place.broker.enqueue([seal(single)])
            heir.run()
            late = any(word in crash for word in ("Put", "ack", "Get")) or "after call" in crash
            assert 1 <= len(toy.runs) <= (2 if late else 1), crash


# --- clients -------------------------------------------------------------------------------


class ToyClaim:
    """Keeps the jobs that say so, and remembers what was undone."""

    undone: list[str]

    def __init__(self, broker: Any, store: Any) -> None:
        self.store = store

    def claim(self, sealed: Sequence[Any]) -> Mapping[str, Job[Any]]:
        kept = {one.id: one for one, _ in sealed if one.traits["toy"] == "keep"}
        for one in kept.values():
            self.store.apply([Put(f"toy:{one.id}", b"kept")])
        return kept

    def undo(self, jobs: Sequence[Job[Any]]) -> Sequence[Job[Any]]:
        ToyClaim.undone += [one.id for one in jobs]
        return jobs


@pytest.fixture
def claiming(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy asked for by the option ``unique``, whose value it takes, and claimed."""
    monkeypatch.setitem(asking.PREPARED, "unique", f"{__name__}:toy_by_key")
    monkeypatch.setitem(asking.CLAIMED, "toy", f"{__name__}:ToyClaim")
    ToyClaim.undone = []


def toy_by_key(chosen: Any) -> Any:
    return lambda job, call: job.evolve(traits={"toy": chosen.unique})


def test_asyncio_code_claims_as_threads_do(place: Place, toy: Any, claiming: None) -> None:
    """What a feature keeps is not sent by an awaited enqueue either."""
    kept = asyncio.run(place.client.using(unique="keep").aio.enqueue(toy.note, "kept"))

    assert ("kept", 0) == (remembered(place, kept), place.counts()[State.READY])


def test_a_claimed_job_may_stay_with_its_feature(place: Place, toy: Any, claiming: None) -> None:
    """What a feature keeps is not sent; the others of the same call are."""
    kept = place.client.using(unique="keep").enqueue(toy.note, "kept")
    sent = place.client.using(unique="send").enqueue(toy.note, "sent")

    assert ("kept", 1) == (remembered(place, kept), place.counts()[State.READY])
    place.process().run()
    assert "'done'" in remembered(place, sent)


def test_claims_are_undone_for_what_is_not_stored(
    place: Place, toy: Any, claiming: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused enqueue gives its claims up; one without an answer keeps them."""
    from goose.errors import BrokerError

    def refuse(error: Exception) -> Any:
        def send(_envelopes: Any) -> None:
            raise error

        return send

    client = place.client.using(unique="send")
    line = client._root.link(client._to.broker).ready
    monkeypatch.setattr(line, "_send", refuse(BrokerError("full")))
    with pytest.raises(goose.EnqueueError):
        client.enqueue(toy.note)
    assert 1 == len(ToyClaim.undone)
    monkeypatch.setattr(line, "_send", refuse(BrokerUnavailable("no answer")))
    with pytest.raises(goose.EnqueueError):
        client.enqueue(toy.note)
    assert 1 == len(ToyClaim.undone)


def test_what_needs_a_store_says_so(toy: Any, claiming: None) -> None:
    """Without a store the enqueue is refused, naming the way out."""
    real = MemoryBroker()
    names = [name for name in dir(real) if not name.startswith("_") and name != "open_store"]
    storeless: Any = type("Storeless", (), {name: getattr(real, name) for name in names})()
    with pytest.raises(Unsupported, match=r"goose\.configure\(store="):
        goose.Client(storeless, unique="x").enqueue(toy.note)

    assert 0 == real.count(State.READY)


def test_drained_jobs_meet_their_traits(place: Place, toy: Any) -> None:
    """`goose.testing.drain` admits and tells as a worker does."""
    if place.url.startswith("amqp"):
        pytest.skip("drain lists queues, which shows nothing that is lent")
    filled, skipped = job("note", "fill", None), job("note", "skip")
    place.broker.enqueue([seal(filled), seal(skipped)])
    drained = goose.testing.drain(place.client, allow=["feature_app"])

    assert {"done": 1, "skipped": 1} == drained.endings
    assert ([("filled",)], 2) == (toy.runs, len(Toy.told))
