"""Jobs wait for whoever holds a unique key when they are enqueued, and for nobody where it is free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import goose
from goose.brokers import sees_all
from goose.brokers.base import State
from goose.errors import (
    BrokerError,
    BrokerUnavailable,
    CallError,
    ConfigError,
    EnqueueError,
    FlowError,
    FunctionError,
    JobFailed,
    Unsupported,
)
from goose.features.flows import book, holding
from goose.features.results.records import key_of
from goose.features.uniques import claims, records
from tests.features.places import Place, Process, crash_points

APP = """
import goose
runs = []

def report(word: str = "report", *, full: bool = False) -> str:
    runs.append(word)
    return word

def other() -> None:
    runs.append("other")

def broken() -> None:
    raise ValueError("no")

def after(word: str = "after") -> str:
    runs.append(word)
    return word

@goose.job(depends_on=lambda word: goose.after(report, unique=f"key-{word}"))
def by_argument(word: str) -> None:
    runs.append(f"after {word}")

@goose.job(unique=lambda word: f"own-{word}" if word else None)
def own_key(word: str) -> None:
    runs.append(word)

@goose.job(unique="own")
def own_text(word: str) -> None:
    runs.append(word)
"""


@pytest.fixture(autouse=True)
def app(importable: Path) -> Any:
    """The functions of the jobs."""
    (importable / "feature_app.py").write_text(APP)
    import feature_app  # type: ignore[import-not-found]

    feature_app.runs.clear()
    return feature_app


def held(place: Place, key: str = "k", **more: Any) -> goose.Client:
    """Return a client whose jobs hold that key and keep their result."""
    return place.client.using(unique=key, result=True, **more)


def waiter(place: Place, fn: Any, key: str = "k", **more: Any) -> goose.Client:
    """Return a client whose jobs depend on who holds that key of *fn*."""
    return place.client.using(depends_on=goose.after(fn, unique=key, **more))


# --- who is waited for -----------------------------------------------------------------------


def test_it_waits_for_the_holder_of_a_key(place: Place, app: Any) -> None:
    """A job starts only once the job that held the key has ended, and is its dependent as by id."""
    first = held(place, queue="later").enqueue(app.report)
    second = waiter(place, app.report).enqueue(app.after)
    assert "waiting" == second.status()
    place.process().run()
    assert "waiting" == second.status()
    place.process(queues=["later", "default"]).run()

    assert ["report", "after"] == app.runs
    assert ("report", "after") == (first.result(5), second.result(5))


def test_a_key_belongs_to_a_function(place: Place, app: Any) -> None:
    """The same text of another function is another key, and that is free."""
    held(place).enqueue(app.report)

    assert "waiting" != waiter(place, app.other).enqueue(app.after).status()
    assert "waiting" != waiter(place, app.report, "other").enqueue(app.after).status()


def test_a_free_key_is_nothing_to_wait_for(place: Place, app: Any) -> None:
    """Whether nobody ever held it, or who did is done or dead: the job runs at once."""
    process = place.process()
    waiter(place, app.report).enqueue(app.after, "never")
    process.run()
    held(place).enqueue(app.report)
    held(place, retry=0).enqueue(app.broken)
    process.run()
    waiter(place, app.report).enqueue(app.after, "done")
    waiter(place, app.broken).enqueue(app.after, "dead")
    process.run()

    assert ["never", "report", "done", "dead"] == app.runs


def test_all_arguments_can_be_the_key_that_is_waited_for(place: Place, app: Any) -> None:
    """A call names the holder of ``unique=True``, however its arguments are written."""
    place.client.using(unique=True, result=True).enqueue(app.report, "a", full=True)

    def status(call: Any) -> str:
        after = goose.after(call, unique=True)
        return place.client.using(depends_on=after).enqueue(app.after).status()

    assert "waiting" == status(goose.call(app.report, full=True, word="a"))
    assert "waiting" != status(goose.call(app.report, "a"))
    place.process().run()

    assert ["a", "after", "after"] == sorted(app.runs)


@pytest.mark.parametrize("name", ["own_key", "own_text"])
def test_a_call_is_known_by_the_key_of_its_function(place: Place, app: Any, name: str) -> None:
    """Where ``@goose.job(unique=…)`` says what the key of a call is, True stands for that key."""
    fn = getattr(app, name)
    place.client.using(result=True).enqueue(fn, "a")
    after = goose.after(goose.call(fn, "a"), unique=True)
    second = place.client.using(depends_on=after).enqueue(app.after)
    assert "waiting" == second.status()
    place.process().run()

    assert ["a", "after"] == app.runs


def test_a_call_that_has_no_key_is_refused(place: Place, app: Any) -> None:
    """A call that its function wants to be like any other holds no key, so nobody can wait for that."""
    after = goose.after(goose.call(app.own_key, ""), unique=True)
    with pytest.raises(CallError, match="a call of feature_app:own_key that is not unique"):
        place.client.using(depends_on=after).enqueue(app.after)


def test_a_function_of_the_arguments_names_keys(place: Place, app: Any) -> None:
    """``@goose.job(depends_on=…)`` may answer with a key made of the call's arguments."""
    held(place, "key-a").enqueue(app.report, "a")
    waiting = place.client.enqueue(app.by_argument, "a")
    free = place.client.enqueue(app.by_argument, "b")
    assert ("waiting", True) == (waiting.status(), free.status() != "waiting")
    place.process().run()

    assert app.runs.index("a") < app.runs.index("after a")


