"""Jobs wait for those they depend on, take what those return, and never run before them."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import goose
import goose.testing
from goose.brokers.base import State
from goose.brokers.memory import MemoryBroker
from goose.errors import (
    ArgumentError,
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    EnqueueError,
    FlowError,
    JobFailed,
    PayloadTooLarge,
    Unsupported,
)
from goose.features.flows.book import Flows
from goose.features.flows.records import body_key
from goose.features.flows.records import key_of as node_key
from goose.features.results.records import key_of
from goose.stores.base import Delete
from goose.testing.faults import Crash
from tests.features.places import Place, Process, Tripwire, crash_points

APP = """
import goose
runs = []

def one(word: str) -> str:
    runs.append(word)
    return word

def join(words: list[str], *, end: str = "") -> str:
    runs.append("join")
    return "".join(words) + end

def shout(word: str) -> str:
    runs.append(f"shout {word}")
    return word.upper()

def number(value: int) -> int:
    return value + 1

def broken() -> str:
    runs.append("broken")
    raise ValueError("no")

def skipped() -> str:
    raise goose.Skip()

def alone() -> None:
    runs.append("alone")

def told(word: str | None) -> str:
    runs.append(f"told {word}")
    return str(word)

@goose.job(depends_on=lambda word, parent: parent)
def by_argument(word: str, parent: str) -> str:
    runs.append(word)
    return word

def node(name: int, parents: list[int]) -> int:
    runs.append(name)
    return name + sum(parents)
