"""Numbers on their way from worker processes to one scrape."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

from goose.metrics import foreign
from goose.metrics.aggregate import Aggregate
from goose.metrics.base import BUSY, EXECUTION_TIME, PROCESSED, QUEUE_SIZE
from goose.metrics.bounds import MAX_SERIES
from goose.metrics.fanout import Fanout
from goose.metrics.handover import AHEAD, CHUNK, Handover
from goose.metrics.prometheus import Prometheus

TAGS = {"queue": "mail", "function": "app.tasks:send"}


def samples(aggregate: Aggregate) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(aggregate.text())
        for sample in family.samples
    }


def carry(handover: Handover, aggregate: Aggregate, source: str = "1/100") -> bool:
    """Hand over by way of JSON, as between processes."""

    def send(changes: Any) -> bool:
        aggregate.add(source, json.loads(json.dumps(changes)))
        return True

    return handover.hand_over(send)


def test_counts_of_processes_add_up_and_outlive_them() -> None:
    """A process that is gone has not taken back what it counted."""
    aggregate = Aggregate()
    for source in ("1/100", "2/101", "1/102"):
        handover = Handover()
        handover.increment(PROCESSED, 2, TAGS)
        handover.timing(EXECUTION_TIME, 0.2, TAGS)
        carry(handover, aggregate, source)
        handover.increment(PROCESSED, 1, TAGS)
        carry(handover, aggregate, source)
        aggregate.forget(source)

    found = samples(aggregate)
    labels = tuple(sorted(TAGS.items()))
    assert 9 == found["goose_jobs_processed_total", labels]
    assert 3 == found["goose_job_execution_time_seconds_count", labels]
    assert 0.6 == pytest.approx(found["goose_job_execution_time_seconds_sum", labels])
    bucket = "goose_job_execution_time_seconds_bucket"
    assert 0 == found[bucket, tuple(sorted({**TAGS, "le": "0.1"}.items()))]
    assert 3 == found[bucket, tuple(sorted({**TAGS, "le": "0.25"}.items()))]
    assert 3 == found[bucket, tuple(sorted({**TAGS, "le": "+Inf"}.items()))]


def test_a_kill_takes_a_bounded_number_of_jobs_however_late_the_clock() -> None:
    """Whoever counts hands over once enough jobs wait; nothing else ever has to."""
    aggregate = Aggregate()
    handover = Handover(on_many=lambda: carry(handover, aggregate))
    counting = Fanout([handover])
    handed_over = 0.0
    for done in range(1, 5 * AHEAD):
        counting.increment(PROCESSED, 1, TAGS)
        counting.counted(1)
        found = samples(aggregate).get(("goose_jobs_processed_total", tuple(sorted(TAGS.items()))))
        handed_over = found or 0
        assert done - AHEAD < handed_over <= done
    assert 4 * AHEAD == handed_over


def test_changes_are_handed_over_by_several_threads_without_loss() -> None:
    """The settling thread and the one that looks every tenth of a second may meet."""
    aggregate = Aggregate()
    handover = Handover(on_many=lambda: carry(handover, aggregate))
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            carry(handover, aggregate)

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(2000):
        handover.increment(PROCESSED, 1, TAGS)
        handover.counted(1)
    ended.set()
    looking.join()
    carry(handover, aggregate)

    assert 2000 == samples(aggregate)["goose_jobs_processed_total", tuple(sorted(TAGS.items()))]


def test_gauges_are_summed_over_those_that_live() -> None:
    """What a process said last counts until it ends."""
    aggregate = Aggregate()
    for source, busy in (("1/100", 3), ("2/101", 4)):
        handover = Handover()
        handover.gauge(BUSY, 1, {"kind": "sync"})
        handover.gauge(BUSY, busy, {"kind": "sync"})
        carry(handover, aggregate, source)
    key = ("goose_worker_busy", (("kind", "sync"),))

    assert 7 == samples(aggregate)[key]
    assert [(BUSY, 7, {"kind": "sync"})] == aggregate.gauges()
    aggregate.forget("2/101")
    assert 3 == samples(aggregate)[key]
    aggregate.forget("1/100")
    assert key not in samples(aggregate)


def test_an_unchanged_gauge_is_not_handed_over_again() -> None:
    """An idle process says nothing, and one that went back to what was told says nothing either."""
    handover = Handover()
    sent: list[Any] = []

    def send(changes: Any) -> bool:
        sent.extend(changes)
        return True

    for busy in (0, 0, 1, 0):
        handover.gauge(BUSY, busy, {"kind": "sync"})
        handover.hand_over(send)
    handover.gauge(BUSY, 5, {"kind": "sync"})
    handover.gauge(BUSY, 0, {"kind": "sync"})
    handover.hand_over(send)

    assert [0, 1, 0] == [value for *_, value in sent]


def test_what_cannot_be_sent_is_kept() -> None:
    """A supervisor that does not read for a while misses nothing."""
    aggregate, handover = Aggregate(), Handover()
    for _ in range(3):
        handover.increment(PROCESSED, 1, TAGS)
        handover.timing(EXECUTION_TIME, 1.0, TAGS)
        handover.gauge(BUSY, 2, {"kind": "sync"})
        assert not handover.hand_over(lambda _changes: False)
    carry(handover, aggregate)

    found = samples(aggregate)
    labels = tuple(sorted(TAGS.items()))
    assert 3 == found["goose_jobs_processed_total", labels]
    assert 3 == found["goose_job_execution_time_seconds_count", labels]
    assert 2 == found["goose_worker_busy", (("kind", "sync"),)]


def test_many_series_go_in_several_messages() -> None:
    """No message is larger than a socket takes in one piece, and none is sent twice."""
    aggregate, handover = Aggregate(), Handover()
    sizes: list[int] = []
    for number in range(3 * CHUNK):
        handover.increment(PROCESSED, 1, {"queue": "q", "function": f"f{number}"})

    def send(changes: Any) -> bool:
        sizes.append(len(changes))
        aggregate.add("1/1", changes)
        return True

    handover.hand_over(send)
    assert [CHUNK] * 3 == sizes
    total = sum(
        v for (name, _), v in samples(aggregate).items() if name.endswith("processed_total")
    )
    assert 3 * CHUNK == total


def test_a_process_hands_over_a_bounded_number_of_series() -> None:
    """Functions without end are counted together."""
    aggregate, handover = Aggregate(), Handover()
    for number in range(3 * MAX_SERIES):
        handover.increment(PROCESSED, 1, {"queue": "q", "function": f"f{number}"})
    carry(handover, aggregate)

    other = (("function", "other"), ("queue", "q"))
    found = samples(aggregate)
    assert 2 * MAX_SERIES == found["goose_jobs_processed_total", other]
    assert MAX_SERIES + 1 == sum(name.endswith("processed_total") for name, _ in found)


def test_threads_lose_nothing() -> None:
    """What is counted while it is handed over is in this message or the next."""
    aggregate, handover = Aggregate(), Handover()

    def count() -> None:
        for _ in range(2000):
            handover.increment(PROCESSED, 1, TAGS)
            handover.timing(EXECUTION_TIME, 0.01, TAGS)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        carry(handover, aggregate)
    carry(handover, aggregate)

    found = samples(aggregate)
    labels = tuple(sorted(TAGS.items()))
    assert 8000 == found["goose_jobs_processed_total", labels]
    assert 8000 == found["goose_job_execution_time_seconds_count", labels]


def test_the_supervisors_own_numbers_are_among_them() -> None:
    """An aggregate is a backend too; its gauges can be taken back."""
    aggregate = Aggregate()
    aggregate.increment(PROCESSED, 1, TAGS)
    aggregate.timing(EXECUTION_TIME, 5000.0, TAGS)
    aggregate.gauge(QUEUE_SIZE, 7, {"queue": 'a"b\\c\nd', "state": "ready"})
    aggregate.increment("own.thing", 2, {"zone": "z"})

    found = samples(aggregate)
    labels = tuple(sorted(TAGS.items()))
    assert 1 == found["goose_jobs_processed_total", labels]
    assert 1 == found["goose_job_execution_time_seconds_count", labels]
    assert 2 == found["goose_own_thing_total", (("zone", "z"),)]
    size = ("goose_queue_size", (("queue", 'a"b\\c\nd'), ("state", "ready")))
    assert 7 == found[size]
    aggregate.replace_gauges([QUEUE_SIZE])
    assert size not in samples(aggregate)


def families(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> Any:
    import prometheus_client

    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    return json.loads(json.dumps(foreign.families()))


def test_the_users_own_measures_are_served_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters add up over processes that came and went; gauges are told apart; ours come once."""
    aggregate = Aggregate()
    for number, source in enumerate(("1/100", "2/101"), 1):
        registry = CollectorRegistry()
        Prometheus(registry=registry)
        Counter("mails", "Mails sent", ["to"], registry=registry).labels("ada").inc(number)
        Gauge("depth", "Depth", registry=registry).set(number)
        aggregate.foreign(source, families(registry, monkeypatch))
        aggregate.foreign(source, families(registry, monkeypatch))
    ada = ("mails_total", (("to", "ada"),))

    found = samples(aggregate)
    assert 3 == found[ada]
    assert 1 == found["depth", (("process", "1/100"),)]
    assert 2 == found["depth", (("process", "2/101"),)]
    assert 1 == aggregate.text().count("# TYPE goose_sessions_lost_total")
    aggregate.forget("1/100")
    found = samples(aggregate)
    assert 3 == found[ada]
    assert ("depth", (("process", "1/100"),)) not in found
