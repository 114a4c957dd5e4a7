"""Prometheus: what a scrape shows, and how the number of series stays bounded."""

from __future__ import annotations

import os
import signal
import socket
import threading
import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from goose.errors import ConfigError
from goose.metrics.base import (
    DEAD,
    EXECUTION_TIME,
    LATENCY,
    PROCESSED,
    QUEUE_OLDEST,
    QUEUE_SIZE,
    RECOVERED,
)
from goose.metrics.catalogue import MEASURES
from goose.metrics.prometheus import Prometheus

TAGS = {"queue": "mail", "function": "app.tasks:send_email"}


def scrape(port: int | None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample by its name and labels, read over HTTP."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        text = reply.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_a_scrape_shows_counters_gauges_and_histograms() -> None:
    """Every kind arrives over HTTP under its Prometheus name, in seconds where it is a time."""
    metrics = Prometheus("prometheus://127.0.0.1:0", registry=CollectorRegistry())
    try:
        metrics.increment(PROCESSED, 2, TAGS)
        metrics.increment(PROCESSED, 1, TAGS)
        metrics.increment(DEAD, 1, {**TAGS, "reason": "crashed"})
        metrics.gauge(QUEUE_SIZE, 7, {"queue": "mail", "state": "ready"})
        metrics.gauge(QUEUE_OLDEST, 1.5, {"queue": "mail"})
        metrics.timing(EXECUTION_TIME, 0.2, TAGS)
        found = scrape(metrics.port)
    finally:
        metrics.close()

    job = (("function", "app.tasks:send_email"), ("queue", "mail"))
    assert 3 == found["goose_jobs_processed_total", job]
    assert 1 == found["goose_jobs_dead_total", (*job, ("reason", "crashed"))]
    assert 7 == found["goose_queue_size", (("queue", "mail"), ("state", "ready"))]
    assert 1.5 == found["goose_queue_oldest_seconds", (("queue", "mail"),)]
    assert 1 == found["goose_job_execution_time_seconds_count", job]
    assert 0.2 == found["goose_job_execution_time_seconds_sum", job]
    assert 0 == found["goose_job_execution_time_seconds_bucket", (job[0], ("le", "0.1"), job[1])]
    assert 1 == found["goose_job_execution_time_seconds_bucket", (job[0], ("le", "0.25"), job[1])]


def test_every_measure_is_declared_before_its_first_value() -> None:
    """A registry of a fresh backend has each measure of the catalogue with its help."""
    registry = CollectorRegistry()
    Prometheus(registry=registry)

    helps = {family.documentation for family in registry.collect()}
    assert {measure.help for measure in MEASURES.values()} <= helps


def test_an_unknown_measure_is_made_at_its_first_value() -> None:
    """A plugin's own names work, with the tags of the first call as labels."""
    registry = CollectorRegistry()
    metrics = Prometheus(registry=registry)
    metrics.increment("my.cache-hits", 1, {"b": "2", "a": "1"})
    metrics.timing("my.wait", 3, {})

    assert 1 == value(registry, "goose_my_cache_hits_total", a="1", b="2")
    assert 3 == value(registry, "goose_my_wait_seconds_sum")


def test_tags_that_do_not_fit_do_no_harm() -> None:
    """A missing tag is empty and a superfluous one left out, whatever their order."""
    registry = CollectorRegistry()
    metrics = Prometheus(registry=registry)
    metrics.increment(PROCESSED, 1, {"function": "f", "queue": "q"})
    metrics.increment(PROCESSED, 1, {"queue": "q", "function": "f", "extra": "x"})
    metrics.increment(RECOVERED, 1, {})

    assert 2 == value(registry, "goose_jobs_processed_total", queue="q", function="f")
    assert 1 == value(registry, "goose_jobs_recovered_total", queue="")


def test_past_the_bound_functions_are_counted_together(caplog: pytest.LogCaptureFixture) -> None:
    """Known functions keep their series, new ones share `other`, and it is said once."""
    registry = CollectorRegistry()
    metrics = Prometheus(registry=registry, max_series=10)
    for number in range(1000):
        metrics.increment(PROCESSED, 1, {"queue": "q", "function": f"f{number}"})
    metrics.increment(PROCESSED, 1, {"queue": "q", "function": "f3"})

    assert 2 == value(registry, "goose_jobs_processed_total", queue="q", function="f3")
    assert 990 == value(registry, "goose_jobs_processed_total", queue="q", function="other")
    assert 1 == caplog.text.count("new functions are counted as 'other'")


def test_queues_without_end_are_bounded_too() -> None:
    """Where folding the function is not enough, everything new shares one series."""
    registry = CollectorRegistry()
    metrics = Prometheus(registry=registry, max_series=10)
    for number in range(1000):
        metrics.increment(PROCESSED, 1, {"queue": f"q{number}", "function": f"f{number}"})

    (family,) = [one for one in registry.collect() if one.name == "goose_jobs_processed"]
    samples = [one for one in family.samples if one.name.endswith("_total")]
    assert 21 == len(samples)
    assert 1000 == sum(one.value for one in samples)


def test_threads_share_series() -> None:
    """Counts of several threads add up, first calls included."""
    registry = CollectorRegistry()
    metrics = Prometheus(registry=registry)

    def count() -> None:
        for number in range(500):
            metrics.timing(LATENCY, 1, {"queue": "q", "function": str(number % 7)})
            metrics.increment("own", 1, {})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [
        value(
            registry, "goose_job_latency_seconds_count", queue="q", function=str(number), origin=""
        )
        for number in range(7)
    ]
    assert 2000 == sum(count or 0 for count in counts)
    assert 2000 == value(registry, "goose_own_total")


def test_a_port_in_use_is_named() -> None:
    """The error says which port, why, and what to write instead; nothing stays registered."""
    registry = CollectorRegistry()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}: Address already in use; give another"):
            Prometheus(f"prometheus://127.0.0.1:{port}", registry=registry)

    assert [] == list(registry.collect())


