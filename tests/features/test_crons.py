"""Cron entries: registered, fired once however many workers there are and wherever they die."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

import goose
from goose.brokers.base import Session, Share, State
from goose.brokers.memory import MemoryBroker
from goose.clients import Client
from goose.errors import (
    ArgumentError,
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    FunctionError,
    Unsupported,
)
from goose.features.crons import Cron
from goose.features.crons.entries import BATCH, CLAIM, dump, parse
from goose.features.crons.firing import IDLE, LOOK, UNDECIDED, Firing
from goose.features.uniques import claims, records
from goose.jobs import decode
from goose.metrics.fanout import Fanout
from goose.settings import Settings
from goose.stores.base import Operation, Put, Store
from goose.stores.memory import MemoryStore

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
DAYS = int(os.environ.get("CRON_DAYS", "1"))
"""Simulated days of the crowd of workers; ``make cron`` takes 30."""


def report(kind: str, *, copies: int = 1) -> None: ...


async def areport(kind: str) -> None: ...


class World:
    """A broker and its store under one clock, which begins a second before noon."""

    def __init__(self) -> None:
        self.time = NOON - 1
        self.broker = MemoryBroker(clock=lambda: self.time)
        self.store = MemoryStore(self.broker)
        self.client = Client(self.broker, settings=Settings())
        self.session = Session("tester")
        self.broker.open(self.session, ttl=1e9)
        self.done: list[str] = []

    def firing(self, store: Store | None = None, broker: Any = None) -> Firing:
        return Firing(broker or self.broker, store or self.store, mono=lambda: self.time)

    def work_off(self) -> list[str]:
        """Take and ack all that is ready; return the ids."""
        taken = self.broker.dequeue(self.session, [Share("default")], limit=10_000, wait=0)
        self.broker.ack(taken)
        ids = [delivery.envelope.id for delivery in taken]
        self.done += ids
        return ids

    def jobs(self) -> list[Any]:
        return [decode(item.envelope) for item in self.broker.page(State.READY, limit=1000).items]


@pytest.fixture
def world() -> World:
    """A broker, a store and a clock."""
    return World()


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-{text}+00:00")


# --- registering ---------------------------------------------------------------------------


def test_an_entry_says_what_it_will_do(world: World) -> None:
    """Registering returns the entry: its call, options and next instants in its time zone."""
    client = world.client.using(timezone="Asia/Tokyo", catch_up="all", queue="reports", timeout=30)
    cron = client.cron("daily", "0 9 * * *", report, "sales", copies=2)

    assert "2026-11-26T09:00:00+09:00" == cron.next_due.isoformat()
    assert [26, 27, 28] == [instant.day for instant in cron.upcoming(3)]
    assert (["sales"], {"copies": 2}) == (list(cron.job.args), cron.job.kwargs)
    assert ("reports", 30, "all") == (cron.job.queue, cron.job.timeout, cron.catch_up)
    assert cron == world.client.crons.get("daily") == world.client.crons.list()[0]


def test_registering_again_changes_nothing(world: World) -> None:
    """The same definition leaves the entry where it is, also if it is due or paused."""
    world.client.cron("c", "0 * * * *", report, "x")
    world.client.crons.pause("c")
    before = world.client.crons.get("c")
    world.time += 10 * DAY

    assert before == world.client.cron("c", "0 * * * *", report, "x")
    assert before == world.client.crons.get("c")


def test_a_new_call_does_not_lose_what_is_due(world: World) -> None:
    """A deploy that changes arguments while an instant is due fires it, with the new ones."""
    world.client.cron("c", "0 12 * * *", report, "old")
    world.time = NOON + 5
    world.client.cron("c", "0 12 * * *", report, "new")
    world.firing().step(0)

    [job] = world.jobs()
    assert ("new",) == job.args


def test_a_new_expression_begins_anew(world: World) -> None:
    """Instants of an expression that is gone do not fire any more."""
    world.client.cron("c", "0 12 * * *", report, "x")
    world.time = NOON + 5
    cron = world.client.cron("c", "0 13 * * *", report, "x")
    world.firing().step(0)

    assert [] == world.jobs()
    assert at("25T13:00") == cron.next_due


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda c: c.cron("", "0 * * * *", report, "x"), ConfigError),
        (lambda c: c.cron("a b", "0 * * * *", report, "x"), ConfigError),
        (lambda c: c.cron("c", "0 0 30 2 *", report, "x"), ConfigError),
        (lambda c: c.cron("c", 5, report, "x"), ConfigError),
        (lambda c: c.using(timezone="Nowhere").cron("c", "0 * * * *", report, "x"), ConfigError),
        (lambda c: c.using(catch_up="some").cron("c", "0 * * * *", report, "x"), ConfigError),
        (lambda c: c.cron("c", "0 * * * *", report), ArgumentError),
        (lambda c: c.cron("c", "0 * * * *", report, object()), ArgumentError),
        (lambda c: c.cron("c", "0 * * * *", lambda: None), FunctionError),
        (lambda c: c.using(depends_on="j1").cron("c", "0 * * * *", report, "x"), ConfigError),
        (lambda c: c.crons.pause("missing"), ConfigError),
        (lambda c: c.crons.run("missing"), ConfigError),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(
    world: World, call: Callable[[Client], Any], error: type[Exception]
) -> None:
    """Names, expressions, zones, policies and arguments are checked where they are given."""
    with pytest.raises(error):
        call(world.client)

    assert [] == world.client.crons.list()


def test_a_broker_without_a_store_says_so(world: World) -> None:
    """Cron needs a store; without one the error names the setting."""

    client = Client(_without(world.broker, "open_store"), settings=Settings())
    with pytest.raises(Unsupported, match=r"goose\.configure"):
        client.cron("c", "0 * * * *", report, "x")


def _without(broker: MemoryBroker, method: str) -> Any:
    names = [name for name in dir(broker) if not name.startswith("_") and name != method]
    return type("Storeless", (), {name: getattr(broker, name) for name in names})()


def test_the_verbs_of_the_door_and_of_asyncio(own_folder: Any) -> None:
    """`goose.cron` and `goose.aio` use the configured store."""
    goose.configure(broker="sqlite:///jobs.db", store="sqlite:///kept.db")
    try:
        goose.cron("one", "@daily", report, "x")

        async def use() -> list[str]:
            await goose.aio.using(catch_up="skip").cron("two", "@hourly", areport, "x")
            crons = goose.aio.using().crons
            assert (await crons.pause("two")).paused
            assert not (await crons.resume("two")).paused
            job = await crons.run("two")
            assert job.meta == {"cron": "two"}
            names = [cron.name for cron in await crons.list()]
            assert await crons.delete("two")
            assert None is await crons.get("two")
            return names

        assert ["one", "two"] == asyncio.run(use())
        assert {"goose.db", "jobs.db", "kept.db"} > {path.name for path in own_folder.glob("*.db")}
    finally:
        goose.clients.default.close()
        goose.configure()


# --- firing --------------------------------------------------------------------------------


def test_an_instant_is_one_job_with_its_id(world: World) -> None:
    """A fire is a job of the entry's call, whose id and meta say which instant it is for."""
    world.client.cron("c", "*/5 * * * *", report, "x")
    firing = world.firing()
    assert 1.0 == firing.step(0)
    world.time = NOON + 0.25
    assert LOOK == firing.step(0)

    [job] = world.jobs()
    assert "cron:c:2026-11-25T12:00:00Z" == job.id
    assert {"cron": "c", "cron_due": "2026-11-25T12:00:00Z"} == job.meta
    cron = world.client.crons.get("c")
    assert (NOON, NOON + 300, ()) == (cron.last_at, cron.next_at, cron.pending)


