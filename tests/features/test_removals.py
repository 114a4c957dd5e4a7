"""What was removed by hand is told of, also if whoever removed it died before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import State
from goose.errors import BrokerUnavailable
from goose.features import removals
from goose.features.batches.book import SWEEP
from goose.features.batches.trait import Sweeper
from goose.inspecting import Inspection
from goose.stores.base import Get, Put
from goose.testing.faults import Crash
from tests.features.places import Place

APP = """
runs = []

def work(what):
    runs.append(what)
"""


@pytest.fixture(autouse=True)
def app(importable: Path) -> Any:
    """The function of the members."""
    (importable / "feature_app.py").write_text(APP)
    import feature_app  # type: ignore[import-not-found]

    return feature_app


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes are taken for those of the dead at once."""
    monkeypatch.setattr(removals, "LEFT", 0.0)


def crash(*_: object, **__: object) -> None:
    raise Crash("here")


def sweep(place: Place) -> None:
    Sweeper(place.process().engine.traits.tools).step(0.0)


def notes(place: Place) -> int:
    return len(place.store.scan(removals.PREFIX))


@pytest.mark.parametrize("way", ["delete", "purge"])
def test_a_crash_between_removing_and_telling_is_made_good(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The members that are gone count as deleted, and the batch ends; others run on."""
    batch = place.client.enqueue_batch(app.work, [("a",), ("b",), ("c",)])
    ids = [job.id for job in place.client.inspector.find(State.READY)]
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(Inspection, "_tell", crash)
        if way == "delete":
            place.client.inspector.delete(ids[:2], state=State.READY)
        else:
            place.client.inspector.purge(State.READY)
    left = 1 if way == "delete" else 0

    assert (0, 1) == (batch.progress().deleted, notes(place))
    sweep(place)
    place.process().run()
    assert (3 - left, left, 0) == (batch.progress().deleted, batch.progress().done, notes(place))


def test_a_crash_before_removing_changes_nothing(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is still there is told nothing, and the note goes."""
    batch = place.client.enqueue_batch(app.work, [("a",)])
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(type(place.broker), "delete", crash)
        place.client.inspector.delete(
            [job.id for job in place.client.inspector.find(State.READY)], state=State.READY
        )
    sweep(place)

    assert (0, 0) == (batch.progress().deleted, notes(place))
    place.process().run()
    assert 1 == batch.progress().done


def test_a_removal_leaves_no_note(place: Place, app: Any) -> None:
    """Once all are told, there is nothing to make good; jobs without traits need no note at all."""
    batch = place.client.enqueue_batch(app.work, [("a",)])
    place.client.enqueue(app.work, "plain")
    found = list(place.client.inspector.find(State.READY))
    assert 2 == len(place.client.inspector.delete(found, state=State.READY))

    assert (1, 0) == (batch.progress().deleted, notes(place))


def test_a_note_that_cannot_be_read_holds_up_no_other(place: Place, app: Any) -> None:
    """What another note says is told of all the same."""
    batch = place.client.enqueue_batch(app.work, [("a",)])
    [job] = place.client.inspector.find()
    place.store.apply([Put(f"{removals.PREFIX}0", b"of a later Goose")])
    shown = not place.url.startswith("amqp")
    bearing = [job.job] if job.job else []
    with removals.noted(place.store, "deleted", bearing, shown=shown) as confirm:
        confirm(place.broker.delete([job.id], state=State.READY))  # type: ignore[attr-defined]
        sweep(place)

    assert 1 == batch.progress().deleted
    assert 1 == notes(place)


def test_a_part_of_the_sweep_that_fails_holds_up_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are swept though the removals cannot be looked at; that is raised after."""

    def fail(*_: object) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(removals, "finish", fail)
    with pytest.raises(BrokerUnavailable, match="away"):
        sweep(place)
    assert place.store.apply([Get(SWEEP)]) != [None]