"""
ONCE = goose.Retry(max_retries=0)


@pytest.fixture
def app(importable: Path) -> Any:
    """The functions of the jobs."""
    (importable / "feature_app.py").write_text(APP)
    import feature_app  # type: ignore[import-not-found]

    feature_app.runs.clear()
    return feature_app


def enqueued(place: Place, fn: Any, *args: Any) -> Any:
    """Enqueue a job that others can wait for; where only jobs of flows can, as one."""
    if not place.url.startswith("amqp"):
        return place.client.using(result=True).enqueue(fn, *args)
    with place.client.flow() as flow:
        return flow.add(fn, *args)


# --- what waits for what ---------------------------------------------------------------------


def test_a_job_takes_what_another_returned(place: Place, app: Any) -> None:
    """An output as an argument makes a job wait for the other and get its result."""
    client = place.client
    first = enqueued(place, app.one, "a")
    second = client.enqueue(app.join, [first.output, "-", first.output], end="!")
    assert "waiting" == second.status()
    place.process().run()

    assert "a-a!" == second.result(5)
    assert ["a", "join"] == app.runs


def test_a_chain_hands_results_on(place: Place, app: Any) -> None:
    """Functions take what the one before returned; a call is called as it is."""
    last = place.client.chain(
        goose.call(app.one, "a"), app.shout, goose.call(app.alone), goose.call(app.one, "b")
    )
    place.process().run()

    assert ["a", "shout a", "alone", "b"] == app.runs
    assert "b" == last.result(5)


def test_many_run_beside_each_other_and_one_gathers(place: Place, app: Any) -> None:
    """Fan-out and fan-in: the last job runs once, when all before it are done."""
    with place.client.flow() as flow:
        parts = [flow.add(app.one, word) for word in "abc"]
        whole = flow.using(queue="other").add(app.join, [part.output for part in parts])
    assert (4, "waiting") == (len(flow.jobs), whole.status())
    place.process(queues=["default", "other"]).run()

    assert "abc" == whole.result(5)
    assert "join" == app.runs[-1]


def test_asyncio_code_has_flows(place: Place, app: Any) -> None:
    """Flows and chains are awaited, and so are their results."""

    async def main() -> None:
        aio = place.client.aio
        async with aio.flow() as flow:
            first = flow.add(app.one, "a")
            second = flow.add(app.shout, first.output)
        third = await aio.chain(goose.call(app.one, "b"), app.shout)
        with place.worker(["feature_app"]):
            assert ["A", "B"] == [await second.aresult(30), await third.aresult(30)]

    asyncio.run(main())


def test_a_flow_runs_inline(app: Any) -> None:
    """In a test that runs jobs at once a flow is run in order, each job with what others returned."""
    with goose.testing.inline(allow=["feature_app"]) as seen:
        goose.chain(goose.call(app.one, "a"), app.shout)
        with goose.flow() as flow:
            flow.add(app.join, [flow.add(app.one, word).output for word in "bc"])

    assert ["a", "A", "b", "c", "bc"] == [run.result for run in seen.runs]


def test_a_worker_with_threads_runs_a_flow(place: Place, app: Any) -> None:
    """The real thing: a worker, threads, and a flow of three."""
    with place.client.flow() as flow:
        parts = [flow.add(app.one, word) for word in "ab"]
        whole = flow.add(app.join, [part.output for part in parts])
    with place.worker(["feature_app"], concurrency=3):
        assert "ab" == whole.result(30)


def test_it_waits_for_jobs_it_takes_nothing_of(place: Place, app: Any) -> None:
    """`depends_on` takes jobs, ids and functions of the arguments."""
    client = place.client
    first = enqueued(place, app.one, "first")
    second = client.using(depends_on=first).enqueue(app.one, "second")
    third = client.using(depends_on=[second.id]).enqueue(app.alone)
    fourth = client.enqueue(app.by_argument, "fourth", third.id)
    assert ["waiting"] * 3 == [job.status() for job in (second, third, fourth)]
    place.process().run()

    assert ["first", "second", "alone", "fourth"] == app.runs
    assert "fourth" == fourth.result(5)


def test_after_all_is_done_a_job_runs_at_once(place: Place, app: Any) -> None:
    """A job whose parents have ended already waits for nothing, and still gets their results."""
    first = place.client.using(result=True).enqueue(app.one, "a")
    process = place.process()
    process.run()
    second = place.client.enqueue(app.shout, first.output)
    process.run()

    assert "A" == second.result(5)


def test_a_delay_counts_from_when_it_is_free(place: Place, app: Any) -> None:
    """A delayed job that waits for another is scheduled once that is done."""
    with place.client.flow() as flow:
        first = flow.add(app.one, "a")
    second = place.client.using(depends_on=first).enqueue_in(0.2, app.one, "b")
    process = place.process()
    process.run(until=lambda: app.runs)
    assert ["a"] == app.runs
    process.run(until=lambda: len(app.runs) == 2)

    assert "b" == second.result(5)


# --- what happens when one fails ---------------------------------------------------------------


def test_what_depends_on_a_dead_job_is_cancelled(place: Place, app: Any) -> None:
    """Also what depends on that; they end, with the reason, and whoever waits is told."""
    with place.client.using(retry=ONCE).flow() as flow:
        first = flow.add(app.broken)
        second = flow.add(app.shout, first.output)
        third = flow.add(app.shout, second.output)
        other = flow.add(app.one, "a")
    place.process().run()

    assert ["dead", "cancelled", "cancelled", "done"] == [job.status() for job in flow.jobs]
    with pytest.raises(JobFailed, match=f"cancelled: a job it depends on, {first.id}, is dead"):
        second.result(5)
    with pytest.raises(JobFailed, match="cancelled: a job it depends on"):
        third.result(5)
    assert "a" == other.result(5)
    assert ["broken", "a"] == app.runs


def test_a_cancelled_job_stays_so(place: Place, app: Any) -> None:
    """What another parent does after one has failed changes nothing about it."""
    with place.client.using(retry=ONCE).flow() as flow:
        dead, good = flow.add(app.broken), flow.using(queue="later").add(app.one, "a")
        last = flow.add(app.join, [dead.output, good.output])
    place.process().run()
    assert "cancelled" == last.status()
    process = place.process(queues=["later"])
    process.run()

    assert ["dead", "done", "cancelled"] == [job.status() for job in flow.jobs]
    assert 0 == process.engine.settler.pending
    with pytest.raises(JobFailed, match=f"depends on, {dead.id}, is dead"):
        last.result(5)


def test_each_edge_has_its_own_policy(place: Place, app: Any) -> None:
    """`run` goes on without the result, `wait` keeps waiting, `cancel` gives up."""
    with place.client.using(retry=ONCE).flow() as flow:
        first = flow.add(app.broken)
        run = flow.using(depends_on=goose.after(first, on_failure="run")).add(
            app.told, first.output
        )
        wait = flow.using(depends_on=goose.after(first, on_failure="wait")).add(app.alone)
        both = flow.using(depends_on=[goose.after(first, on_failure="run"), wait]).add(app.alone)
    place.process().run()

    assert ["dead", "done", "waiting", "waiting"] == [job.status() for job in flow.jobs]
    assert "None" == run.result(5)
    assert ["broken", "told None"] == app.runs
    assert both.status() == wait.status()


def test_what_a_dead_worker_set_free_is_sent_by_another_end(place: Place, app: Any) -> None:
    """A parent may end twice by a fault, and not alike: who depends on it is sent by the second end, too."""
    with place.client.flow() as flow:
        first = flow.add(app.one, "first")
        edge = goose.after(first, on_failure="run")
        second = flow.using(depends_on=edge).add(app.alone)

    class Away(MemoryBroker):
        def enqueue(self, envelopes: Any) -> None:
            raise BrokerUnavailable("away")

    with pytest.raises(BrokerUnavailable):
        Flows(place.store, Away()).parent_ended(first.id, "dead")
    assert "waiting" == second.status()
    Flows(place.store, place.broker).parent_ended(first.id, "done")

    assert "waiting" != second.status()


def test_a_replayed_job_takes_its_flow_with_it(place: Place, app: Any) -> None:
    """What was cancelled because it died waits again, and runs when it has succeeded."""
    with place.client.using(retry=ONCE).flow() as flow:
        first = flow.add(app.broken)
        second = flow.add(app.shout, first.output)
        third = flow.add(app.shout, second.output)
        patient = flow.using(depends_on=goose.after(first, on_failure="wait")).add(app.alone)
    process = place.process()
    process.run()
    assert ["dead", "cancelled", "cancelled", "waiting"] == [job.status() for job in flow.jobs]
    app.broken.__code__ = (lambda: "mended").__code__
    place.client.inspector.replay()
    assert ["waiting"] * 3 == [job.status() for job in flow.jobs[1:]]
    process.run()

    assert "MENDED" == third.result(5)
    assert ["done"] * 4 == [job.status() for job in flow.jobs]
    assert patient.result(5) is None


def test_a_skipped_job_has_not_failed(place: Place, app: Any) -> None:
    """What depends on it runs, with nothing in place of a result."""
    with place.client.flow() as flow:
        second = flow.add(app.told, flow.add(app.skipped).output)
    place.process().run()

    assert "None" == second.result(5)


def test_a_deleted_job_takes_its_dependents_with_it(place: Place, app: Any) -> None:
    """What an operator deletes will never be done, so what waits for it is cancelled."""
    with place.client.flow() as flow:
        first = flow.add(app.one, "a")
        second = flow.add(app.shout, first.output)
        patient = flow.using(depends_on=goose.after(first, on_failure="wait")).add(app.alone)
    place.client.inspector.delete([first.id], state=State.READY)

    assert ["deleted", "cancelled", "cancelled"] == [
        job.status() for job in (first, second, patient)
    ]


def test_who_comes_after_a_failure_is_cancelled_at_once(place: Place, app: Any) -> None:
    """A job that depends on a dead one does not wait for it."""
    with place.client.using(retry=ONCE).flow() as flow:
        first = flow.add(app.broken)
    place.process().run()
    late = place.client.using(depends_on=first).enqueue(app.alone)

    assert "cancelled" == late.status()
    with pytest.raises(JobFailed, match="had failed before"):
        late.result(5)


def test_one_that_failed_long_ago_has_failed(place: Place, app: Any) -> None:
    """Nobody waits for ever for one that is dead or cancelled, though how it ended is forgotten."""
    with place.client.using(retry=ONCE).flow() as flow:
        first = flow.add(app.broken)
        second = flow.using(depends_on=first).add(app.alone)
    place.process().run()
    for job in (first, second):
        place.store.apply([Delete(key_of(job.id))])
    parents = [second, first, goose.after(first, on_failure="run")]
    if place.url.startswith("amqp"):
        del parents[1:]  # it does not say who is dead
    late = [place.client.using(depends_on=parent).enqueue(app.alone) for parent in parents]

    assert ["cancelled", "cancelled", "ready"][: len(late)] == [job.status() for job in late]


def test_one_that_was_cancelled_when_it_was_sent_is_forgotten(place: Place, app: Any) -> None:
    """It waits for nobody any more: when its record has gone, who names it is refused."""
    if place.url.startswith("amqp"):
        pytest.skip("it finds no scheduled job by its id")
    with place.client.flow() as flow:
        first = flow.add(app.one, "a")
    second = place.client.using(depends_on=first).enqueue_in(60, app.alone)
    place.process().run()
    assert {second.id: "removed"} == place.client.cancel(second)
    assert "cancelled" == place.client.using(depends_on=second).enqueue(app.alone).status()
    place.store.apply([Delete(key_of(second.id))])

    with pytest.raises(FlowError, match=second.id):
        place.client.using(depends_on=second).enqueue(app.alone)


# --- what is refused -------------------------------------------------------------------------


def test_what_cannot_be_is_refused(place: Place, app: Any) -> None:
    """Nobody waits for a job that is not there, keeps no result, or waits for oneself."""
    client = place.client
    told = Unsupported if place.url.startswith("amqp") else FlowError
    with pytest.raises(told, match="0190"):
        client.using(depends_on="0190").enqueue(app.alone)
    plain = client.enqueue(app.alone)
    with pytest.raises(ConfigError, match="keeps no result"):
        client.using(depends_on=plain)
    with pytest.raises(told, match=plain.id):
        client.using(depends_on=[plain.id]).enqueue(app.alone)
    with pytest.raises(ConfigError, match="nothing to depend on"):
        client.using(depends_on=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="on_failure"):
        goose.after("x", on_failure="explode")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="beside the output"):
        client.enqueue(app.join, [client.using(result=True).enqueue(app.one, "a").output, {1}])
    assert [] == [*place.store.scan("flow:"), *place.store.scan("result:")]


def test_a_circle_is_refused(place: Place, app: Any) -> None:
    """Jobs that wait for each other would wait for ever."""
    with place.client.flow() as flow:
        one = flow.add(app.alone)
    ring = [
        one.evolve(
            id=f"{n}", traits={**one.traits, "flow": {"after": {f"{(n + 1) % 3}": "cancel"}}}
        )
        for n in range(3)
    ]
    with pytest.raises(FlowError, match="in a circle: 0, 1, 2"):
        place.client.submit(ring)
    assert 1 == len(place.store.scan("flow:"))


def test_an_error_in_the_block_enqueues_nothing(place: Place, app: Any) -> None:
    """A flow that was not finished does not exist."""
    with pytest.raises(KeyError), place.client.flow() as flow:
        flow.add(app.one, "a")
        raise KeyError

    assert ([], 0) == (list(place.store.scan("flow:")), place.counts()[State.READY])


@pytest.mark.parametrize("kind", [BrokerError, BrokerUnavailable])
def test_what_the_broker_refuses_leaves_nothing(
    place: Place, app: Any, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """A refused flow is forgotten and can be sent again; one without an answer is kept and can, too."""
    client = place.client
    line = client._root.link(client._to.broker).ready
    send, error = line._send, kind("full")

    def fail(_envelopes: Any) -> None:
        raise error

    monkeypatch.setattr(line, "_send", fail)
    with pytest.raises(EnqueueError) as caught, client.flow() as flow:
        first = flow.add(app.one, "a")
        last = flow.add(app.shout, first.output)
    kept = kind is BrokerUnavailable
    assert kept is bool(place.store.scan("flow:"))
    assert ({first: "unknown"} if kept else {first: "not_stored", last: "not_stored"}) == (
        caught.value.jobs
    )
    monkeypatch.setattr(line, "_send", send)
    client.submit(caught.value.jobs)
    place.process().run()

    assert "A" == last.result(5)
    assert ["a", "shout a"] == app.runs


def test_a_transaction_has_no_flows(place: Place, app: Any) -> None:
    """What waits in the store is no part of a database's transaction."""
    client = place.client
    try:
        bound = client.using(connection=object())
    except Unsupported:
        return
    first = client.using(result=True).enqueue(app.one, "a")
    with pytest.raises(Unsupported, match="no part of a transaction"):
        bound.enqueue(app.shout, first.output)