def test_without_entries_a_worker_hardly_looks(world: World) -> None:
    """No entry costs one look at the store every ten seconds."""
    assert IDLE == world.firing().step(0)


@pytest.mark.parametrize(
    ("catch_up", "hours"), [("skip", []), ("one", [15]), ("all", [12, 13, 14, 15])]
)
def test_what_was_missed_follows_the_policy(world: World, catch_up: Any, hours: list[int]) -> None:
    """After hours without a worker: nothing, the latest, or all that was missed; then as usual."""
    world.client.using(catch_up=catch_up).cron("c", "0 * * * *", report, "x")
    world.time = NOON + 3.5 * HOUR
    firing = world.firing()
    firing.step(0)

    assert [f"cron:c:2026-11-25T{hour}:00:00Z" for hour in hours] == world.work_off()
    world.time = NOON + 4 * HOUR + 30
    firing.step(0)
    assert ["cron:c:2026-11-25T16:00:00Z"] == world.work_off()


@pytest.mark.parametrize(
    ("catch_up", "fired", "missed"), [("skip", 0, 3), ("one", 1, 2), ("all", 3, 0)]
)
def test_what_is_fired_and_missed_is_measured(
    world: World, catch_up: Any, fired: int, missed: int
) -> None:
    """Instants that are made up for are fired, the others missed; in time there is none of these."""
    counted: Counter[str] = Counter()
    late: list[float] = []

    class Backend:
        def increment(self, name: str, value: int, tags: Any) -> None:
            assert {"cron": "c"} == tags
            counted[name] += value

        def timing(self, name: str, seconds: float, tags: Any) -> None:
            assert ("cron.lateness", {"cron": "c"}) == (name, tags)
            late.append(seconds)

        def gauge(self, name: str, value: float, tags: Any) -> None: ...

    world.client.using(catch_up=catch_up).cron("c", "0 * * * *", report, "x")
    firing = world.firing()
    firing.metrics = Fanout([Backend()])
    world.time = NOON + 2 * HOUR + 30 * MINUTE
    firing.step(0)
    assert (fired, missed) == (counted["cron.fired"], counted["cron.missed"])
    assert fired == len(late)
    assert not late or 30 * MINUTE == min(late)
    world.time = NOON + 3 * HOUR + 1
    firing.step(0)

    assert (fired + 1, missed) == (counted["cron.fired"], counted["cron.missed"])
    assert 1.0 == late[-1]


