"""Leases of limits: kept over outages, had from the dead, and doubted in between."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from goose.brokers.base import Session, Share, State
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerUnavailable
from goose.features.limits import leases
from goose.features.limits.leases import Leases
from goose.features.limits.trait import Limits
from goose.features.limits.values import MOST, bounds_of
from goose.features.traits import TTL, Defer, Traits
from goose.jobs import Envelope, Job
from goose.stores.base import MAX_VALUE, Delete, Get, Operation, Swap
from goose.stores.memory import MemoryStore

# --- the value ---------------------------------------------------------------------------


def test_a_lease_ends_with_its_process_and_not_before() -> None:
    """A killed process's place is taken when its lease was doubted for long, or at once by its own job."""
    now = 100.0
    held, waits = Leases().take(["a", "b"], "dead", 1, now)
    assert ["b"] == list(waits)
    assert ["b"] == list(held.take(["b"], "other", 1, now + TTL - 1)[1])
    doubted, waits = held.take(["b"], "other", 1, now + TTL)
    assert ["b"] == list(waits)
    assert ["b"] == list(doubted.take(["b"], "other", 1, now + TTL + TTL / 2 - 1)[1])
    assert {} == doubted.take(["b"], "other", 1, now + TTL + TTL / 2)[1]
    over, none = held.take(["a"], "other", 1, now + 1)
    assert ({}, "other") == (none, over.held["a"][0])
    # The one that was thought dead gives back, or keeps, nothing that is another's.
    assert over.give_back(["a"], "dead", now + 2)[0].held == over.held
    assert over.keep(["a"], "dead", now + 9).held == over.held
    assert now + 9 + TTL == over.keep(["a"], "other", now + 9).held["a"][2]


def test_who_waits_stands_in_a_line() -> None:
    """Places go by the order of coming; a look in vain costs nobody his place."""
    held, _ = Leases(mean=1.0).take(["a"], "me", 1, 0.0)
    held, waits = held.take(["b", "c"], "me", 1, 0.0)
    assert waits["b"] < waits["c"]
    held, again = held.take(["b"], "me", 1, 0.5)
    assert again["b"] == waits["b"]
    held, following = held.give_back(["a"], "me", 1.0)
    assert (("b",), ("c",)) == (following, held.waiting)


def test_a_clock_that_goes_back_holds_up_no_place() -> None:
    """Leases and doubts of an hour to come are of a clock that has gone back: they end in time, and not before."""
    held, _ = Leases().take(["a"], "dead", 1, 7000.0)
    doubted, _ = held.take(["b"], "other", 1, 7000.0 + TTL)
    now = 3400.0
    for before, lapses in ((held, TTL), (doubted, 0.0)):
        back, waits = before.take(["b"], "other", 1, now)
        assert ["b"] == list(waits)
        back, waits = back.take(["b"], "other", 1, now + lapses)
        assert ["b"] == list(back.take(["b"], "other", 1, now + lapses + TTL / 2 - 1)[1])
        assert {} == back.take(["b"], "other", 1, now + lapses + TTL / 2)[1]
    # Its owner, if it lives, is heard meanwhile.
    kept = doubted.take(["b"], "other", 1, now)[0].keep(["a"], "dead", now + 5)
    assert ["b"] == list(kept.take(["b"], "other", 1, now + 5 + TTL)[1])
    assert 0 < kept.give_back(["a"], "dead", now + 6)[0].mean


# --- processes -------------------------------------------------------------------------


def limits_at(store: MemoryStore, mono: Callable[[], float], ttl: float = TTL) -> Limits:
    """Return the trait of one process."""
    return cast("Limits", Traits(MemoryBroker(), lambda: store, mono=mono, ttl=ttl).of("limit"))


@pytest.fixture
def clock() -> list[float]:
    """The time that everybody sees, to be changed."""
    return [1000.0]


@pytest.fixture
def limited(clock: list[float]) -> tuple[MemoryStore, Callable[[], Limits], list[Job[Any]]]:
    """A store, what makes a process's trait there, and two jobs of which one may run."""
    store = MemoryStore(clock=lambda: clock[0])
    fields = [{"name": "l", "concurrency": 1}]
    jobs = [Job(name, "m:f", traits={"limit": fields}) for name in ("a", "b")]  # type: ignore[dict-item]
    return store, lambda: limits_at(store, lambda: clock[0]), jobs


Limited = tuple[MemoryStore, Callable[[], Limits], list[Job[Any]]]


