"""Fair shares: a tenant with a backlog does not keep the others waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

import goose
from goose.brokers.base import Grouped, Inspector, State
from goose.brokers.memory import MemoryBroker
from tests.features.places import Place

JOB = 0.02
"""Seconds a job takes."""
SLOTS = 4
BURST = 8
"""Jobs that a quiet tenant enqueues at a time …"""
BURSTS = 4
"""… and how often."""
QUIET = [f"tenant-{number}" for number in range(9)]

ended: dict[str, float] = {}
"""When each job ended, by its name."""


def work(name: str) -> None:
    """Take a while, and leave a mark."""
    time.sleep(JOB)
    ended[name] = time.monotonic()


@pytest.fixture(autouse=True)
def _forget() -> None:
    ended.clear()


def latencies(client: goose.Client, wait_until: Callable[..., None]) -> list[float]:
    """Enqueue what nine quiet tenants do, at once and now and then; return the seconds to each end."""
    begun: dict[str, float] = {}

    def tenant(group: str) -> None:
        mine = client.using(group=group)
        for burst in range(BURSTS):
            names = [f"{group}-{burst}-{number}" for number in range(BURST)]
            begun.update(dict.fromkeys(names, time.monotonic()))
            mine.enqueue_many(work, [(name,) for name in names])
            wait_until(lambda names=names: ended.keys() >= set(names), seconds=60)

    threads = [threading.Thread(target=tenant, args=(group,)) for group in QUIET]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(ended[name] - at for name, at in begun.items())


@pytest.mark.timeout(240)
def test_a_flood_costs_the_others_little(place: Place, wait_until: Callable[..., None]) -> None:
    """Ten tenants, one with a hundred times as many jobs: for the others it is no worse than twice."""
    if not isinstance(place.broker, Grouped):
        pytest.skip("its broker does not share a queue among groups")
    assert isinstance(place.broker, Inspector)
    client = place.client
    with place.worker([__name__], concurrency=SLOTS):
        alone = latencies(client, wait_until)
        ended.clear()
        flood = [(f"flood-{number}",) for number in range(100 * BURST * BURSTS)]
        client.using(group="flood").enqueue_many(work, flood)
        beside = latencies(client, wait_until)
        assert any(name.startswith("flood") for name in ended), "the flood had its turns, too"
        place.broker.purge(State.READY)

    p99 = [values[int(len(values) * 0.99)] for values in (alone, beside)]
    assert p99[1] <= 2 * p99[0], f"p99 alone {p99[0]:.3f} s, beside a flood {p99[1]:.3f} s"


def test_groups_are_served_or_refused(place: Place) -> None:
    """On a broker that cannot share a queue, a job with a group is refused, and says what to do."""
    if isinstance(place.broker, Grouped):
        place.client.using(group="acme").enqueue(work, "x")
        assert ["acme"] == list(place.broker.next_groups("default"))
        return
    with pytest.raises(goose.Unsupported, match="give each group a queue"):
        place.client.using(group="acme").enqueue(work, "x")


class OneLine(MemoryBroker):
    """A broker that cannot share a queue."""

    next_groups = None  # type: ignore[assignment]


def test_a_refusal_leaves_nothing_behind() -> None:
    """Whatever a group was asked for with: nothing is stored, no key is taken, no batch is open."""
    client = goose.Client(OneLine())
    mine = client.using(group="acme")
    parent = client.using(result=True).enqueue_in(60, work, "parent")
    calls: list[Callable[[], object]] = [
        lambda: mine.enqueue(work, "x"),
        lambda: mine.enqueue_in(60, work, "x"),
        lambda: mine.using(unique="key").enqueue(work, "x"),
        lambda: mine.enqueue_many(work, [("x",)] * 3),
        lambda: mine.enqueue_batch(work, [("x",)]),
        lambda: mine.cron("nightly", "0 3 * * *", work, "x"),
        lambda: mine.using(depends_on=[parent]).enqueue(work, "x"),
        lambda: asyncio.run(mine.aio.enqueue(work, "x")),
    ]
    for call in calls:
        with pytest.raises(goose.Unsupported, match="give each group a queue"):
            call()

    assert 1 == len(list(client.inspector.find())), "the parent alone"
    assert [] == list(client.batches.records())
    assert [] == client.crons.list()
    began = time.monotonic()
    client.using(unique="key").enqueue(work, "x")
    assert time.monotonic() < began + 5, "the key was taken"