def test_all_comes_in_batches_and_not_from_far_away(world: World) -> None:
    """Making up for years of minutes is bounded, and no single swap is large."""
    world.client.using(catch_up="all").cron("c", "* * * * *", report, "x")
    world.time = NOON + 400 * DAY
    firing = world.firing()
    assert 0.0 == firing.step(0)
    assert BATCH == len(world.work_off())
    assert 369 * DAY <= world.client.crons.get("c").last_at - NOON < 370 * DAY


def test_a_clock_set_back_fires_nothing_again(world: World) -> None:
    """Instants that were fired stay fired when the store's clock goes back and comes again."""
    world.client.cron("c", "*/10 * * * *", report, "x")
    firing = world.firing()
    for now in (0, 600, 1200, -3000, 0, 600, 1200, 1800):
        world.time = NOON + now + 1
        firing.step(0)
        world.work_off()

    assert 4 == len(world.done) == len(set(world.done))


# --- unique entries --------------------------------------------------------------------------


@pytest.fixture
def alone(world: World) -> Client:
    """A client whose jobs are unique, and an entry made with it."""
    client = world.client.using(unique="k")
    client.cron("c", "0 * * * *", report, "x")
    return client


def test_an_instant_whose_key_is_held_makes_no_job(world: World, alone: Client) -> None:
    """While the last one's job, or any other with the key, is not done, instants make none."""
    firing, counted = world.firing(), Counter[str]()

    class Backend:
        def increment(self, name: str, value: int, tags: Any) -> None:
            counted[name, *sorted(tags)] += value

        def timing(self, *_: Any) -> None: ...
        def gauge(self, *_: Any) -> None: ...

    firing.metrics = Fanout([Backend()])
    world.time = NOON
    firing.step(0)
    world.time += HOUR
    firing.step(0)
    assert ["cron:c:2026-11-25T12:00:00Z"] == [job.id for job in world.jobs()]
    assert () == world.client.crons.get("c").pending
    assert {("cron.fired", "cron"): 1, ("jobs.existing", "function", "queue"): 1} == counted

    world.work_off()
    by_hand = alone.enqueue(report, "x")
    world.time += HOUR
    firing.step(0)
    assert [by_hand.id] == world.work_off()
    world.time += HOUR
    firing.step(0)
    assert ["cron:c:2026-11-25T15:00:00Z"] == world.work_off()


def test_one_of_many_missed_instants_gets_the_key(world: World) -> None:
    """Instants that are made up for together are one job, the oldest."""
    world.client.using(unique="k", catch_up="all").cron("c", "0 * * * *", report, "x")
    world.time = NOON + 3.5 * HOUR
    world.firing().step(0)

    assert ["cron:c:2026-11-25T12:00:00Z"] == world.work_off()


