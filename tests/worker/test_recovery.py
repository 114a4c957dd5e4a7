"""The crash policy: who is blamed, who is suspected, and what it costs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import Session, State
from goose.jobs import Job, decode
from goose.worker.recovery import Verdict, judge_by_absence, settle_orphans
from tests.worker.engine_kit import Bench, job, lend, write_app


@pytest.fixture
def bench(importable: Path) -> Bench:
    """An engine whose session will die."""
    write_app(importable)
    return Bench()


def recover(bench: Bench, verdict: Verdict | None, *jobs: Job[Any]) -> list[Any]:
    """Lend *jobs*, let the session die, settle the orphans; return them as stored now."""
    bench.enqueue(*jobs)
    lend(bench)
    heir = Session("heir")
    bench.broker.open(heir, ttl=1e9)
    orphans = bench.broker.recover(heir, limit=100, dead=bench.session)
    judge = judge_by_absence(orphans, complete=True) if verdict is None else lambda _: verdict
    settle_orphans(bench.broker, orphans, judge, now=bench.clock.wall(), random=random.Random(1))
    return [bench.broker.find(one.id) for one in jobs]


def test_what_was_not_started_costs_nothing(bench: Bench) -> None:
    """A prefetched job is ready again, unblamed, byte for byte."""
    one = job("note")
    (found,) = recover(bench, Verdict.UNSTARTED, one)

    assert State.READY == found.state
    assert one == decode(found.envelope)


def test_the_only_one_that_ran_is_blamed(bench: Bench) -> None:
    """A crash suffered alone counts, and costs no attempt."""
    (found,) = recover(bench, Verdict.ALONE, job("note"))

    again = decode(found.envelope)
    assert (1, 0, 0) == (again.crashes, again.suspicions, again.attempt)


def test_one_of_several_is_only_suspected(bench: Bench) -> None:
    """Jobs that ran beside each other are suspects, and none is blamed."""
    for found in recover(bench, Verdict.SUSPECT, job("note"), job("note")):
        again = decode(found.envelope)
        assert (0, 1) == (again.crashes, again.suspicions)


def test_a_hard_timeout_costs_an_attempt(bench: Bench) -> None:
    """The job whose process was killed over its hard timeout has failed once more."""
    (found,) = recover(bench, Verdict.TIMED_OUT, job("note"))

    again = decode(found.envelope)
    assert (1, 0, 0) == (again.attempt, again.crashes, again.suspicions)
    assert "goose.errors:JobTimeout" == again.failure.type


def test_a_single_suspect_without_notes_is_blamed(bench: Bench) -> None:
    """A suspect that is its dead session's only loan was alone, whoever looks."""
    (found,) = recover(bench, None, job("note", suspicions=1))

    assert 1 == decode(found.envelope).crashes


def test_a_single_stranger_without_notes_is_suspected(bench: Bench) -> None:
    """A job that may not even have been started is not blamed for being the only one."""
    (found,) = recover(bench, None, job("note"))

    again = decode(found.envelope)
    assert (0, 1) == (again.crashes, again.suspicions)


def test_suspects_among_others_are_not_blamed(bench: Bench) -> None:
    """A suspect that was held beside another loan had not been started yet."""
    found = recover(bench, None, job("note", suspicions=1), job("note"))

    assert [0, 0] == [decode(one.envelope).crashes for one in found]
    assert [2, 1] == [decode(one.envelope).suspicions for one in found]


def test_a_body_that_is_no_job_is_given_back(bench: Bench) -> None:
    """Undecodable orphans are left for a worker to bury."""
    from goose.jobs import Envelope

    bench.broker.enqueue([Envelope("broken", "default", b"\x00")])
    recover(bench, Verdict.SUSPECT)

    assert State.READY == bench.broker.find("broken").state


def test_blame_outlives_a_good_run_and_suspicion_does_not(bench: Bench) -> None:
    """A run that ends in an error clears the suspicion; crashes stay counted."""
    bench.enqueue(one := job("fail", crashes=1, suspicions=2))
    bench.round()

    again = decode(bench.broker.find(one.id).envelope)
    assert (1, 0, 1) == (again.crashes, again.suspicions, again.attempt)
