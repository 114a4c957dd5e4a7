"""Fan-out: every backend is called, and none can hurt a job."""

from __future__ import annotations

import pytest

from goose.metrics.base import Metrics, Tags
from goose.metrics.fanout import QUIET, Fanout


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, float, Tags]] = []
        self.closed = 0

    def increment(self, name: str, value: int, tags: Tags) -> None:
        self.calls.append(("increment", name, value, tags))

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        self.calls.append(("gauge", name, value, tags))

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        self.calls.append(("timing", name, seconds, tags))

    def close(self) -> None:
        self.closed += 1


class Broken:
    """Raises from every method."""

    def increment(self, name: str, value: float, tags: Tags) -> None:
        raise ConnectionError("secret-free reason")

    gauge = timing = increment

    def close(self) -> None:
        raise ConnectionError("at close")


class Bare:
    """Has nothing to close."""

    def increment(self, name: str, value: float, tags: Tags) -> None: ...

    gauge = timing = increment


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def call_all(metrics: Metrics) -> None:
    metrics.increment("a", 1, {})
    metrics.gauge("b", 2.0, {"x": "y"})
    metrics.timing("c", 3.0, {})


def test_every_backend_gets_every_number() -> None:
    """All verbs reach all backends with their values."""
    one, other = Recorder(), Recorder()
    call_all(Fanout([one, other]))

    expected = [
        ("increment", "a", 1, {}),
        ("gauge", "b", 2.0, {"x": "y"}),
        ("timing", "c", 3.0, {}),
    ]
    assert expected == one.calls == other.calls


def test_without_backends_it_is_false_and_does_nothing() -> None:
    """The hot path can ask before it measures."""
    assert not Fanout()
    assert Fanout([Recorder()])
    call_all(Fanout())
    assert isinstance(Fanout(), Metrics)


def test_what_a_backend_raises_stays_here(caplog: pytest.LogCaptureFixture) -> None:
    """The others are called all the same, and the failures are counted by class name."""
    one = Recorder()
    metrics = Fanout([Broken(), one, Broken()])
    call_all(metrics)

    assert 3 == len(one.calls)
    assert [("Broken", 3), ("Recorder", 0), ("Broken", 3)] == [
        (found.backend, found.failures) for found in metrics.statistics()
    ]
    assert 2 == len(caplog.records)


def test_failures_are_logged_once_then_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The first has its traceback; later ones come as a number, at most once a minute."""
    clock = Clock()
    metrics = Fanout([Broken()], clock=clock)
    for _ in range(100):
        call_all(metrics)
    (first,) = caplog.records
    assert first.exc_info is not None
    assert "Broken raised; jobs are not affected" in first.getMessage()

    clock.now += QUIET - 1
    metrics.increment("a", 1, {})
    assert 1 == len(caplog.records)
    clock.now += 1
    metrics.increment("a", 1, {})
    metrics.increment("a", 1, {})
    assert [
        "metrics backend Broken raised 301 more times, last: ConnectionError: secret-free reason"
    ] == [record.getMessage() for record in caplog.records[1:]]


def test_close_closes_those_that_can_be() -> None:
    """Each backend's close is called once; one that raises or has none stops nothing."""

    one = Recorder()
    Fanout([Broken(), Bare(), one]).close()
    assert 1 == one.closed


def test_an_interrupt_is_not_swallowed() -> None:
    """What is no Exception, like KeyboardInterrupt, is not a backend's failure."""

    class Interrupted(Recorder):
        def increment(self, name: str, value: int, tags: Tags) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Fanout([Interrupted()]).increment("a", 1, {})