def test_a_lease_outlives_an_outage_of_the_store(limited: Limited, clock: list[float]) -> None:
    """A lease that nobody could keep alive is nobody else's before its process had time to be heard."""
    _, process, (first, second) = limited
    mine, other = process(), process()
    assert {} == mine.admit([first])
    assert ["b"] == list(other.admit([second]))
    clock[0] += TTL + 1  # nobody had an answer meanwhile
    assert ["b"] == list(other.admit([second]))
    mine.tick()
    for _ in range(5):
        clock[0] += 5
        mine.tick()
        other.tick()
        assert ["b"] == list(other.admit([second]))


@pytest.mark.parametrize("heard_first", [True, False])
def test_a_lease_outlives_an_outage_of_a_day(
    limited: Limited, clock: list[float], heard_first: bool
) -> None:
    """However long the store is away, it remembers leases, whoever reaches it first afterwards."""
    _, process, (first, second) = limited
    mine, other = process(), process()
    mine.admit([first])
    clock[0] += 86400
    if heard_first:
        mine.tick()
    assert ["b"] == list(other.admit([second]))
    mine.tick()
    clock[0] += TTL / 2 + 1
    assert ["b"] == list(other.admit([second]))


def test_a_lease_of_long_life_is_not_forgotten(limited: Limited, clock: list[float]) -> None:
    """A process that stands still has its place for its time to live, though nobody writes meanwhile."""
    store, _, (first, second) = limited
    mine, other = (limits_at(store, lambda: clock[0], ttl=3600.0) for _ in range(2))
    began = clock[0]
    mine.admit([first])
    while said := other.admit([second]):
        assert isinstance(said["b"], Defer)
        clock[0] += said["b"].seconds

    assert 3600 + 1800 <= clock[0] - began <= 3600 + 1800 + 20


def test_a_limit_that_nobody_uses_is_forgotten(limited: Limited, clock: list[float]) -> None:
    """What is left when all leases were given back goes by itself: there may be a key per customer."""
    store, process, (first, _) = limited
    mine = process()
    mine.admit([first])
    mine.left([first])
    assert store.scan("limit:")
    clock[0] += leases.FORGOTTEN
    assert not store.scan("limit:")


def test_the_place_of_a_killed_process_is_taken(limited: Limited, clock: list[float]) -> None:
    """Who comes for the place of a killed process has it within 45 s, and is told when to come."""
    _, process, (first, second) = limited
    killed, other = process(), process()
    began = clock[0]
    killed.admit([first])
    while said := other.admit([second]):
        assert isinstance(said["b"], Defer)
        clock[0] += said["b"].seconds

    assert TTL + TTL / 2 <= clock[0] - began <= TTL + TTL / 2 + 1


def test_processes_that_live_for_seconds_take_the_place_of_a_killed_one(
    limited: Limited, clock: list[float]
) -> None:
    """That a lease was doubted for long enough is known to a process that has just begun."""
    _, process, (first, second) = limited
    process().admit([first])
    clock[0] += 10 * TTL
    assert ["b"] == list(process().admit([second]))
    clock[0] += 60

    assert {} == process().admit([second])


def test_who_waits_for_a_doubted_place_comes_when_it_is_free() -> None:
    """The first in line come as doubts ripen, not when a job of the usual length would be over."""
    held, _ = Leases(mean=600.0).take(["a"], "dead", 2, 100.0)
    held, _ = held.take(["b"], "other", 2, 110.0)
    _, early = held.take(["c"], "other", 2, 100.0 + TTL - 1)
    held, waits = held.take(["c", "d", "e"], "other", 2, 100.0 + TTL)

    assert 1 <= early["c"] <= 1.5
    assert 10 <= waits["c"] <= 10.5  # the other lease is not kept either
    assert TTL / 2 - 0.5 <= waits["d"] <= TTL / 2 + 0.5
    assert leases.LONGEST == waits["e"]
    held, waits = held.take(["c"], "other", 2, 140.1)
    assert 4.9 <= waits["c"] <= 5.4
    assert {} == held.take(["c"], "other", 2, 140.1 + waits["c"])[1]


def test_a_doubt_ends_when_its_lease_is_kept() -> None:
    """Who is heard before a doubt is ripe keeps his place, however often he was doubted."""
    held, _ = Leases().take(["a"], "mine", 1, 100.0)
    now = 100.0
    for _ in range(3):
        now += TTL
        held, waits = held.take(["b"], "other", 1, now)
        assert ["b"] == list(waits)
        now += TTL / 2 - 1
        held = held.keep(["a"], "mine", now)
    assert ["b"] == list(held.take(["b"], "other", 1, now + 2)[1])