def test_keys_stand_beside_jobs_and_ids(place: Place, app: Any) -> None:
    """All that is named has to end first; a key that is named twice is one."""
    with place.client.flow() as flow:
        first = flow.add(app.report, "first")
    holder = held(place, queue="later").enqueue(app.report, "second")
    twice = [goose.after(app.report, unique="k"), goose.after(app.report, unique="k")]
    last = place.client.using(depends_on=[first, *twice]).enqueue(app.after)
    place.process().run()
    assert "waiting" == last.status()
    place.process(queues=["later", "default"]).run()

    assert ["first", "second", "after"] == app.runs
    assert "second" == holder.result(5)


def test_asyncio_code_waits_for_keys(place: Place, app: Any) -> None:
    """The same from `goose.aio`, which asks for the holder without blocking its loop."""

    async def main() -> None:
        aio = place.client.aio
        await aio.using(unique="k", result=True).enqueue(app.report)
        second = await aio.using(depends_on=goose.after(app.report, unique="k")).enqueue(app.after)
        assert "waiting" == second.status()

    asyncio.run(main())
    place.process().run()

    assert ["report", "after"] == app.runs


def test_jobs_of_one_flow_name_each_other_by_key(place: Place, app: Any) -> None:
    """A key that a job of the flow claims, in whatever order they were added, is held by that job."""
    with place.client.flow() as flow:
        last = flow.using(depends_on=goose.after(app.report, unique="k")).add(app.after)
        flow.using(unique="k").add(app.report)
    assert "waiting" == last.status()
    place.process().run()

    assert ["report", "after"] == app.runs


def test_a_member_that_is_there_already_stands_for_the_one_of_the_flow(
    place: Place, app: Any
) -> None:
    """Of a flow that is enqueued twice the unique job runs once; both rests wait for it and take its result."""
    rests = []
    for word in ("a", "b"):
        with place.client.using(queue="later").flow() as flow:
            first = flow.using(unique="k").add(app.report, "once")
            rests += [flow.add(app.after, first.output)]
            rests += [flow.using(depends_on=[first]).add(app.after, word)]
    assert ["waiting"] * 4 == [job.status() for job in rests]
    place.process(queues=["later"]).run()

    assert "once" == app.runs[0]
    assert ["a", "b", "once", "once"] == sorted(app.runs[1:])
    assert ["once", "a", "once", "b"] == [job.result(5) for job in rests]


def test_a_member_that_is_there_already_has_to_keep_its_result(place: Place, app: Any) -> None:
    """One that was enqueued for itself and keeps none is refused as what others of a flow wait for."""
    place.client.using(unique="k").enqueue(app.report)
    with pytest.raises(FlowError, match="keeps no result"), place.client.flow() as flow:
        first = flow.using(unique="k").add(app.report)
        flow.add(app.after, first.output)
    place.process().run()

    assert ["report"] == app.runs