def test_to_run_one_now_is_answered_by_the_holder(world: World, alone: Client) -> None:
    """Run by hand while another has the key, an entry makes no job, and says who has it."""
    holder = alone.enqueue(report, "y")

    assert holder.id == world.client.crons.run("c").id
    assert [holder.id] == world.work_off()


def test_a_key_that_a_client_is_about_to_use_holds_nobody_up(world: World, alone: Client) -> None:
    """While nobody can tell whether a client stores its job, the instant waits and others fire."""
    world.client.cron("z", "0 * * * *", report, "z")
    job, envelope = alone.sealer.seal(report, ("x",), {})
    claims.Claim(world.broker, world.store).claim([(job, envelope)])  # and then the client dies
    world.time = NOON
    firing = world.firing()
    assert UNDECIDED == firing.step(0)
    assert ["cron:z:2026-11-25T12:00:00Z"] == world.work_off()

    world.time += records.CLAIM
    firing.step(0)
    assert ["cron:c:2026-11-25T12:00:00Z"] == world.work_off()


def test_its_jobs_have_what_was_bound(world: World) -> None:
    """Result and limit go with every fire, as with a job that is enqueued."""
    bound = world.client.using(result=60, limit=goose.Limit(concurrency=1))
    bound.cron("c", "0 * * * *", report, "x")
    world.time = NOON
    world.firing().step(0)
    bound.enqueue(report, "x")

    fired, enqueued = world.jobs()
    assert {"result", "limit"} == set(enqueued.traits)
    assert enqueued.traits == fired.traits


def test_other_options_are_another_definition(world: World, alone: Client) -> None:
    """Registered again with another key, the entry's next jobs have that."""
    world.client.using(unique="other").cron("c", "0 * * * *", report, "x")
    alone.enqueue(report, "x")
    world.time = NOON
    world.firing().step(0)

    assert 2 == len(world.work_off())


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dies_at", [1, 2, 3, 4, 5])
def test_no_crash_loses_the_fire_of_a_unique_entry(dies_at: int, after: bool) -> None:
    """Wherever a worker dies, another makes the job, with its key, and the next instant makes none.

    Changes are the claim (1), that of the key (2), the enqueue (3), and the notes of both (4, 5).
    """
    world = World()
    world.client.using(unique="k").cron("c", "0 12,13 * * *", report, "x")
    world.time = NOON
    doomed = Doomed(world, dies_at, after)
    with pytest.raises(Crash):
        world.firing(doomed, doomed).step(0)  # type: ignore[arg-type]
    survivor = world.firing()
    for _ in range(15):
        world.time += LOOK
        survivor.step(0)
    assert ["cron:c:2026-11-25T12:00:00Z"] == [job.id for job in world.jobs()]
    world.time = NOON + HOUR
    survivor.step(0)

    assert ["cron:c:2026-11-25T12:00:00Z"] == world.work_off()
    assert () == world.client.crons.get("c").pending


def test_paused_it_waits_and_resumed_it_goes_on(world: World) -> None:
    """What passes during a pause is not made up for; `run` works all the same."""
    world.client.using(catch_up="all").cron("c", "0 * * * *", report, "x")
    crons, firing = world.client.crons, world.firing()
    assert None is crons.pause("c").next_due
    world.time = NOON + 2.5 * HOUR
    firing.step(0)
    assert [] == world.work_off()
    assert at("25T15:00") == crons.resume("c").next_due
    assert at("25T15:00") == crons.resume("c").next_due

    assert [crons.run("c").id] == world.work_off()
    world.time = NOON + 3 * HOUR
    firing.step(0)
    assert ["cron:c:2026-11-25T15:00:00Z"] == world.work_off()
    assert (True, False) == (crons.delete("c"), crons.delete("c"))
    world.time += HOUR
    assert IDLE == firing.step(0)


