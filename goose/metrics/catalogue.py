"""What each of Goose's measures is: kind, unit, tags and one sentence.

The names live in `goose.metrics.base`; this is the table behind them, read by backends
that must declare a measure before its first value (Prometheus) and by the tests that keep
docs/metrics.md true. A backend must also take names that are not here: plugins count too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from goose.metrics import base

Kind = Literal["counter", "timing", "gauge"]

_JOB = ("queue", "function")
_QUEUE = ("queue",)


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing Goose counts, times or watches."""

    name: str
    kind: Kind
    tags: tuple[str, ...]
    help: str
    """One sentence without a full stop."""
    unit: str = ""
    """``seconds``, or nothing for a plain count."""


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(base.PROCESSED, "counter", _JOB, "Executions that ended, however they ended"),
        Measure(base.SUCCEEDED, "counter", _JOB, "Executions that ended well"),
        Measure(base.FAILED, "counter", _JOB, "Executions that ended in an error or timeout"),
        Measure(base.RETRIED, "counter", _JOB, "Failed executions whose job will run again"),
        Measure(base.DEAD, "counter", (*_JOB, "reason"), "Jobs moved to the dead jobs"),
        Measure(base.POSTPONED, "counter", _JOB, "Executions that raised Postpone"),
        Measure(base.SKIPPED, "counter", _JOB, "Executions that raised Skip"),
        Measure(base.RECOVERED, "counter", _QUEUE, "Orphans taken over from dead sessions"),
        Measure(base.CRASHED, "counter", _QUEUE, "Executions blamed for their process's death"),
        Measure(base.UNDECODABLE, "counter", _QUEUE, "Bodies buried because they are not jobs"),
        Measure(base.DEFERRED, "counter", _JOB, "Jobs left for a worker with newer code"),
        Measure(
            base.LOST_SETTLES, "counter", _QUEUE, "Settles refused: the loan was no longer ours"
        ),
        Measure(base.STRAYS, "counter", _QUEUE, "Loans whose session never existed; must stay 0"),
        Measure(base.SESSIONS_LOST, "counter", (), "Times a worker found itself declared dead"),
        Measure(base.EXECUTION_TIME, "timing", _JOB, "Duration of an execution", "seconds"),
        Measure(base.LATENCY, "timing", _JOB, "From a job being ready to its start", "seconds"),
        Measure(base.QUEUE_SIZE, "gauge", ("queue", "state"), "Jobs in a queue, by state"),
        Measure(
            base.QUEUE_OLDEST, "gauge", _QUEUE, "Wait of the longest waiting ready job", "seconds"
        ),
    )
}
"""Every measure of `goose.metrics.base`, by name."""