def test_a_holder_that_dies_meanwhile_fails_the_flow_that_named_it(place: Place, app: Any) -> None:
    """A flow is sent again after a refusal: who stood for its unique job is dead by now, and counts as that."""
    held(place, queue="later", retry=0).enqueue(app.broken)
    with failing(place, BrokerError("full")) as refused, place.client.flow() as flow:
        first = flow.using(unique="k").add(app.broken)
        other = flow.add(app.after, "refused at first")
        last = flow.using(depends_on=[other]).add(app.after, first.output)
    place.process(queues=["later"]).run()
    place.client.submit(refused.value.jobs)
    place.process().run()

    assert "cancelled" == last.status()
    assert ["refused at first"] == app.runs


def test_who_stands_for_two_is_judged_by_the_stricter_policy(place: Place, app: Any) -> None:
    """Two members with one key are one job; who names both with other policies is cancelled with it."""
    held(place, queue="later", retry=0).enqueue(app.broken)
    with place.client.using(unique="k").flow() as flow:
        one, two = flow.add(app.broken), flow.add(app.broken)
        edges = [
            goose.after(one, on_failure="run"),
            goose.after(two),
            goose.after(one, on_failure="run"),
        ]
        last = flow.using(unique=False, depends_on=edges).add(app.after)
    place.process(queues=["later", "default"]).run()

    assert "cancelled" == last.status()


def test_a_holder_that_has_ended_without_a_result_is_refused(place: Place, app: Any) -> None:
    """A throttled key may be held by a job that is done; a flow that takes what it returned is told."""
    place.client.using(unique="k", until=60).enqueue(app.report)
    place.process().run()
    with pytest.raises((FlowError, Unsupported)), place.client.flow() as flow:
        first = flow.using(unique="k", until=60).add(app.report)
        flow.add(app.after, first.output)
    place.process().run()

    assert ["report"] == app.runs


def test_a_chain_waits_for_a_key(place: Place, app: Any) -> None:
    """Bound to a chain it goes for its links, which still run one after the other."""
    held(place).enqueue(app.report)
    chain = waiter(place, app.report)
    last = chain.chain(goose.call(app.after, "one"), goose.call(app.after, "two"))
    place.process().run()

    assert ["report", "one", "two"] == app.runs
    assert "two" == last.result(5)


def test_a_holder_may_wait_itself(place: Place, app: Any) -> None:
    """Who holds the key is in the store where it waits for others, and is waited for there."""
    with place.client.flow() as flow:
        first = flow.using(queue="later").add(app.report, "first")
    second = held(place, depends_on=first).enqueue(app.report, "second")
    third = waiter(place, app.report).enqueue(app.after)
    assert ["waiting"] * 2 == [second.status(), third.status()]
    place.process(queues=["later", "default"]).run()

    assert ["first", "second", "after"] == app.runs


@pytest.mark.parametrize("policy", ["cancel", "run"])
def test_the_end_of_a_holder_is_judged_by_the_policy(place: Place, app: Any, policy: Any) -> None:
    """A holder that dies takes with it what depends on its key, unless the edge says otherwise."""
    held(place, retry=0).enqueue(app.broken)
    second = waiter(place, app.broken, on_failure=policy).enqueue(app.after)
    place.process().run()

    assert {"cancel": "cancelled", "run": "done"}[policy] == second.status()
    if policy == "cancel":
        with pytest.raises(JobFailed, match=r"a job it depends on, .*, is dead"):
            second.result(5)


def test_a_throttled_key_is_held_by_who_has_ended(place: Place, app: Any) -> None:
    """Its holder has ended: that counts, as long as it is on record; after that there is nothing."""
    if not sees_all(place.broker):
        pytest.skip("its broker cannot say which jobs are gone")
    first = held(place, until=600, retry=0).enqueue(app.broken)
    process = place.process()
    process.run()
    assert "cancelled" == waiter(place, app.broken).enqueue(app.after).status()
    place.store.delete(key_of(first.id))
    waiter(place, app.broken).enqueue(app.after, "forgotten")
    process.run()

    assert ["forgotten"] == app.runs


# --- what is refused -------------------------------------------------------------------------


def test_a_holder_that_keeps_no_result_is_refused(place: Place, app: Any) -> None:
    """Nobody would tell when it ends; the error names the key, the job and the fix."""
    first = place.client.using(unique="k").enqueue(app.report)
    text = (
        f"job {first.id} holds the key 'k' of feature_app:report and keeps no result.*result=True"
    )
    with pytest.raises(FlowError, match=text):
        waiter(place, app.report).enqueue(app.after)

    assert [] == [*place.store.scan("flow:"), *place.store.scan("result:")]