def test_an_entry_of_a_later_version_is_left_alone(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What this code cannot read is told once and does not keep the others from firing."""
    cron = world.client.cron("c", "0 12 * * *", report, "x")
    fields = json.loads(dump(cron))
    world.store.apply([Put("cron:{a}", json.dumps({**fields, "v": 2}).encode())])
    world.store.apply([Put("cron:{b}", b"\xff")])
    kept = parse(json.dumps({**fields, "later": 1}).encode())
    world.store.apply([Put(cron.key, dump(kept))])
    world.time = NOON
    firing = world.firing()
    firing.step(0)
    firing.step(0)

    assert ["cron:c:2026-11-25T12:00:00Z"] == world.work_off()
    assert 2 == sum("cannot fire here" in record.message for record in caplog.records)
    assert {"later": 1} == world.client.crons.get("c").extra


def test_an_entry_without_options_of_its_own_can_be_read(world: World) -> None:
    """One that was stored before entries kept more than the call fires as ever."""
    cron = world.client.cron("c", "0 * * * *", report, "x")
    fields = json.loads(dump(cron))
    del fields["traits"]
    world.store.apply([Put(cron.key, json.dumps(fields).encode())])
    world.time = NOON
    world.firing().step(0)

    assert ["cron:c:2026-11-25T12:00:00Z"] == world.work_off()


def test_an_entry_that_fails_holds_up_no_other(
    world: World, alone: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """What is wrong with one, such as a record of its key that is none, is told once."""
    world.client.cron("z", "0 * * * *", report, "z")
    [job, _] = alone.sealer.seal(report, ("x",), {})
    world.store.apply([Put(records.trait_of(job).key, b"nonsense")])
    world.time = NOON
    firing = world.firing()
    for _ in range(3):
        assert LOOK == firing.step(0)

    assert ["cron:z:2026-11-25T12:00:00Z"] == world.work_off()
    assert 1 == caplog.text.count("cannot fire")


def test_a_batch_has_no_entries(world: World) -> None:
    """The jobs of an entry would all be the same member of a batch, so that is refused."""
    with world.client.batch() as batch, pytest.raises(ConfigError, match="members of a batch"):
        batch.cron("c", "0 * * * *", report, "x")


# --- crashes -------------------------------------------------------------------------------


class Crash(BaseException):
    """The worker's process ends here."""


@dataclass
class Doomed:
    """A store and a broker whose *dies_at*-th change is the last, before or after it is made."""

    world: World
    dies_at: int
    after: bool
    error: type[BaseException] = Crash
    changes: int = 0

    def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
        return self._change(lambda: self.world.store.apply(operations))

    def schedule(self, envelopes: Any) -> None:
        self._change(lambda: self.world.broker.schedule(envelopes))

    def _change(self, call: Callable[[], Any]) -> Any:
        self.changes += 1
        if self.changes != self.dies_at:
            return call()
        if self.after:
            call()
        raise self.error("the worker dies")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world.store, name)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("dies_at", [1, 2, 3])
@pytest.mark.parametrize("busy", [False, True])
def test_no_crash_loses_a_fire(dies_at: int, after: bool, busy: bool) -> None:
    """Wherever a worker dies, another fires; twice only if the job was stored, done and not noted.

    Changes are the claim (1), the enqueue (2) and the note that it is done (3).
    """
    world = World()
    world.client.cron("c", "0 12 * * *", report, "x")
    world.time = NOON
    doomed = Doomed(world, dies_at, after)
    with pytest.raises(Crash):
        world.firing(doomed, doomed).step(0)  # type: ignore[arg-type]
    if busy:
        world.work_off()
    survivor = world.firing()
    for _ in range(15):
        world.time += LOOK
        survivor.step(0)
    world.work_off()

    stored_but_not_noted = (dies_at, after) in {(2, True), (3, False)}
    assert (2 if busy and stored_but_not_noted else 1) == len(world.done)
    assert {"cron:c:2026-11-25T12:00:00Z"} == set(world.done)
    assert () == world.client.crons.get("c").pending


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_an_outage_delays_a_fire_and_doubles_none(fails_at: int, after: bool) -> None:
    """A call that fails, carried out or not, is made good as soon as the broker answers."""
    world = World()
    world.client.cron("c", "0 12 * * *", report, "x")
    world.time = NOON
    doomed = Doomed(world, fails_at, after, error=BrokerUnavailable)
    firing = world.firing(doomed, doomed)  # type: ignore[arg-type]
    with pytest.raises(BrokerError):
        firing.step(0)
    firing.step(0)
    world.work_off()

    assert ["cron:c:2026-11-25T12:00:00Z"] == world.done
    assert () == world.client.crons.get("c").pending