def test_a_job_too_large_to_wait_is_refused(place: Place, app: Any) -> None:
    """It would not fit into the store."""
    with place.client.flow() as flow:
        first = flow.add(app.one, "a")
    with pytest.raises((goose.StoreError, PayloadTooLarge)):
        place.client.using(depends_on=first).enqueue(app.one, "x" * (1 << 20))


# --- what is kept ----------------------------------------------------------------------------


def test_a_result_waits_for_who_needs_it(place: Place, app: Any) -> None:
    """However short its time is, it is there while a job waits for it, and gone after that."""
    client = place.client
    with client.using(result=0.3).flow() as flow:
        first = flow.add(app.one, "a")
        second = flow.add(app.number, 1)
        third = flow.using(depends_on=second, queue="later").add(app.shout, first.output)
    process = place.process()
    process.run()
    time.sleep(0.6)
    assert "done" == first.status()
    place.process(queues=["later"]).run()

    assert {"a", "shout a"} == set(app.runs)
    deadline = time.monotonic() + 10
    while place.store.scan("result:") or place.store.scan("flow:"):
        assert time.monotonic() < deadline, place.store.scan("result:")
        time.sleep(0.05)
    assert "unknown" == third.status()


def days_left(place: Place, key: str) -> float | None:
    """Return for how many days a key is kept, None for one that has gone."""
    with place.store._broker.shelf() as items:
        item = items.get(key)
        return None if item is None else round((item.expires_at - time.time()) / 86_400)