def test_close_frees_port_and_registry() -> None:
    """After close the same URL and registry can be used again; closing twice does nothing."""
    registry = CollectorRegistry()
    first = Prometheus("prometheus://127.0.0.1:0", registry=registry)
    port = first.port
    first.close()
    first.close()
    second = Prometheus(f"prometheus://127.0.0.1:{port}", registry=registry)

    assert port == second.port
    assert None is first.port
    second.close()


def test_a_forked_child_lets_the_port_go() -> None:
    """A child of a worker neither serves nor keeps the port, and can close what it inherited."""
    metrics = Prometheus("prometheus://127.0.0.1:0", registry=CollectorRegistry())
    port = metrics.port
    gate, opened = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        metrics.close()
        os.close(opened)
        os.read(gate, 1)
        os._exit(0)
    metrics.close()
    again = Prometheus(f"prometheus://127.0.0.1:{port}", registry=CollectorRegistry())
    again.close()
    os.close(opened)
    os.close(gate)

    assert port == again.port or again.port is None
    assert (child, 0) == os.waitpid(child, 0)


def test_the_same_registry_twice_is_refused() -> None:
    """A second backend in one registry is a ConfigError that says what to do."""
    registry = CollectorRegistry()
    Prometheus(registry=registry)

    with pytest.raises(ConfigError, match="close the other Prometheus first"):
        Prometheus(registry=registry)


def test_without_a_port_nothing_is_served() -> None:
    """A bare scheme only fills the registry."""
    assert Prometheus(registry=CollectorRegistry()).port is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("prometheus://:70000", "out of range"),
        ("prometheus://:9191/metrics", "without path or options"),
        ("prometheus://:9191?a=1", "without path or options"),
        ("http://:9191", "write prometheus://host:port"),
    ],
)
def test_a_wrong_url_is_refused(url: str, says: str) -> None:
    """Each mistake in the URL is a ConfigError that says what is expected."""
    with pytest.raises(ConfigError, match=says):
        Prometheus(url)