def test_a_worker_that_hung_over_its_claim_leaves_it(world: World) -> None:
    """Once the answer to a claim took too long, another may have fired and its job may be done."""
    world.client.cron("c", "0 12 * * *", report, "x")
    world.time = NOON

    class Slow(Doomed):
        def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
            done = world.store.apply(operations)
            if not world.done:
                world.time += CLAIM + 1
                world.firing().step(0)
                world.work_off()
            return done

    slow = Slow(world, 99, False)
    world.firing(slow).step(0)  # type: ignore[arg-type]

    assert ["cron:c:2026-11-25T12:00:00Z"] == world.done + world.work_off()


def test_a_change_while_firing_is_kept(world: World) -> None:
    """Somebody pauses between claim and note: the note does not undo it; a deleted entry stays so."""
    for change in ("pause", "delete"):
        world.client.cron("c", "0 * * * *", report, "x")
        world.time += HOUR

        class Meddled(Doomed):
            def schedule(self, envelopes: Any) -> None:
                getattr(world.client.crons, change)("c")  # noqa: B023 - called in this turn
                world.broker.schedule(envelopes)

        world.firing(broker=Meddled(world, 99, False)).step(0)
        cron = world.client.crons.get("c")
        if change == "pause":
            assert cron.paused
            assert () == cron.pending
            world.client.crons.resume("c")
    assert None is cron
    assert 2 == len(set(world.work_off())) == len(world.done)


# --- crowds --------------------------------------------------------------------------------


class Skewed:
    """The store of a worker whose own host's clock it goes by."""

    def __init__(self, store: MemoryStore, skew: float) -> None:
        self._store, self._skew = store, skew

    def now(self) -> float:
        return self._store.now() + self._skew

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.timeout(60 * DAYS)
@pytest.mark.parametrize("seed", range(2))
def test_eight_workers_with_clocks_apart_fire_each_instant_once(seed: int) -> None:
    """For `DAYS`, with clocks 30 s apart, restarts and jobs done at once: each instant is one job.

    No job is lent before its instant, whatever the clock of the worker that fired it.
    """
    chance = random.Random(seed)
    world = World()
    world.client.cron("c", "*/20 * * * *", report, "x")
    crowd = [world.firing(Skewed(world.store, chance.uniform(-30, 30))) for _ in range(8)]  # type: ignore[arg-type]
    early: list[str] = []
    while world.time < NOON + DAYS * DAY:
        world.time += chance.uniform(1, 50)
        for number in chance.sample(range(8), chance.randint(2, 8)):
            if chance.random() < 0.02:
                skewed = Skewed(world.store, chance.uniform(-30, 30))
                crowd[number] = world.firing(skewed)  # type: ignore[arg-type]
            crowd[number].step(0)
            for id_ in world.work_off():
                due = datetime.fromisoformat(id_.removeprefix("cron:c:")).timestamp()
                early += [id_] if due > world.time else []

    times = Counter(world.done)
    assert {1} == set(times.values())
    assert 72 * DAYS <= len(times) <= 72 * DAYS + 1
    assert [] == early


def test_the_crowd_survives_crashes_anywhere() -> None:
    """Workers that die at random changes, for a day of minutes: no instant is lost."""
    chance = random.Random(7)
    world = World()
    world.client.using(catch_up="all").cron("c", "*/2 * * * *", report, "x")

    def born() -> Firing:
        doomed = Doomed(world, chance.randint(1, 12), chance.random() < 0.5)
        return world.firing(doomed, doomed)  # type: ignore[arg-type]

    crowd = [born() for _ in range(4)]
    crashes = 0
    while world.time < NOON + DAY:
        world.time += chance.uniform(1, 20)
        number = chance.randrange(4)
        try:
            crowd[number].step(0)
        except Crash:
            crashes += 1
            crowd[number] = born()
    world.time += CLAIM
    for _ in range(3):
        world.firing().step(0)
        world.time += 1

    # Never worked off meanwhile, so that one id is one job.
    assert 720 <= len(set(world.work_off())) == len(world.done) <= 721
    assert crashes > 100


def test_a_stored_entry_reads_as_it_was_written(world: World) -> None:
    """Every field of an entry survives the store."""
    retry = goose.Retry(max_retries=3)
    cron = world.client.using(retry=retry, group="g").cron("c", "* * * * *", report, "x", copies=3)
    changed, _ = replace(cron, next_at=NOON - HOUR, paused=False).claim(NOON, "me") or (cron, [])

    assert changed.pending
    for each in (cron, changed):
        again = parse(dump(each))
        assert dump(again) == dump(each)
        assert isinstance(again, Cron)
        assert again.is_like(each)