def test_everything_is_kept_for_its_own_time(app: Any) -> None:
    """A result is kept as long as it was to be, not as its dependents; nothing stays for ever."""
    place = Place("memory", f"memory://feature-{uuid.uuid4()}")
    client = place.client
    with client.using(retry=ONCE).flow() as flow:
        done, waited_for = (flow.using(result=30 * 86_400).add(app.one, word) for word in "ab")
        flow.using(result=60).add(app.shout, done.output)
        dead = flow.add(app.broken)
        ended = flow.using(depends_on=dead).add(app.alone)
    stuck = goose.after(dead, on_failure="wait")
    waits = client.using(result=60, depends_on=[waited_for, stuck]).enqueue(app.alone)
    late = client.using(depends_on=waited_for).enqueue_in(3600, app.alone)
    place.process().run()
    assert {waits.id: "removed", late.id: "removed"} == client.cancel(waits, late)

    assert [30, 30] == [days_left(place, key_of(job.id)) for job in (done, waited_for)]
    assert 1 == days_left(place, node_key(late.id))
    assert [366, 366] == [days_left(place, key(ended.id)) for key in (node_key, body_key)]
    app.broken.__code__ = (lambda: "mended").__code__
    client.inspector.replay()
    place.process().run()
    assert [1, None] == [days_left(place, key(ended.id)) for key in (node_key, body_key)]
    place.close()


