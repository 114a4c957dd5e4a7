"""The small examples are what they say."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from goose import Execution, Job
from goose.metrics.base import Metrics
from goose.middleware.base import compose


@pytest.fixture(autouse=True)
def on_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(root / "examples")


def test_the_metrics_backend_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A class with three methods is a metrics backend."""
    metrics = importlib.import_module("custom_metrics").PrintMetrics()

    metrics.increment("jobs.processed", 2, {"queue": "mail"})
    metrics.gauge("queue.size", 3.0, {})
    metrics.timing("job.latency", 0.25, {})

    assert isinstance(metrics, Metrics)
    assert [
        "jobs.processed +2 {'queue': 'mail'}",
        "queue.size = 3.0 {}",
        "job.latency took 0.250000 s {}",
    ] == capsys.readouterr().out.splitlines()


def test_the_middleware_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """A generator with one `yield` is a middleware; it sees results and errors."""
    say = importlib.import_module("custom_middleware").say

    def execution(number: str) -> Execution:
        return Execution(Job(id=number, fn="m:int"), (number,), {}, {})

    chain = compose([say], int)
    chain(execution("4"))
    with pytest.raises(ValueError, match="four"):
        chain(execution("four"))

    printed = capsys.readouterr().out.splitlines()
    assert ["m:int begins", "m:int returned 4", "m:int begins"] == printed[:3]
    assert printed[3].startswith("m:int raised ValueError(")
