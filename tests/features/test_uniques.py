"""A unique job is alone with its key: until it starts, until it ends, or for a time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import goose
from goose.brokers import sees_all
from goose.brokers.base import State
from goose.brokers.memory import MemoryBroker
from goose.clients import Client
from goose.errors import BrokerError, CallError, ConfigError, EnqueueError
from goose.features.traits import Ended, Finish
from goose.features.uniques import claims, holders, records
from goose.jobs import Job
from goose.settings import Settings
from tests.features.places import Place, crash_points

WaitUntil = Callable[..., None]
APP = """
import goose
ran = []

def note(word, *, times=1):
    ran.append(word)

def other(word):
    ran.append(word)

def fail(word):
    raise ValueError(word)

def bury(word):
    raise goose.Bury(word)

meanwhile = []

def work(word):
    ran.append(word)
    while meanwhile:
        meanwhile.pop()()
"""


@pytest.fixture(autouse=True)
def app(importable: Path) -> Any:
    """The functions of the jobs."""
    (importable / "feature_app.py").write_text(APP)
    import feature_app  # type: ignore[import-not-found]

    return feature_app


def test_who_comes_second_gets_the_job_that_is_there(place: Place, app: Any) -> None:
    """Until it is done: queued or running, it is the answer, arguments and all; then the key is free."""
    unique = place.client.using(unique=lambda word, times=1: f"word-{word}")

    first = unique.enqueue(app.note, "a", times=2)
    second = unique.enqueue(app.note, "a", times=3)
    apart = unique.enqueue(app.note, "b")
    elsewhere = place.client.using(unique="word-a").enqueue(app.other, "a")

    assert (first.id, {"times": 2}) == (second.id, second.kwargs)
    assert 3 == len({first.id, apart.id, elsewhere.id})
    place.process().run()
    assert ["a", "a", "b"] == sorted(app.ran)
    third = unique.enqueue(app.note, "a")
    assert third.id != first.id


def test_all_arguments_can_be_the_key(place: Place, app: Any) -> None:
    """By value and by name: the same call is the same key however it is written."""
    unique = place.client.using(unique=True)

    a, b = unique.enqueue(app.note, "x", times=1), unique.enqueue(app.note, word="x", times=1)
    c = unique.enqueue(app.note, "x", times=2)

    assert a.id == b.id != c.id


@pytest.mark.parametrize("fn", ["fail", "bury"])
def test_a_death_frees_the_key(place: Place, app: Any, fn: str) -> None:
    """A job that is given up, by itself or after its last attempt, holds nothing."""
    unique = place.client.using(unique="k", retry=goose.Retry(max_retries=0))

    first = unique.enqueue(getattr(app, fn), "x")
    place.process().run()

    assert 1 == place.counts()[State.DEAD]
    assert first.id != unique.enqueue(getattr(app, fn), "x").id


def test_a_retry_keeps_the_key(place: Place, app: Any) -> None:
    """Between two attempts the job is still the one."""
    unique = place.client.using(unique="k", retry=goose.Retry(backoff=300))

    first = unique.enqueue(app.fail, "x")
    place.process().run()

    assert first.id == unique.enqueue(app.fail, "x").id


@pytest.mark.parametrize("how", ["delete", "purge", "cancel"])
def test_who_removes_a_job_frees_its_key(
    new_place: Callable[[], Place], app: Any, how: str
) -> None:
    """Deleting, purging and cancelling are ends like any other."""
    place = new_place()
    unique = place.client.using(unique="k")
    first = unique.enqueue(app.note, "x")
    if how == "delete":
        place.client.inspector.delete([first.id], state=State.READY)
    elif how == "purge":
        place.client.inspector.purge(State.READY)
    else:
        place.client.cancel(first)

    assert first.id != unique.enqueue(app.note, "x").id


def test_until_it_starts(place: Place, app: Any) -> None:
    """A job that begins makes room for the next one, which may wait while it runs."""
    unique = place.client.using(unique="k", until="started")
    first = unique.enqueue(app.note, "x")
    assert first.id == unique.enqueue(app.note, "x").id
    process = place.process()
    process.engine.fetcher.step(process.clock.mono())

    second = unique.enqueue(app.note, "y")
    process.run()

    assert second.id != first.id
    assert ["x", "y"] == app.ran


def test_for_a_time(place: Place, app: Any, wait_until: WaitUntil) -> None:
    """As a throttle: one job in so many seconds, even after it is done."""
    unique = place.client.using(unique="k", until=1.5)
    first = unique.enqueue(app.note, "x")
    place.process().run(until=lambda: app.ran)
    assert ["x"] == app.ran
    assert first.id == unique.enqueue(app.note, "x").id
    wait_until(lambda: unique.enqueue(app.note, "x").id != first.id)


def test_the_last_call_wins_after_a_pause(place: Place, app: Any) -> None:
    """As a debounce: of many calls the last runs, with its own arguments, once it is quiet."""
    if not sees_all(place.broker):
        pytest.skip("its broker does not show what is scheduled")
    quiet = place.client.using(unique="k", debounce=30)
    process = place.process()
    for number in range(120):
        quiet.enqueue(app.note, str(number))
    process.run()
    # The others are skipped as soon as a worker sees them, the last waits for its time.
    assert ([], 1) == (app.ran, place.counts()[State.SCHEDULED])
    quick = place.client.using(unique="k", debounce=0.1)
    last = quick.enqueue(app.note, "d")
    process.run(until=lambda: app.ran)
    place.client.inspector.promote([job.id for job in place.client.inspector.find()])
    process.run()
    assert (["d"], {}) == (app.ran, {s: n for s, n in place.counts().items() if n})
    assert last.id != quick.enqueue(app.note, "e").id


@pytest.mark.parametrize("looks", [True, False], ids=["by a look", "by itself"])
def test_the_last_call_wins_though_its_client_could_not_note_it(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    """That a later job is stored is seen on the broker, or by the worker that has it, however late that is."""
    if not sees_all(place.broker):
        pytest.skip("its broker does not show what is scheduled")
    monkeypatch.setattr(holders, "CLAIM", 0.0)
    quiet = place.client.using(unique="k", debounce=1.0)
    quiet.enqueue(app.note, "a")
    process = place.process()
    if not looks:
        monkeypatch.setattr(holders, "sees_all", lambda _: False)
        process.step()  # it is sent away, and comes after the other
    job, envelope = quiet.sealer.seal(app.note, ("b",), {})
    assert {} == claims.Claim(place.broker, place.store).claim([(job, envelope)])
    place.broker.enqueue([envelope])
    process.run(until=lambda: app.ran)
    process.run(until=lambda: not any(place.counts().values()))

    assert ["b"] == app.ran


@pytest.mark.parametrize("words", [("b",), ("a", "b")], ids=["alone", "after another"])
def test_the_last_call_that_was_stored_wins(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """A client that dies between claim and enqueue takes nothing from one that was about to enqueue."""
    if not sees_all(place.broker):
        pytest.skip("its broker does not show what is scheduled")
    monkeypatch.setattr(holders, "CLAIM", 0.3)
    quiet = place.client.using(unique="k", debounce=0.1)
    for word in words[:-1]:
        quiet.enqueue(app.note, word)
    job, envelope = quiet.sealer.seal(app.note, (words[-1],), {})
    dead = quiet.sealer.seal(app.note, ("x",), {})
    assert {} == claims.Claim(place.broker, place.store).claim([(job, envelope)])
    assert {} == claims.Claim(place.broker, place.store).claim([dead])
    place.broker.enqueue([envelope])
    process = place.process()
    process.run(until=lambda: app.ran)
    process.run(until=lambda: not any(place.counts().values()))

    assert ["b"] == app.ran


@pytest.mark.parametrize("retried", [False, True], ids=["at once", "after a retry"])
def test_a_running_job_that_is_sent_again_takes_nothing_from_the_last_call(
    place: Place, app: Any, retried: bool
) -> None:
    """A client that was unsure may repeat its enqueue while the job runs: the call after it runs, too."""
    if not sees_all(place.broker):
        pytest.skip("its broker does not show what is scheduled")
    quick = place.client.using(unique="k", debounce=0.1, retry=goose.Retry(backoff=0))
    process, other = place.process(), place.process()

    def meanwhile() -> None:
        quick.enqueue(app.work, "b")
        place.client.submit([first])
        other.step()  # it sees the later one while the first still runs

    def fails() -> None:
        app.meanwhile.append(meanwhile)
        raise ValueError

    app.meanwhile.append(fails if retried else meanwhile)
    first = quick.enqueue(app.work, "a")
    expected = ["a", "a", "b"] if retried else ["a", "b"]
    process.run(until=lambda: len(app.ran) >= len(expected) or not any(place.counts().values()))

    assert expected == app.ran


def test_a_running_job_that_is_sent_again_frees_nobody_it_came_after(
    place: Place, app: Any
) -> None:
    """Its end, told as often as you like, leaves those superseded that came before it."""
    if not sees_all(place.broker):
        pytest.skip("its broker does not show what is scheduled")
    quick = place.client.using(unique="k", debounce=0.1)
    older = quick.enqueue_in(60, app.work, "a")
    last = quick.enqueue(app.work, "b")
    app.meanwhile.append(lambda: place.client.submit([last]))
    process = place.process()
    process.run(until=lambda: app.ran)
    process.run()
    place.client.inspector.promote([older.id])
    process.run()

    assert ["b"] == app.ran


def test_who_cancels_the_last_call_frees_none_before_it(place: Place, app: Any) -> None:
    """What another call came after is skipped, though that one ends before it starts."""
    if not sees_all(place.broker):
        pytest.skip("its broker does not show what is scheduled")
    quick = place.client.using(unique="k", debounce=0.1)
    quick.enqueue(app.note, "a")
    place.client.cancel(quick.enqueue(app.note, "b"))
    place.process().run()

    assert ([], {}) == (app.ran, {s: n for s, n in place.counts().items() if n})


def test_a_call_that_is_sent_again_keeps_its_place(place: Place, app: Any) -> None:
    """It is the same call: who came after it stays the last, also while a worker skips the first."""
    if not sees_all(place.broker):
        pytest.skip("its broker does not show what is scheduled")
    quick = place.client.using(unique="k", debounce=0.1)
    first, last = quick.enqueue(app.note, "a"), quick.enqueue(app.note, "b")
    process = place.process()
    trait = process.engine.traits.of("unique")
    assert {first.id} == set(trait.admit([first]))
    place.client.submit([first])
    trait.admit([last])
    trait.ended([Ended(first, "skipped")])
    process.run(until=lambda: not any(place.counts().values()))

    assert ["b"] == app.ran


def test_a_job_that_is_sent_again_between_its_end_and_its_ack_takes_nothing(
    place: Place, app: Any, wait_until: WaitUntil
) -> None:
    """The broker still has it then, and stores no other: the call that came after it is to run."""
    if not sees_all(place.broker):
        pytest.skip("its broker does not show what is scheduled")
    quick = place.client.using(unique="k", debounce=0.1)
    first = quick.enqueue(app.note, "a")
    trait = place.process().engine.traits.of("unique")
    wait_until(lambda: not trait.admit([first]))
    trait.ended([Ended(first, "done")])
    last = quick.enqueue(app.note, "b")
    place.client.submit([first])

    assert not isinstance(trait.admit([last]).get(last.id), Finish)


def test_a_started_job_that_is_sent_again_is_no_answer(place: Place, app: Any) -> None:
    """With ``until="started"`` the next call gets a job of its own, whatever the first one's client does."""
    unique = place.client.using(unique="k", until="started")
    answers: list[Job[Any]] = []

    def meanwhile() -> None:
        place.client.submit([first])
        answers.append(unique.enqueue(app.work, "b"))

    app.meanwhile.append(meanwhile)
    first = unique.enqueue(app.work, "a")
    place.process().run(until=lambda: app.ran)

    assert [True] == [each.id != first.id for each in answers]


