"""What each of Goose's measures is: kind, unit, tags and one sentence.

The names live in `goose.metrics.base`; this is the table behind them, read by backends
that must declare a measure before its first value (Prometheus) and by the tests that keep
docs/metrics.md true. A backend must also take names that are not here: plugins count too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from goose.metrics import base

Kind = Literal["counter", "timing", "gauge"]

BUCKETS = (
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    900.0,
    3600.0,
)
"""Upper bounds of histograms' buckets, in seconds: a millisecond to an hour."""

_JOB = ("queue", "function")
_QUEUE = ("queue",)
_CRON = ("cron",)
_STATUS = ("status",)
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_]")


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

    @property
    def prometheus(self) -> str:
        """Its name in Prometheus, without the ``_total`` of a counter."""
        name = "goose_" + _NOT_IN_NAMES.sub("_", self.name)
        return name if not self.unit or name.endswith(self.unit) else f"{name}_{self.unit}"

    @property
    def labels(self) -> list[str]:
        """Its tags as Prometheus's labels."""
        return [_NOT_IN_NAMES.sub("_", tag) for tag in self.tags]


def measure_of(name: str, kind: Kind, tags: base.Tags) -> Measure:
    """Return the measure *name*; one that is not in the catalogue has the tags of this call."""
    known = MEASURES.get(name)
    if known is not None and known.kind == kind:
        return known
    return Measure(name, kind, tuple(sorted(tags)), name, "seconds" if kind == "timing" else "")


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(base.PROCESSED, "counter", _JOB, "Executions that ended, however they ended"),
        Measure(base.SUCCEEDED, "counter", _JOB, "Executions that ended well"),
        Measure(base.FAILED, "counter", _JOB, "Executions that ended in an error or timeout"),
        Measure(base.RETRIED, "counter", _JOB, "Failed executions whose job will run again"),
        Measure(base.DEAD, "counter", (*_JOB, "reason"), "Jobs moved to the dead jobs"),
        Measure(base.POSTPONED, "counter", _JOB, "Executions that raised Postpone"),
        Measure(
            base.SKIPPED,
            "counter",
            _JOB,
            "Jobs that ended by Skip, or as a copy of one that was done",
        ),
        Measure(
            base.WAITED, "counter", _JOB, "Times a job went back because it may start only later"
        ),
        Measure(base.CANCELLED, "counter", _JOB, "Jobs that ended because they were cancelled"),
        Measure(base.RECOVERED, "counter", _QUEUE, "Orphans taken over from dead sessions"),
        Measure(base.CRASHED, "counter", _QUEUE, "Executions blamed for their process's death"),
        Measure(base.UNDECODABLE, "counter", _QUEUE, "Bodies buried because they are not jobs"),
        Measure(base.DEFERRED, "counter", _JOB, "Jobs left for a worker with newer code"),
        Measure(
            base.LOST_SETTLES, "counter", _QUEUE, "Settles refused: the loan was no longer ours"
        ),
        Measure(base.STRAYS, "counter", _QUEUE, "Loans whose session never existed; must stay 0"),
        Measure(base.ENQUEUED, "counter", _JOB, "Jobs a client has stored"),
        Measure(
            base.EXISTING, "counter", _JOB, "Enqueues answered with a job that was there already"
        ),
        Measure(
            base.ENQUEUE_FAILED,
            "counter",
            (*_JOB, "outcome"),
            "Jobs the broker did not confirm to a client",
        ),
        Measure(base.RESULTS_LOST, "counter", _JOB, "Results that could not be kept"),
        Measure(base.FLOW_SENT, "counter", _JOB, "Jobs set free by the end of those before them"),
        Measure(
            base.FLOW_CANCELLED, "counter", _JOB, "Jobs cancelled because one before them failed"
        ),
        Measure(base.SESSIONS_LOST, "counter", (), "Times a worker found itself declared dead"),
        Measure(
            base.PROCESS_DEATHS, "counter", ("cause",), "Worker processes that died or were killed"
        ),
        Measure(
            base.BROKER_ERRORS, "counter", ("step",), "Calls of a worker that the broker failed"
        ),
        Measure(
            base.BROKER_RECONNECTS, "counter", ("step",), "Times the broker worked again after that"
        ),
        Measure(base.OUTBOX_MOVED, "counter", _QUEUE, "Jobs moved from an outbox to the broker"),
        Measure(
            base.OUTBOX_REFUSED, "counter", _QUEUE, "Times the broker refused a job of an outbox"
        ),
        Measure(base.CRON_FIRED, "counter", _CRON, "Instants of cron whose job is enqueued"),
        Measure(
            base.CRON_MISSED, "counter", _CRON, "Instants of cron that passed and are left out"
        ),
        Measure(
            base.BATCH_STATUS, "counter", _STATUS, "Batches that ended, by how their members did"
        ),
        Measure(base.BATCH_MEMBERS, "counter", ("ending",), "Members of batches that ended"),
        Measure(
            base.CIRCUIT_OPENED, "counter", _QUEUE, "Times a process stopped taking from a queue"
        ),
        Measure(base.EXECUTION_TIME, "timing", _JOB, "Duration of an execution", "seconds"),
        Measure(
            base.LATENCY,
            "timing",
            (*_JOB, "origin"),
            "From a job being due to its start",
            "seconds",
        ),
        Measure(
            base.ENQUEUE_TIME, "timing", _JOB, "A client's wait for the confirmation", "seconds"
        ),
        Measure(
            base.CRON_LATENESS, "timing", _CRON, "From an instant to its job's enqueue", "seconds"
        ),
        Measure(
            base.BATCH_COMPLETION_TIME,
            "timing",
            _STATUS,
            "From a batch's opening to its last member's end",
            "seconds",
        ),
        Measure(base.QUEUE_SIZE, "gauge", ("queue", "state"), "Jobs in a queue, by state"),
        Measure(
            base.QUEUE_OLDEST, "gauge", _QUEUE, "Wait of the longest waiting ready job", "seconds"
        ),
        Measure(
            base.OUTBOX_SIZE, "gauge", ("queue", "state"), "Jobs that wait in an outbox, by state"
        ),
        Measure(
            base.OUTBOX_OLDEST, "gauge", _QUEUE, "Wait of the oldest job in an outbox", "seconds"
        ),
        Measure(
            base.CIRCUIT_OPEN, "gauge", _QUEUE, "Processes that leave a queue alone after failures"
        ),
        Measure(base.BROKER_UP, "gauge", (), "Whether the broker answered last time: 1 or 0"),
        Measure(base.PROCESSES, "gauge", (), "Worker processes at work"),
        Measure(base.SERVING, "gauge", _QUEUE, "Worker processes that take jobs from a queue"),
        Measure(base.SLOTS, "gauge", ("kind",), "Jobs that can run at once"),
        Measure(base.BUSY, "gauge", ("kind",), "Jobs that run"),
        Measure(base.HELD, "gauge", (), "Jobs fetched and not started"),
        Measure(base.IN_FLIGHT, "gauge", (), "Jobs lent to the worker and not settled yet"),
        Measure(base.WINDOW, "gauge", (), "Jobs the worker would hold ahead"),
    )
}
"""Every measure of `goose.metrics.base`, by name."""
