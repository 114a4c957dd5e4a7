"""One job's way through the engine, and every way it can end."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import State
from goose.jobs import Envelope, Failure, decode, new_id
from goose.worker.outcomes import Ending
from tests.worker.engine_kit import Bench, job, write_app


@pytest.fixture
def app(importable: Path) -> Any:
    """The module whose functions run."""
    return write_app(importable)


@pytest.fixture
def bench(app: Any) -> Bench:
    """An engine to drive by hand."""
    return Bench()


def stored(bench: Bench, identity: str) -> Any:
    """Return the stored job of that id, decoded."""
    return decode(bench.broker.find(identity).envelope)


def test_a_job_that_returns_is_forgotten(bench: Bench, app: Any) -> None:
    """A done job is acked: nothing of it is left in the broker or in the engine."""
    bench.enqueue(one := job("note", 1, kwargs={"x": 2}))
    bench.round()

    assert [((1,), {"x": 2})] == app.calls
    assert bench.broker.find(one.id) is None
    assert bench.engine.buffer.idle


@pytest.mark.parametrize(
    ("fn", "ending", "state"),
    [
        ("fail", Ending.RETRIED, State.SCHEDULED),
        ("skip", Ending.SKIPPED, None),
        ("fail_silently", Ending.RETRIED, State.SCHEDULED),
    ],
)
def test_each_ending_has_its_state(
    bench: Bench, fn: str, ending: Ending, state: State | None
) -> None:
    """A job's way to end decides where it is stored next."""
    bench.enqueue(one := job(fn))
    bench.round()

    found = bench.broker.find(one.id)
    assert state == (found.state if found else None)
    assert 1 == bench.engine.report.endings[ending]


def test_a_failure_is_remembered(bench: Bench) -> None:
    """A retried job carries one attempt more and what went wrong."""
    bench.enqueue(one := job("fail", "the reason"))
    bench.round()

    again = stored(bench, one.id)
    assert (1, 0) == (again.attempt, again.crashes)
    assert "builtins:ValueError" == again.failure.type
    assert "the reason" == again.failure.message
    assert "engine_app.py" in again.failure.traceback


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (
            ("fail", "the reason"),
            r"with ValueError: the reason \(.*engine_app.py:\d+ in fail\); again",
        ),
        (("skip",), r"is skipped \(nothing to do\)"),
        (("postpone", 5), r"is postponed \(again in 5.0 s\)"),
        (("bury", "no such user"), r"is dead: buried: no such user$"),
    ],
)
def test_the_log_says_how_a_job_ended(
    bench: Bench, caplog: pytest.LogCaptureFixture, one: tuple[Any, ...], said: str
) -> None:
    """An error has its place and what follows, and what steers a job its reason or delay."""
    caplog.set_level("INFO", "goose.worker")
    bench.enqueue(job(*one))
    bench.round()

    assert [re.search(said, record.getMessage()) for record in caplog.records][-1]


OVER = Failure("goose.errors:JobTimeout", "engine_app:note ran over its timeout of 1 s", 1.0, 1.0)
KILLED = replace(OVER, message="it ran over its hard timeout, and its process was killed")
ODD = Failure("builtins:ValueError", "odd", 1.0, 1.0)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (
            job("fail", "x", retry={"max_retries": 0}),
            ", no retries left (1 attempt): ValueError: x",
        ),
        (job("note", attempt=26, failure=ODD), ", no retries left (26 attempts): ValueError: odd"),
        (job("note", attempt=26, failure=OVER), ": it ran over its timeout of 1 s"),
        (
            job("note", attempt=26, failure=KILLED),
            ": it ran over its hard timeout, and its process was killed",
        ),
        (job("note", crashes=3), ": its process died 3 times while it ran alone"),
    ],
    ids=["retries", "retries used up", "timeout", "hard timeout", "crashed"],
)
def test_the_log_says_in_words_why_a_job_is_dead(
    bench: Bench, caplog: pytest.LogCaptureFixture, one: Any, said: str
) -> None:
    """The reasons that programs read are not what a person reads."""
    bench.enqueue(one)
    bench.round()

    assert f"job {one.id} of {one.fn} is dead{said}" == caplog.messages[-1]