def test_doubts_are_stored_where_older_versions_pass_over_them() -> None:
    """A value without doubts is read, and what older versions read of one with doubts is as it was."""
    old = b'{"held":{"a":["mine",1.0,31.0]},"mean":0.5,"waiting":["b"]}'
    assert old == leases.dump(leases.parse(old))
    doubted, _ = leases.parse(old).take(["b"], "other", 1, 40.0)
    fields = json.loads(leases.dump(doubted))

    assert {"a": ["mine", 1.0, 31.0]} == fields["held"]
    assert doubted == leases.parse(leases.dump(doubted))
    assert ["b"] == list(doubted.take(["b"], "other", 1, 54.9)[1])
    assert {} == doubted.take(["b"], "other", 1, 55.0)[1]


def test_the_highest_concurrency_fits_in_a_value() -> None:
    """With long ids and all of its leases in doubt, as after a kill of every worker."""
    ids = [f"{number:0200d}" for number in range(MOST)]
    instants = (1764181473.123456, 1764181504.123456)
    held, none = Leases().take(ids, "f" * 32, MOST, instants[0])
    doubted, waits = held.take([f"w{id_[1:]}" for id_ in ids], "f" * 32, MOST, instants[1])

    assert (MOST, {}, MOST) == (len(held.held), none, len(waits))
    assert len(leases.dump(doubted)) <= MAX_VALUE


@pytest.mark.parametrize("only", ["writes", "the limit's own key"])
def test_a_lease_outlives_half_an_outage(
    limited: Limited, clock: list[float], monkeypatch: pytest.MonkeyPatch, only: str
) -> None:
    """A store that answers anything else, but cannot keep the lease alive, gives nobody its place."""
    store, process, (first, second) = limited
    mine, other = process(), process()
    place = bounds_of(first, {})[0].place

    def fails(operation: Operation) -> bool:
        if only == "writes":
            return isinstance(operation, Swap)
        return isinstance(operation, Get) and operation.key.startswith(place)

    mine.admit([first])
    other.admit([second])
    with monkeypatch.context() as patch:
        patch.setattr(store, "apply", without(store, fails))
        for _ in range(10):
            clock[0] += 5
            for process_ in (mine, other):
                with contextlib.suppress(BrokerUnavailable):
                    process_.tick()
    assert ["b"] == list(other.admit([second]))
    mine.tick()
    clock[0] += TTL - 1
    assert ["b"] == list(other.admit([second]))