@pytest.mark.parametrize("another", [False, True], ids=["alone", "before another"])
def test_a_job_that_starts_before_its_client_knows_is_its_own(
    place: Place, app: Any, another: bool
) -> None:
    """With ``until="started"`` the key may be free, or another's, before the enqueue is confirmed."""
    unique = place.client.using(unique="k", until="started")
    claim = claims.Claim(place.broker, place.store)
    job, envelope = unique.sealer.seal(app.note, ("a",), {})
    claim.claim([(job, envelope)])
    place.broker.enqueue([envelope])
    process = place.process()
    process.engine.fetcher.step(process.clock.mono())

    later = unique.enqueue(app.note, "b") if another else None

    assert {} == claim.sent([job])
    process.run()
    assert ["a", *("b" for _ in [later] if later)] == app.ran


def test_a_refused_call_leaves_the_key_as_it_was(app: Any) -> None:
    """Whoever had it before has it again, and who had been superseded still is."""
    refusing = []

    class Refusing(MemoryBroker):
        def enqueue(self, envelopes: Any) -> None:
            if refusing:
                raise BrokerError("no")
            super().enqueue(envelopes)

    client = Client(Refusing(), settings=Settings())
    quiet = client.using(unique="k", debounce=5)
    quiet.enqueue(app.note, "a")
    quiet.enqueue(app.note, "b")
    before = client.store.scan(records.PREFIX)
    refusing.append(True)
    with pytest.raises(EnqueueError):
        quiet.enqueue(app.note, "c")

    assert before == client.store.scan(records.PREFIX)