def test_the_last_attempt_kills(bench: Bench) -> None:
    """A job whose retries are used up is dead, with its reason, and not run again."""
    bench.enqueue(one := job("fail", retry={"max_retries": 0}))
    bench.round()

    found = bench.broker.find(one.id)
    assert State.DEAD == found.state
    assert "retries" == decode(found.envelope).failure.reason


def test_bury_gives_up_at_once(bench: Bench) -> None:
    """Bury makes a job dead with the reason given, whatever its policy allows."""
    bench.enqueue(one := job("bury", "no use"))
    bench.round()

    failure = stored(bench, one.id).failure
    assert ("buried", "no use") == (failure.reason, failure.message)


def test_postpone_costs_no_attempt(bench: Bench, app: Any) -> None:
    """A postponed job is due after its delay and has failed as often as before."""
    bench.enqueue(one := job("postpone", 30.0))
    bench.round()

    assert 0 == stored(bench, one.id).attempt
    bench.round()
    assert State.SCHEDULED == bench.broker.find(one.id).state
    bench.clock.turn(31)
    bench.broker.promote_due(limit=10)
    bench.fetch()
    assert 1 == bench.run_all()


def test_system_exit_ends_only_the_job(bench: Bench) -> None:
    """sys.exit inside a job is a failure like any other, never an ack."""
    bench.enqueue(one := job("leave", 0))
    bench.round()

    assert "builtins:SystemExit" == stored(bench, one.id).failure.type


def test_what_is_not_a_job_is_buried_as_it_came(bench: Bench) -> None:
    """Bytes that do not decode are dead at once, unchanged, and harm nobody."""
    body = b'{"v":1,"id":'
    bench.broker.enqueue([Envelope("broken", "default", body)])
    bench.enqueue(fine := job("note"))
    bench.round()

    found = bench.broker.find("broken")
    assert (State.DEAD, body) == (found.state, found.envelope.body)
    assert bench.broker.find(fine.id) is None


def test_an_unknown_function_waits_for_other_workers(bench: Bench) -> None:
    """A job this code does not know is left with a delay, and dies only after days."""
    bench.enqueue(one := job("not_there_yet"))
    bench.round()
    found = bench.broker.find(one.id)
    assert State.SCHEDULED == found.state
    assert 0 == decode(found.envelope).attempt

    bench.clock.turn(bench.config.defer_limit + 60)
    bench.broker.promote_due(limit=10)
    bench.round()
    found = bench.broker.find(one.id)
    assert State.DEAD == found.state
    assert "unknown_function" == decode(found.envelope).failure.reason


def test_arguments_of_another_version_wait_too(bench: Bench, app: Any) -> None:
    """A changed signature is a deploy under way, not a failure of the job."""
    bench.enqueue(one := job("strict", "seven"))
    bench.round()

    assert (State.SCHEDULED, 0) == (bench.broker.find(one.id).state, stored(bench, one.id).attempt)
    assert [] == app.calls


def test_a_newer_envelope_is_left_for_newer_workers(bench: Bench) -> None:
    """An envelope of a later version keeps all its keys and waits, then dies after days."""
    identity = new_id()
    body = json.dumps({"v": 99, "id": identity, "future": {"a": 1}}).encode()
    bench.broker.enqueue([Envelope(identity, "default", body)])
    bench.round()

    found = bench.broker.find(identity)
    assert State.SCHEDULED == found.state
    kept = json.loads(found.envelope.body)
    assert {"a": 1} == kept["future"]
    assert 99 == kept["v"]

    bench.clock.turn(bench.config.defer_limit + 60)
    bench.broker.promote_due(limit=10)
    bench.round()
    assert State.DEAD == bench.broker.find(identity).state