# --- crashes ---------------------------------------------------------------------------------


def test_every_crash_of_a_worker_leaves_the_flow_whole(
    new_place: Callable[[], Place], app: Any
) -> None:
    """Wherever a worker dies, the flow ends as it should, each job after its parents."""

    def scene(place: Place, _: Process) -> None:
        app.runs.clear()
        with place.client.using(retry=ONCE).flow() as flow:
            first = flow.add(app.one, "a")
            flow.add(app.join, [flow.add(app.shout, first.output).output, first.output])
            flow.add(app.told, flow.add(app.broken).output)
        flows[:] = [flow]

    flows: list[Any] = []
    points = 0
    for place, crash in crash_points(new_place, scene):
        points += 1
        place.process().run()
        [flow] = flows
        states = [job.status() for job in flow.jobs]
        assert ["done", "done", "done", "dead", "cancelled"] == states, crash
        assert "Aa" == flow.jobs[2].result(5), crash
        firsts = [app.runs.index(name) for name in ("a", "shout a", "join")]
        assert sorted(firsts) == firsts, crash
        again = [name for name, count in Counter(app.runs).items() if count > 1]
        assert len(again) <= 2, (crash, app.runs)
    assert points > 8


def test_every_crash_of_a_client_leaves_all_or_nothing_to_run(
    new_place: Callable[[], Place], app: Any
) -> None:
    """A program that dies in the middle of enqueueing a flow has started nothing, or all of it."""
    from goose.features import asking
    from tests.features.places import WiredBroker, WiredStore

    for side in ("before", "after"):
        at = 0
        while True:
            at += 1
            place, wire = new_place(), Tripwire(at, side)  # type: ignore[arg-type]
            app.runs.clear()
            flow = place.client.flow()
            last = flow.add(app.shout, flow.add(app.one, "a").output)
            broker, store = WiredBroker(place.broker, wire), WiredStore(place.store, wire)
            try:
                claimed = asking.claimed(flow._sealed, broker, store)  # type: ignore[arg-type]
                broker.enqueue([envelope for _, envelope in claimed.sealed])
            except Crash:
                place.process().run()
                assert app.runs in ([], ["a", "shout a"]), (side, at)
                if app.runs:
                    assert "A" == last.result(5)
                place.close()
                continue
            break
        assert at > 6


