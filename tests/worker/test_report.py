"""What is counted of a settled batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from goose.brokers.base import Delivery, Session
from goose.jobs import Envelope, Job
from goose.metrics import base as names
from goose.worker.outcomes import BLAMED, Ending, Outcome, Verb
from goose.worker.report import Report


class Numbers:
    """Keeps counts and times by name and tags."""

    never_blocks = True

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.times: dict[tuple[str, ...], list[float]] = {}
        self.calls = 0
        self.told: list[int] = []

    def increment(self, name: str, value: int, tags: Any) -> None:
        self.calls += 1
        self.counts[name, *tags.values()] += value

    def gauge(self, name: str, value: float, tags: Any) -> None:
        raise AssertionError(name)

    def timing(self, name: str, seconds: float, tags: Any) -> None:
        self.timings(name, [seconds], tags)

    def timings(self, name: str, seconds: Sequence[float], tags: Any) -> None:
        self.calls += 1
        self.times.setdefault((name, *tags.values()), []).extend(seconds)

    def counted(self, jobs: int) -> None:
        self.told.append(jobs)


def outcome(ending: Ending, fn: str = "app:f", **fields: Any) -> Outcome:
    number, waited = fields.pop("number", "1"), fields.pop("latency", None)
    job = Job(number, fn, queue="mail", enqueued_at=100.0, **fields.pop("job", {}))
    if waited is not None:
        fields["ended_at"] = 100.0 + waited + fields["seconds"]
    delivery = Delivery(Envelope(number, "mail", b""), None, Session("s"))
    return Outcome(ending, Verb.ACK, delivery, None, job, **fields)


def test_each_ending_has_its_counters() -> None:
    """By queue, function and reason; texts of others are no reasons."""
    numbers = Numbers()
    report = Report([numbers])
    ran = {"seconds": 0.5, "latency": 0.1}
    report.settled(
        [
            outcome(Ending.DONE, **ran),
            outcome(Ending.DONE, **ran, reason="succeed_on app:E"),
            outcome(Ending.DONE, "app:g", seconds=2.0, latency=3.0, job={"attempt": 1}),
            outcome(Ending.RETRIED, **ran, error=ValueError()),
            outcome(Ending.DEAD, **ran, error=ValueError(), reason="retries"),
            outcome(Ending.DEAD, **ran, reason="buried: no such user"),
            outcome(Ending.DEAD, **ran, reason="buried: nor such"),
            outcome(Ending.SKIPPED, **ran, reason="not today"),
            outcome(Ending.RECOVERED, reason=BLAMED),
            outcome(Ending.UNDECODABLE)._replace(job=None),
            outcome(Ending.DONE, **ran, number="lost"),
        ],
        [outcome(Ending.DONE, number="lost").delivery],
    )

    f = ("mail", "app:f")
    assert {
        (names.SUCCEEDED, *f): 2,
        (names.SUCCEEDED, "mail", "app:g"): 1,
        (names.PROCESSED, *f): 7,
        (names.PROCESSED, "mail", "app:g"): 1,
        (names.FAILED, *f): 2,
        (names.RETRIED, *f): 1,
        (names.DEAD, *f, "retries"): 1,
        (names.DEAD, *f, "buried"): 2,
        (names.SKIPPED, *f): 1,
        (names.RECOVERED, *f): 1,
        (names.CRASHED, "mail"): 1,
        (names.UNDECODABLE, "mail"): 1,
        (names.LOST_SETTLES, "mail"): 1,
    } == numbers.counts
    assert [0.5] * 7 == numbers.times[names.EXECUTION_TIME, *f]
    assert [pytest.approx(3.0)] == numbers.times[names.LATENCY, "mail", "app:g", "retried"]
    assert (8, 1, 1) == (report.processed, report.lost, report.orphans)
    assert 3 == report.endings[Ending.DONE]
    assert [8] == numbers.told


def test_a_batch_of_one_function_costs_a_few_calls() -> None:
    """However many jobs are in it, each backend is called as often."""
    numbers = Numbers()
    Report([numbers]).settled([outcome(Ending.DONE, seconds=0.1, latency=0.1)] * 500, [])

    assert 500 == numbers.counts[names.PROCESSED, "mail", "app:f"]
    assert 4 == numbers.calls