@pytest.mark.parametrize("since", [f"1{'0' * 400}", f"-1{'0' * 400}", '"then"', "true", "[]"])
def test_nonsense_in_a_newer_envelope_harms_no_neighbour(bench: Bench, since: str) -> None:
    """Whatever a newer envelope says of its wait, what was fetched with it runs."""
    body = f'{{"v":2,"deferred_since":{since}}}'.encode()
    bench.broker.enqueue([Envelope("newer", "default", body)])
    bench.enqueue(fine := job("note"))
    bench.round()

    assert bench.broker.find(fine.id) is None
    assert bench.broker.find("newer").state in (State.SCHEDULED, State.DEAD)


def test_callbacks_are_told_and_their_errors_survived(bench: Bench, app: Any) -> None:
    """on_error and on_death hear of the job; one that raises costs the job nothing."""
    policy = {"max_retries": 0, "on_error": "engine_app:told", "on_death": "engine_app:told_badly"}
    bench.enqueue(one := job("fail", retry=policy))
    bench.round()

    assert [(("told", one.id, "ValueError", 1), {})] == app.calls
    assert State.DEAD == bench.broker.find(one.id).state


def test_a_senseless_policy_is_replaced_by_the_default(bench: Bench) -> None:
    """A retry policy that makes no sense does not keep a job from settling."""
    bench.enqueue(one := job("fail", retry={"max_retries": "many", "nonsense": True}))
    bench.round()

    assert (State.SCHEDULED, 1) == (bench.broker.find(one.id).state, stored(bench, one.id).attempt)


def test_too_many_crashes_are_not_run_again(bench: Bench, app: Any) -> None:
    """A job that was alone in three dying processes is dead, with the reason crashed."""
    bench.enqueue(one := job("note", crashes=3))
    bench.round()

    assert [] == app.calls
    assert "crashed" == stored(bench, one.id).failure.reason


@pytest.mark.parametrize("fields", [{"crashes": 3}, {"attempt": 26}])
def test_on_death_is_told_in_a_slot(bench: Bench, app: Any, fields: dict[str, int]) -> None:
    """Fetching calls nothing of the user's: there on_death could block the worker or end it."""
    bench.enqueue(one := job("note", retry={"on_death": "engine_app:told"}, **fields))
    bench.fetch()
    assert [] == app.calls

    assert 1 == bench.run_all()
    bench.settle()
    assert [("told", one.id, "NoneType", fields.get("attempt", 0))] == [c[0] for c in app.calls]
    assert State.DEAD == bench.broker.find(one.id).state


def test_an_on_death_that_ended_its_process_is_not_told_again(bench: Bench, app: Any) -> None:
    """A job with one crash more than it may have is buried in silence, so that it ends at all."""
    bench.enqueue(one := job("note", retry={"on_death": "engine_app:told"}, crashes=4))
    bench.round()

    assert [] == app.calls
    assert "crashed" == stored(bench, one.id).failure.reason


def test_a_session_lost_drops_and_signals(bench: Bench, app: Any) -> None:
    """After a lost session nothing held is started, and what runs is asked to stop."""
    bench.enqueue(*(job("note", n) for n in range(3)))
    bench.fetch()
    running = bench.engine.take()
    assert running is not None
    running.execution = seen = type("E", (), {"stop_requested": False})()

    bench.engine.renew(type(bench.session)(bench.session.id, 2))

    assert seen.stop_requested
    assert 0 == bench.engine.buffer.held
    assert [] == app.calls


def test_an_outcome_of_a_lost_delivery_changes_nothing(bench: Bench) -> None:
    """A zombie's ack is refused and counted; the job is still there for its new holder."""
    bench.enqueue(one := job("note"))
    bench.fetch()
    other = type(bench.session)("other")
    bench.broker.open(other, ttl=1e9)
    assert 1 == len(bench.broker.recover(other, limit=10, dead=bench.session))
    bench.run_all()
    bench.settle()

    assert State.RUNNING == bench.broker.find(one.id).state
    assert (1, 0) == (bench.engine.report.lost, bench.engine.report.endings[Ending.DONE])