def random_flow(place: Place, app: Any, chance: random.Random, size: int) -> Any:
    """Enqueue a random graph of *size* jobs, each of which adds up what its parents returned."""
    flow = place.client.flow()
    jobs: list[Any] = []
    values: list[int] = []
    for name in range(size):
        parents = [n for n in range(name) if chance.random() < min(0.5, 2.0 / size)]
        jobs.append(flow.add(app.node, name, [jobs[parent].output for parent in parents]))
        values.append(name + sum(values[parent] for parent in parents))
        edges.extend((parent, name) for parent in parents)
    flow.enqueue()
    return jobs, values


edges: list[tuple[int, int]] = []


@pytest.mark.parametrize("seed", range(4))
def test_random_flows_survive_workers_that_die(place: Place, app: Any, seed: int) -> None:
    """Every job runs, never before its parents, with the right results, however often workers die."""
    chance = random.Random(seed)
    edges.clear()
    jobs, values = random_flow(place, app, chance, chance.randint(2, 12))
    kills = 0
    while True:
        process = place.process(Tripwire(chance.randint(1, 60), chance.choice(["before", "after"])))  # type: ignore[arg-type]
        try:
            process.run()
        except Crash:
            kills += 1
            place.bury(process)
        else:
            break
    first = {name: app.runs.index(name) for name in range(len(jobs))}

    assert values == [job.result(5) for job in jobs]
    assert all(first[parent] < first[child] for parent, child in edges)
    assert len(app.runs) - len(jobs) <= 10 * kills