def test_a_client_that_died_blocks_nobody_for_long(
    new_place: Callable[[], Place], app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim whose job never came is taken over, and the job that comes late all the same is skipped."""
    monkeypatch.setattr(claims, "CLAIM", 0.3)
    place = new_place()
    unique = place.client.using(unique="k")
    job, envelope = unique.sealer.seal(app.note, ("late",), {})
    assert {} == claims.Claim(place.broker, place.store).claim([(job, envelope)])

    began = time.monotonic()
    second = unique.enqueue(app.note, "x")
    assert 0.1 < time.monotonic() - began < 5
    assert second.id != job.id
    place.broker.enqueue([envelope])
    place.process().run()

    assert ["x"] == app.ran


def test_who_stores_too_late_is_told_the_truth(place: Place, app: Any) -> None:
    """A client that is overtaken between claim and confirmation gets the job that overtook it."""
    unique = place.client.using(unique="k")
    slow = claims.Claim(place.broker, place.store)
    job, envelope = unique.sealer.seal(app.note, ("slow",), {})
    slow.claim([(job, envelope)])
    trait = records.trait_of(job)
    value = place.store.get(trait.key)
    later, other = unique.sealer.seal(app.note, ("quick",), {})
    overtaken = records.parse(value).superseded_by(later, trait, place.store.now())
    place.store.put(trait.key, records.dump(overtaken.confirmed()))
    place.broker.enqueue([envelope, other])

    assert later.id == slow.sent([job])[job.id].id
    place.process().run()
    assert ["quick"] == app.ran


def test_what_is_gone_behind_its_back_blocks_nobody(place: Place, app: Any) -> None:
    """A job that was removed by tools that tell nobody is not there, so its key is free."""
    if not sees_all(place.broker):
        pytest.skip("its broker cannot say which jobs are gone")
    unique = place.client.using(unique="k")
    first = unique.enqueue(app.note, "x")
    place.broker.delete([first.id], state=State.READY)  # type: ignore[attr-defined]

    assert first.id != unique.enqueue(app.note, "x").id


def test_a_dead_one_replayed_waits_for_the_other(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that want to run with one key, since one was dead, run one after the other."""
    if not sees_all(place.broker):
        pytest.skip("its broker does not show what is scheduled")
    monkeypatch.setattr(holders, "AGAIN", 0.2)
    unique = place.client.using(unique="k", retry=goose.Retry(max_retries=0))
    first = unique.enqueue(app.bury, "x")
    process = place.process()
    process.run()
    holder = unique.enqueue_in(1.0, app.bury, "x")
    assert holder.id != first.id
    place.client.inspector.replay([first.id])
    process.step()
    process.step()
    assert {State.SCHEDULED: 2, State.READY: 0, State.RUNNING: 0, State.DEAD: 0} == place.counts()
    process.run(until=lambda: place.counts()[State.DEAD] == 2)


def test_a_refused_enqueue_gives_the_key_back(app: Any) -> None:
    """What is certainly not stored holds nothing."""

    class Refusing(MemoryBroker):
        def enqueue(self, envelopes: Any) -> None:
            raise BrokerError("no")

    client = Client(Refusing(), settings=Settings())
    with pytest.raises(EnqueueError):
        client.using(unique="k").enqueue(app.note, "x")

    assert [] == client.store.scan(records.PREFIX)


def test_a_crash_anywhere_leaves_no_key_behind(new_place: Callable[[], Place], app: Any) -> None:
    """Whichever call of a worker is its last: the job runs, twice at most, and its key is free then."""
    firsts: list[str] = []

    def scene(place: Place, _process: Any) -> None:
        app.ran.clear()
        firsts.append(place.client.using(unique="k").enqueue(app.note, "x").id)

    points = 0
    for place, where in crash_points(new_place, scene):
        points += 1
        place.process().run()
        assert 1 <= len(app.ran) <= 2, where
        assert place.client.using(unique="k").enqueue(app.note, "x").id != firsts[-1], where
    # Elsewhere a look right after the enqueue may find nothing, and ends the enumeration.
    assert points >= (10 if place.name == "memory" else 2)


def test_sixteen_at_once_make_one_job(place: Place, app: Any) -> None:
    """Whoever wins, all get the same job; round after round, and each runs once."""
    unique = place.client.using(unique="k")
    process = place.process()
    for round_ in range(5):
        found: list[str] = []
        barrier = threading.Barrier(16)

        def ask(round_: int = round_, barrier: Any = barrier, found: list[str] = found) -> None:
            barrier.wait(10)
            found.append(unique.enqueue(app.note, str(round_)).id)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert (16, 1) == (len(found), len(set(found)))
        process.run()
    assert [str(round_) for round_ in range(5)] == app.ran


def test_many_at_once_are_unique_among_themselves(place: Place, app: Any) -> None:
    """In one call of `enqueue_many` the first of a key is the answer for the others; also in asyncio."""
    unique = place.client.using(unique=lambda word: word)

    a, b, c = unique.enqueue_many(app.other, [("x",), ("y",), ("x",)])
    d = asyncio.run(unique.aio.enqueue(app.other, "y"))

    assert (a.id, b.id) == (c.id, d.id)
    place.process().run()
    assert ["x", "y"] == sorted(app.ran)


def test_a_function_may_say_that_a_call_is_not_unique(app: Any) -> None:
    """None is no key; anything but a text is a mistake that is told."""
    client = Client(MemoryBroker(), settings=Settings())
    assert {} == client.using(unique=lambda word: None).enqueue(app.other, "x").traits
    wrong: Any = lambda word: 5  # noqa: E731
    with pytest.raises(CallError, match=r"unique of .*:other: .*<lambda> .* returned 5"):
        client.using(unique=wrong).enqueue(app.other, "x")
    broken: Any = lambda: "key"  # noqa: E731
    with pytest.raises(CallError, match=r"unique of .*:other: .*<lambda> .* raised TypeError.*'x'"):
        client.using(unique=broken).enqueue(app.other, "x")


@pytest.mark.parametrize(
    "wrong",
    [{"unique": ""}, {"unique": 5}, {"until": "later"}, {"until": 0}, {"debounce": -1}],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    """A wrong option is told where it is given."""
    with pytest.raises(ConfigError):
        Client(MemoryBroker(), settings=Settings()).using(**wrong)


def test_a_job_without_the_option_stays_as_it_was(app: Any) -> None:
    """``unique=False`` takes back what the function's own options say."""
    client = Client(MemoryBroker(), settings=Settings())
    goose.job(unique="k")(app.other)
    assert "unique" in client.enqueue(app.other, "x").traits
    assert {} == client.using(unique=False).enqueue(app.other, "x").traits


def test_records_survive_their_journey(app: Any) -> None:
    """A record comes back equal, with its job; one that is none is an error."""
    job: Job[Any] = Job("1", "a:b", ("x",), {"k": [1]}, enqueued_at=5.0)
    trait = records.Trait("d" * 64, "k", "time", 5.0, 2.0)
    left = records.record_of(job, trait, 9.0).left(trait, 9.5, begun="0")
    record = left.superseded_by(job.evolve(id="2"), trait, 10.0)

    assert record == records.parse(records.dump(record))
    assert job.evolve(id="2") == records.parse(records.dump(record)).job()
    assert trait == records.trait_of(job.evolve(traits={"unique": trait.to_wire()}))
    for wrong in (b"", b"[]", b"{}"):
        with pytest.raises(ValueError, match="no record"):
            records.parse(wrong)
    with pytest.raises(ValueError, match="makes no sense"):
        records.trait_of(job.evolve(traits={"unique": 5}))


def test_answers_are_counted(app: Any) -> None:
    """A client's metrics say how many enqueues found a job that was there."""
    counted: list[tuple[str, int]] = []

    class Backend:
        never_blocks = True

        def increment(self, name: str, value: int, tags: Any) -> None:
            counted.append((name, value))

        def gauge(self, name: str, value: float, tags: Any) -> None: ...
        def timing(self, name: str, seconds: float, tags: Any) -> None: ...

    client = Client(MemoryBroker(), metrics=[Backend()], settings=Settings())
    client.using(unique="k").enqueue_many(app.other, [("x",), ("y",), ("z",)])

    assert [("jobs.existing", 2), ("jobs.enqueued", 1)] == counted