def test_a_lease_outlives_an_outage_in_which_an_admission_hangs(
    limited: Limited, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was in touch before a call, and is answered after the lease has run out, takes no place."""
    store, process, (first, second) = limited
    mine, other = process(), process()
    mine.admit([first])
    for _ in range(8):
        clock[0] += 5
        mine.tick()
        other.tick()
        assert ["b"] == list(other.admit([second]))

    def late() -> float:
        clock[0] += TTL + 1
        return clock[0]

    with monkeypatch.context() as patch:
        patch.setattr(store, "now", late)
        assert ["b"] == list(other.admit([second]))


def test_a_place_that_cannot_be_kept_costs_no_other(
    limited: Limited, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases of healthy places are kept alive while the key of one place is out of reach; that is told."""
    store, process, (first, second) = limited
    fields = [{"name": "away", "concurrency": 1}]
    lost: Job[Any] = Job("x", "m:f", traits={"limit": fields})  # type: ignore[dict-item]
    mine, other = process(), process()
    mine.admit([lost])
    mine.admit([first])
    place = bounds_of(lost, {})[0].place
    fails = lambda operation: operation.key.startswith(place)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(store, "apply", without(store, fails))
        for _ in range(20):
            clock[0] += 5
            with pytest.raises(BrokerUnavailable):
                mine.tick()
            assert ["b"] == list(other.admit([second]))


def test_a_lease_that_the_store_has_lost_is_put_back(limited: Limited, clock: list[float]) -> None:
    """After a failover that lost the last writes, who runs has his place again when he is heard next."""
    store, process, (first, second) = limited
    mine, other = process(), process()
    mine.admit([first])
    store.apply([Delete(bounds_of(first, {})[0].place + "leases")])
    mine.tick()
    assert ["b"] == list(other.admit([second]))
    mine.left([first])
    clock[0] += TTL
    mine.tick()
    assert {} == other.admit([second])


def test_a_lease_that_is_being_given_back_is_not_put_back(
    limited: Limited, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that keeps its leases just as one of them goes does not take it for lost."""
    store, process, (first, second) = limited
    mine, other = process(), process()
    mine.admit([first])
    apply, kept = store.apply, []

    def meanwhile(operations: Sequence[Operation]) -> Sequence[Any]:
        results = apply(operations)
        if isinstance(operations[0], Swap) and not kept:
            kept.append(results)
            clock[0] += TTL
            mine.tick()
        return results

    monkeypatch.setattr(store, "apply", meanwhile)
    mine.left([first])
    assert [[True]] == kept
    assert {} == other.admit([second])


def test_a_refusal_by_another_limit_says_nothing_of_how_long_jobs_run(clock: list[float]) -> None:
    """Whoever has a place for no time, as there is none in another limit, has nobody come back in a loop."""
    store = MemoryStore(clock=lambda: clock[0])
    own, total = {"name": "own", "concurrency": 1}, {"name": "total", "concurrency": 1}
    full: Job[Any] = Job("full", "m:f", traits={"limit": [total]})  # type: ignore[dict-item]
    jobs: list[Job[Any]] = [
        Job(name, "m:f", traits={"limit": [own, total]})  # type: ignore[dict-item]
        for name in ("a", "b")
    ]
    limits = limits_at(store, lambda: clock[0])
    limits.admit([full])
    for _ in range(50):
        clock[0] += 5
        limits.tick()
        assert ["a"] == list(limits.admit(jobs[:1]))
    limits.left([full])
    answers = limits.admit(jobs)

    assert ["b"] == list(answers)
    assert isinstance(answers["b"], Defer)
    assert 0.5 <= answers["b"].seconds


def test_a_job_that_still_runs_here_waits(limited: Limited) -> None:
    """A job lent again to a process that runs it under a lost loan keeps its place for the new run."""
    _, process, (first, second) = limited
    mine, other = process(), process()
    mine.admit([first])
    assert ["a"] == list(mine.admit([first]))  # while the lost run goes on
    mine.left([first])
    assert {} == mine.admit([first])
    assert ["b"] == list(other.admit([second]))


@pytest.mark.parametrize(
    ("stored", "called", "left"),
    [
        ({}, [], []),
        ({"d": State.SCHEDULED}, ["d"], []),
        ({"b": State.SCHEDULED, "c": State.SCHEDULED}, ["b"], ["c", "d"]),
        ({"b": State.RUNNING, "c": State.SCHEDULED}, ["c"], ["d"]),
        ({"b": State.READY, "c": State.SCHEDULED}, [], ["c", "d"]),
    ],
)
def test_who_is_not_there_is_passed_over(
    clock: list[float], stored: dict[str, State], called: list[str], left: list[str]
) -> None:
    """A place goes to the first in line that can come: not to a cancelled job, or one still at a worker."""
    broker, store = MemoryBroker(), MemoryStore(clock=lambda: clock[0])
    session = Session("worker")
    broker.open(session, ttl=60)
    for id_, state in sorted(stored.items(), key=lambda each: each[1] is not State.RUNNING):
        (broker.schedule if state is State.SCHEDULED else broker.enqueue)(
            [Envelope(id_, "default", b"{}", delay=60 if state is State.SCHEDULED else None)]
        )
        if state is State.RUNNING:
            broker.dequeue(session, [Share("default")], limit=1, wait=0)
    limits = cast("Limits", Traits(broker, lambda: store, mono=lambda: clock[0]).of("limit"))
    first, *others = (
        Job(name, "m:f", traits={"limit": [{"name": "l", "concurrency": 1}]}) for name in "abcd"
    )
    limits.admit([first])
    limits.admit(others)
    limits.left([first])

    ready = [item.envelope.id for item in broker.page(State.READY).items]
    assert called == [id_ for id_ in ready if stored[id_] is not State.READY]
    [(_, value)] = store.scan("limit:")
    assert left == list(leases.parse(value).waiting)


def test_what_could_not_be_given_back_goes_by_itself(limited: Limited, clock: list[float]) -> None:
    """A lease whose job has left is not kept alive, though the store failed when it was given back."""
    store, process, (first, second) = limited
    mine, other = process(), process()
    mine.admit([first])
    other.admit([second])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "apply", away)
        with pytest.raises(BrokerUnavailable):
            mine.left([first])
    began = clock[0]
    while other.admit([second]):
        clock[0] += 5
        mine.tick()
        assert clock[0] - began <= TTL + TTL / 2 + 5


def test_a_process_that_could_not_ask_holds_nothing(limited: Limited) -> None:
    """A job whose admission failed half way is asked about again as if for the first time."""
    store, process, (first, _) = limited
    mine = process()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "apply", away)
        with pytest.raises(BrokerUnavailable):
            mine.admit([first])
    assert {} == mine.admit([first])


def away(_operations: object) -> None:
    """Be out of reach."""
    raise BrokerUnavailable("nobody answers")


def without(store: MemoryStore, fails: Callable[[Any], bool]) -> Callable[..., Sequence[Any]]:
    """Return the `apply` of *store* that does not do those operations."""
    apply = store.apply

    def refusing(operations: Sequence[Operation]) -> Sequence[Any]:
        if any(fails(operation) for operation in operations):
            raise BrokerUnavailable("not that one")
        return apply(operations)

    return refusing
