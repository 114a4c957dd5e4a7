"""Timing log: one record per execution, with its duration and its end."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest

from goose.errors import Skip
from goose.jobs import Job
from goose.middleware.base import Execution, Middleware, compose
from goose.middleware.timing_log import TimingLog, timing_log


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def run(fn: object, *middleware: Middleware) -> None:
    compose(middleware, fn)(Execution(Job("j1", "app:fn"), ("secret",), {}, {}))  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


def test_the_duration_is_logged(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Text and attributes tell seconds and outcome; arguments are not there."""

    def fn(secret: str) -> None:
        clock.now += 0.25

    run(fn, TimingLog(clock=clock))
    (record,) = caplog.records
    assert "app:fn took 0.250 s (returned)" == record.getMessage()
    assert (logging.INFO, 0.25, "returned", "j1") == (
        record.levelno,
        record.__dict__["seconds"],
        record.__dict__["outcome"],
        record.__dict__["job_id"],
    )
    assert "secret" not in str(record.__dict__)


@pytest.mark.parametrize("error", [ValueError("secret"), Skip("secret"), SystemExit()])
def test_an_error_is_named_and_passes(
    clock: Clock, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """The record has the class of what was raised, without its message, and the error goes on."""

    def fn(secret: str) -> None:
        raise error

    with pytest.raises(type(error)):
        run(fn, TimingLog(clock=clock))
    assert f"app:fn took 0.000 s ({type(error).__name__})" == caplog.records[0].getMessage()


def test_a_swallowed_error_is_told_apart(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """When middleware further inside ended an error the outcome says so."""

    def fn(secret: str) -> None:
        raise ValueError

    run(fn, TimingLog(clock=clock), lambda execution: suppress(ValueError))
    assert "app:fn took 0.000 s (swallowed)" == caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("seconds", "slow", "level"),
    [
        (1.9, 2.0, logging.DEBUG),
        (2.0, 2.0, logging.WARNING),
        (9e9, None, logging.DEBUG),
    ],
)
def test_slow_executions_are_warnings(
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    seconds: float,
    slow: float | None,
    level: int,
) -> None:
    """From the threshold on the level is WARNING; without one it never is."""

    def fn(secret: str) -> None:
        clock.now += seconds

    run(fn, TimingLog(logging.DEBUG, slow=slow, clock=clock))
    assert level == caplog.records[0].levelno
    assert (level == logging.WARNING) == ("slow: 2 s or more" in caplog.text)


def test_the_ready_made_one_works(caplog: pytest.LogCaptureFixture) -> None:
    """The module's own instance can be named in configuration."""
    run(lambda secret: None, timing_log)

    assert "(returned)" in caplog.text
