"""A backend that is slow keeps that to itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from goose.metrics.base import Tags
from goose.metrics.detached import Detached, detached
from goose.metrics.statsd import StatsD


class Slow:
    """Does nothing until it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.calls: list[tuple[str, float]] = []

    def increment(self, name: str, value: float, tags: Tags) -> None:
        self.may.wait(20)
        self.calls.append((name, value))

    gauge = timing = increment


@pytest.mark.parametrize("kind", ["detached", "statsd"])
def test_an_interrupt_in_the_first_number_silences_nothing(
    struck_start: Callable[[Callable[[], object]], None],
    wait_until: Callable[..., None],
    kind: str,
) -> None:
    """Whether the thread had begun or not: the next number starts one, and there is one only."""
    slow = Slow()
    slow.may.set()
    metrics = Detached(slow) if kind == "detached" else StatsD("statsd://127.0.0.1:9")
    struck_start(lambda: metrics.increment("n", 1, {}))
    metrics.increment("n", 2, {})
    thread = metrics._thread
    assert thread is not None
    assert thread.is_alive()
    if kind == "detached":
        wait_until(lambda: slow.calls[-1:] == [("n", 2)])
    metrics.close()


def test_callers_do_not_wait(wait_until: Callable[..., None]) -> None:
    """A thousand numbers are taken at once, and come in order when the backend goes on."""
    slow = Slow()
    metrics = Detached(slow)
    before = time.monotonic()
    for number in range(1000):
        metrics.increment("n", number, {})
    spent = time.monotonic() - before
    assert [] == slow.calls
    slow.may.set()
    wait_until(lambda: len(slow.calls) == 1000)
    metrics.close()

    assert spent < 1.0
    assert [("n", number) for number in range(1000)] == slow.calls


def test_a_full_line_drops_the_oldest_and_says_so_once(
    wait_until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Memory is bounded; what is dropped is counted."""
    slow = Slow()
    metrics = Detached(slow, line=10)
    for number in range(100):
        metrics.gauge("n", number, {})
    slow.may.set()
    assert metrics.flush(10)

    assert [90.0, 99.0] == [slow.calls[-10][1], slow.calls[-1][1]]
    assert 100 == len(slow.calls) + metrics.dropped
    assert 1 == caplog.text.count("Slow is too slow; numbers are dropped")
    metrics.close()


def test_close_waits_for_what_is_under_way_but_not_for_ever() -> None:
    """A backend that never answers costs a second at the end."""
    slow = Slow()
    metrics = Detached(slow)
    metrics.timing("n", 1.0, {})
    before = time.monotonic()
    metrics.close()

    assert 0.9 < time.monotonic() - before < 10
    assert not metrics.flush(0.0)
    slow.may.set()


def test_what_it_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The thread survives what a backend raises."""

    class Broken(Slow):
        def increment(self, name: str, value: float, tags: Tags) -> None:
            raise OSError("down")

    metrics = Detached(Broken())
    for _ in range(100):
        metrics.increment("n", 1, {})
    assert metrics.flush(10)
    metrics.close()

    assert 1 == caplog.text.count("Broken raised; jobs are not affected")


def test_only_those_that_may_block_get_a_thread() -> None:
    """A backend that promises not to block is called as it is."""
    statsd, slow = StatsD(), Slow()

    assert statsd is detached(statsd)
    wrapped = detached(slow)
    assert isinstance(wrapped, Detached)
    assert slow is wrapped.backend
    assert wrapped is detached(wrapped)