def test_who_is_refused_leaves_others_waiting(place: Place, app: Any) -> None:
    """What is forgotten of a refused job is its own: who depends on the same holder still runs."""
    held(place).enqueue(app.report)
    second = waiter(place, app.report).enqueue(app.after)
    place.client.using(unique="plain").enqueue(app.report, "plain")
    both = [goose.after(app.report, unique=key) for key in ("k", "plain")]
    with pytest.raises(FlowError, match="keeps no result"):
        place.client.using(depends_on=both).enqueue(app.after)
    place.process().run()

    assert "after" == second.result(5)


def test_who_joins_while_another_is_refused_is_heard_of(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that joins just when the only other dependent of its holder is forgotten still runs."""
    first = held(place).enqueue(app.report)
    place.client.using(unique="plain").enqueue(app.report, "plain")
    both = [goose.after(app.report, unique=key) for key in ("k", "plain")]
    jobs: list[Any] = []
    scan = type(place.store).scan

    def scanned(store: Any, prefix: str, **more: Any) -> Any:
        found = scan(store, prefix, **more)
        if prefix == book.child_prefix(first.id):
            monkeypatch.undo()
            jobs.append(waiter(place, app.report).enqueue(app.after))
        return found

    monkeypatch.setattr(type(place.store), "scan", scanned)
    with pytest.raises(FlowError, match="keeps no result"):
        place.client.using(depends_on=both).enqueue(app.after)
    place.process().run()

    assert ["after"] == [job.result(5) for job in jobs]


def test_nobody_waits_for_a_key_of_ones_own(place: Place, app: Any) -> None:
    """A job that would wait for itself is refused, and its key is free after that."""
    own = held(place, depends_on=goose.after(app.report, unique="k"))
    with pytest.raises(FlowError, match="in a circle"):
        own.enqueue(app.report)

    assert [] == [*place.store.scan("flow:"), *place.store.scan(records.PREFIX)]


def test_a_circle_of_keys_is_refused(place: Place, app: Any) -> None:
    """Two jobs of one flow that wait for each other's key would wait for ever."""
    with pytest.raises(FlowError, match="in a circle"), place.client.flow() as flow:
        for mine, its in ((app.report, app.other), (app.other, app.report)):
            flow.using(unique="k", depends_on=goose.after(its, unique="k")).add(mine)

    assert [] == [*place.store.scan("flow:"), *place.store.scan(records.PREFIX)]


def test_what_names_no_key_is_refused(app: Any) -> None:
    """A text stays an id, a key needs its function, and all arguments need a call."""
    assert goose.after("k") == goose.After("k")
    after: Any = goose.after
    for what, key in (("k", "k"), (app.report, ""), (app.report, True), (app.report, 5)):
        with pytest.raises(ConfigError, match="give a function and the text of a key"):
            after(what, unique=key)
    with pytest.raises(ConfigError, match="give a function and the text of a key"):
        after(goose.call(app.report), unique="k")
    with pytest.raises(ConfigError, match="as unique="):
        after(app.report)
    with pytest.raises(ConfigError, match="on_failure"):
        after(app.report, unique="k", on_failure="explode")


def test_a_function_that_no_job_can_have_is_refused(place: Place, app: Any) -> None:
    """Its key could never be held, so waiting for it is a mistake."""
    with pytest.raises(FunctionError, match="lambda"):
        waiter(place, lambda: None).enqueue(app.after)


def test_a_key_proves_that_its_holder_is_there(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that cannot show its jobs is enough for keys that every end gives back, not for throttles."""
    for module in (holding, claims):
        monkeypatch.setattr(module, "sees_all", lambda _: False)
    held(place).enqueue(app.report)
    second = waiter(place, app.report).enqueue(app.after)
    place.client.using(unique="plain").enqueue(app.report)
    with pytest.raises(FlowError, match="'plain' of feature_app:report and keeps no result"):
        waiter(place, app.report, "plain").enqueue(app.after)
    held(place, "throttle", until=600).enqueue(app.report)
    with pytest.raises(Unsupported, match="the key 'throttle' of feature_app:report: wait for"):
        waiter(place, app.report, "throttle").enqueue(app.after)
    place.process().run()

    assert ("after", 4) == (second.result(5), len(app.runs))


def test_a_holder_that_was_removed_unseen_can_be_sent_again(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that cannot show its jobs hides that one is gone; the key still knows that job."""
    if not sees_all(place.broker):
        pytest.skip("nothing can be removed by its id there")
    for module in (holding, claims):
        monkeypatch.setattr(module, "sees_all", lambda _: False)
    first = held(place).enqueue(app.report)
    place.broker.delete([first.id], state=State.READY)  # type: ignore[attr-defined]
    second = waiter(place, app.report).enqueue(app.after)
    place.process().run()
    assert "waiting" == second.status()
    place.client.submit([held(place).enqueue(app.report)])
    place.process().run()

    assert ["report", "after"] == app.runs


@pytest.mark.parametrize("why", ["it is large", "a later call was lost"])
def test_a_holder_that_its_key_does_not_show_is_refused(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Nobody can say what a holder is that neither its broker nor its key shows, and the error says so."""
    for module in (holding, claims):
        monkeypatch.setattr(module, "sees_all", lambda _: False)
    if why == "it is large":
        monkeypatch.setattr(records, "MAX_KEPT", 10)
        held(place).enqueue(app.report)
    else:
        quiet = held(place, debounce=600)
        quiet.enqueue(app.report)
        monkeypatch.setattr(claims, "CLAIM", 0.0)
        later = quiet.sealer.seal(app.report, (), {})
        claims.Claim(place.broker, place.store).claim([later])
    with pytest.raises(Unsupported, match="the job that holds it is not known by its body"):
        waiter(place, app.report).enqueue(app.after)

    assert [] == [*place.store.scan("flow:"), *place.store.scan("result:")]


# --- what happens in between -----------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before it joins", "before it is looked for"])
@pytest.mark.parametrize("until", ["done", "started"])
def test_a_holder_that_ends_meanwhile_is_heard_of(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch, moment: str, until: Any
) -> None:
    """Its end falls between the answer and the joining, or right after that: nobody waits for ever."""
    first = held(place, until=until).enqueue(app.report)
    process = place.process()

    def ended_first(do: Any) -> Any:
        def call(*args: Any) -> Any:
            process.run(until=lambda: first.status() == "done")
            return do(*args)

        return call

    owner: Any = book.Flows if moment == "before it joins" else holding.Holders
    name = "join" if moment == "before it joins" else "will_be_heard_of"
    monkeypatch.setattr(owner, name, ended_first(getattr(owner, name)))
    second = waiter(place, app.report).enqueue(app.after)
    process.run()

    assert ["report", "after"] == app.runs
    assert "after" == second.result(5)


def test_a_holder_that_dies_meanwhile_is_heard_of(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its death falls between the joining and the look for it: the record is read, and judged."""
    first = held(place, retry=0).enqueue(app.broken)
    process = place.process()
    look = holding.Holders.will_be_heard_of

    def looked(*args: Any) -> bool:
        process.run(until=lambda: first.status() == "dead")
        return look(*args)

    monkeypatch.setattr(holding.Holders, "will_be_heard_of", looked)
    second = waiter(place, app.broken).enqueue(app.after)

    assert "cancelled" == second.status()
    process.run()
    assert [] == app.runs


def test_a_holder_of_which_nothing_is_left_has_ended(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends meanwhile, and what is kept of it is gone as soon: its key is free."""
    first = held(place).enqueue(app.report)
    process = place.process()
    join = book.Flows.join

    def joined(flows: Any, child: str, parent: str) -> Any:
        process.run(until=lambda: "report" in app.runs and not place.store.get(records_key))
        place.store.delete(key_of(first.id))
        return join(flows, child, parent)

    [(records_key, _)] = place.store.scan(records.PREFIX)
    monkeypatch.setattr(book.Flows, "join", joined)
    waiter(place, app.report).enqueue(app.after)
    process.run()

    assert ["report", "after"] == app.runs


def test_a_holder_that_is_gone_behind_its_back_is_not_waited_for(place: Place, app: Any) -> None:
    """A job that was removed by tools that tell nobody holds nothing."""
    if not sees_all(place.broker):
        pytest.skip("its broker cannot say which jobs are gone")
    first = held(place).enqueue(app.report)
    place.broker.delete([first.id], state=State.READY)  # type: ignore[attr-defined]
    waiter(place, app.report).enqueue(app.after)
    place.process().run()

    assert ["after"] == app.runs


def test_a_holder_that_is_being_stored_is_waited_for(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between claim and confirmation the answer is not known, so it comes after that."""
    slow = claims.Claim(place.broker, place.store)
    job, envelope = held(place).sealer.seal(app.report, (), {})
    slow.claim([(job, envelope)])
    verdicts: list[str] = []
    verdict = claims.Claim._verdict

    def judged(*args: Any) -> str:
        verdicts.append(verdict(*args))
        if len(verdicts) == 1:
            place.broker.enqueue([envelope])
            slow.sent([job])
        return verdicts[-1]

    monkeypatch.setattr(claims.Claim, "_verdict", judged)
    second = waiter(place, app.report).enqueue(app.after)
    assert (["wait", "held"], "waiting") == (verdicts[:2], second.status())
    place.process().run()

    assert ["report", "after"] == app.runs


def test_a_holder_that_was_never_stored_is_given_up(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client died between claim and enqueue: after its claim's time the key counts as free."""
    monkeypatch.setattr(claims, "CLAIM", 0.3)
    job, envelope = held(place).sealer.seal(app.report, (), {})
    claims.Claim(place.broker, place.store).claim([(job, envelope)])
    waiter(place, app.report).enqueue(app.after)
    place.process().run()

    assert ["after"] == app.runs


def test_a_later_call_that_was_never_stored_leaves_the_key(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last call wins and its client died, the one before it is waited for."""
    if not sees_all(place.broker):
        pytest.skip("its broker does not show what is scheduled")
    monkeypatch.setattr(claims, "CLAIM", 0.3)
    quiet = held(place, debounce=600)
    first = quiet.enqueue(app.report, "first")
    claims.Claim(place.broker, place.store).claim([quiet.sealer.seal(app.report, ("lost",), {})])
    second = waiter(place, app.report).enqueue(app.after)

    assert "waiting" == second.status()
    place.client.cancel(first)
    assert "cancelled" == second.status()


def test_a_key_is_asked_for_once(place: Place, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All jobs of one enqueue get the same answer, whatever becomes of the key in the meantime."""
    first = held(place, until="started").enqueue(app.report)
    process = place.process()
    answers: list[Any] = []
    holder = claims.Claim.holder

    def asked(*args: Any) -> Any:
        answers.append(holder(*args))
        process.run(until=lambda: first.status() == "done")
        return answers[-1]

    monkeypatch.setattr(claims.Claim, "holder", asked)
    waiter(place, app.report).enqueue_many(app.after, [()] * 5)
    process.run()

    assert [first.id] == [each.id for each in answers]
    assert ["report", *["after"] * 5] == app.runs


@contextmanager
def failing(place: Place, error: BrokerError) -> Iterator[pytest.ExceptionInfo[EnqueueError]]:
    """Have every sending of ready jobs raise *error*, and see that what is within fails of it."""
    line = place.client._root.link(place.client._to.broker).ready

    def fail(_envelopes: Any) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch, pytest.raises(EnqueueError) as caught:
        patch.setattr(line, "_send", fail)
        yield caught


def test_a_refused_holder_takes_those_with_it_that_name_its_key(place: Place, app: Any) -> None:
    """Jobs of one flow that the broker refuses are forgotten together, and can be sent again."""
    client = place.client
    with failing(place, BrokerError("full")) as caught, client.flow() as flow:
        flow.using(unique="k").add(app.report)
        flow.using(depends_on=goose.after(app.report, unique="k")).add(app.after)
    assert dict.fromkeys(flow.jobs, "not_stored") == caught.value.jobs
    assert [] == [*place.store.scan("flow:"), *place.store.scan(records.PREFIX)]
    client.submit(caught.value.jobs)
    place.process().run()

    assert ["report", "after"] == app.runs


def test_a_holder_that_is_sent_again_is_waited_for(place: Place, app: Any) -> None:
    """Nobody knows whether it is stored, but it is about to be: who is sent with it runs after it."""
    client = place.client
    with failing(place, BrokerUnavailable("gone")) as caught, client.flow() as flow:
        flow.using(unique="k").add(app.report)
    late = client.using(depends_on=goose.after(app.report, unique="k")).flow().add(app.after)
    client.submit([*caught.value.jobs, late])
    assert "waiting" == late.status()
    place.process().run()

    assert ["report", "after"] == app.runs


def unsent(place: Place, client: goose.Client, fn: Any) -> Any:
    """Return a job of which nobody knows whether it is stored."""
    with failing(place, BrokerUnavailable("gone")) as caught:
        client.enqueue(fn)
    [job] = caught.value.jobs
    return job


def test_a_holder_need_not_be_part_of_a_flow_to_be_sent_along(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unique job like any other is waited for, at once, by a job of the same enqueue."""
    monkeypatch.setattr(claims, "CLAIM", 0.3)
    holder = unsent(place, held(place), app.report)
    late = waiter(place, app.report).flow().add(app.after)
    waits: list[float] = []
    token = claims.sleeping.set(waits.append)
    try:
        place.client.submit([holder, late])
    finally:
        claims.sleeping.reset(token)
    assert ([], "waiting") == (waits, late.status())
    place.process().run()

    assert ["report", "after"] == app.runs


def test_a_refused_holder_of_no_flow_takes_those_with_it_that_name_its_key(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waited for a unique job that the broker refuses is not left waiting for ever."""
    monkeypatch.setattr(claims, "CLAIM", 0.3)
    client = place.client
    holder = unsent(place, held(place), app.report)
    late = waiter(place, app.report).flow().add(app.after)
    with failing(place, BrokerError("full")) as caught:
        client.submit([holder, late])
    assert dict.fromkeys([holder, late], "not_stored") == caught.value.jobs
    kinds = ("flow:", "result:", records.PREFIX)
    assert [] == [entry for kind in kinds for entry in place.store.scan(kind)]
    client.submit(caught.value.jobs)
    place.process().run()

    assert ["report", "after"] == app.runs


def test_a_holder_that_is_sent_along_has_to_keep_its_result(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like any other holder; and nothing is left of either job."""
    monkeypatch.setattr(claims, "CLAIM", 0.3)
    holder = unsent(place, place.client.using(unique="k"), app.report)
    late = waiter(place, app.report).flow().add(app.after)
    with pytest.raises(FlowError, match="the key 'k' of feature_app:report and keeps no result"):
        place.client.submit([holder, late])

    kinds = ("flow:", "result:", records.PREFIX)
    assert [] == [entry for kind in kinds for entry in place.store.scan(kind)]


def test_every_crash_of_a_worker_sets_the_dependents_free(
    new_place: Callable[[], Place], app: Any
) -> None:
    """Wherever the holder's worker dies, what waits for its key runs after it, and once it ended."""

    def scene(place: Place, _: Process) -> None:
        app.runs.clear()
        held(place).enqueue(app.report)
        jobs[:] = [waiter(place, app.report).enqueue(app.after)]

    jobs: list[Any] = []
    points = 0
    for place, crash in crash_points(new_place, scene):
        points += 1
        place.process().run()
        assert "done" == jobs[0].status(), crash
        assert app.runs.index("report") < app.runs.index("after"), crash
        assert max(app.runs.count(name) for name in app.runs) <= 2, (crash, app.runs)
    assert points >= (10 if place.name == "memory" else 2)


def test_whoever_is_faster_nobody_waits_for_ever(place: Place, app: Any) -> None:
    """Holders end while others ask for their key: all of these run."""
    jobs: list[Any] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            jobs.extend(waiter(place, app.report).enqueue(app.after) for _ in range(15))
        except BaseException as error:
            errors.append(error)
            raise

    with place.worker(["feature_app"], concurrency=4):
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            held(place).enqueue(app.report)
        for thread in threads:
            thread.join(30)
        assert ["after"] * 45 == [job.result(30) for job in jobs]
    assert [] == errors


def test_clients_that_name_each_others_key_both_get_on(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that wait for each other's claim come to an end, and so do their jobs: no circle is made."""
    monkeypatch.setattr(claims, "CLAIM", 0.5)
    both = threading.Barrier(2)
    claim = claims.Claim.claim

    def claimed(self: Any, sealed: Any) -> Any:
        found = claim(self, sealed)
        both.wait(20)  # each has its own key before either asks for the other's
        return found

    monkeypatch.setattr(claims.Claim, "claim", claimed)
    jobs: list[Any] = []

    def enqueue(mine: Any, its: Any) -> None:
        client = held(place, depends_on=goose.after(its, unique="k"))
        jobs.append(client.enqueue(mine))

    threads = [
        threading.Thread(target=enqueue, args=pair)
        for pair in ((app.report, app.other), (app.other, app.report))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    place.process().run()

    assert ["done", "done"] == [job.status() for job in jobs]
