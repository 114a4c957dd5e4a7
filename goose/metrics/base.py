"""The contract between Goose and whatever counts for you, and the names it counts by.

A backend is any object with the three methods of `Metrics`. Goose survives whatever they
raise: a broken backend is logged once and costs jobs nothing (see `goose.metrics.fanout`). In
a worker one thread calls them, never while a job's own code runs, and one that is slow loses
numbers instead of holding jobs up (see `goose.metrics.detached`), unless it promises by the
attribute ``never_blocks = True`` that it is thread-safe and quick: then it is called at once,
from whichever thread has something to count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

Tags = Mapping[str, str]


@runtime_checkable
class Metrics(Protocol):
    """Receives numbers; units are in the names below."""

    def increment(self, name: str, value: int, tags: Tags) -> None:
        """Count *value* more of *name*."""
        ...

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        """Say that *name* is *value* now."""
        ...

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        """Record one duration of *seconds* under *name*."""
        ...


# Counters, tagged with queue and function unless said otherwise.
PROCESSED = "jobs.processed"
"""Executions that ended, however they ended."""
SUCCEEDED = "jobs.succeeded"
FAILED = "jobs.failed"
"""Executions that ended in an error, a timeout included."""
RETRIED = "jobs.retried"
DEAD = "jobs.dead"
"""Also tagged with the reason."""
POSTPONED = "jobs.postponed"
SKIPPED = "jobs.skipped"
CANCELLED = "jobs.cancelled"
WAITED = "jobs.waited"
"""Times a job went back because a limit, or a job it has to wait for, let it start later."""
RECOVERED = "jobs.recovered"
"""Orphans taken over from dead sessions; tagged with queue only."""
CRASHED = "jobs.crashed"
"""Executions blamed for the death of their process; tagged with queue only."""
UNDECODABLE = "jobs.undecodable"
"""Bodies buried because they are not jobs; tagged with queue only."""
DEFERRED = "jobs.deferred"
"""Jobs left for a worker with newer code; tagged with queue and function."""
LOST_SETTLES = "jobs.lost_settles"
"""Settles refused because the delivery was no longer ours; tagged with queue only."""
STRAYS = "jobs.strays"
"""Loans found by the audit whose session never existed; must stay 0; tagged with queue only."""
ENQUEUED = "jobs.enqueued"
"""Counted by clients, once the broker has confirmed."""
EXISTING = "jobs.existing"
"""Counted by clients: enqueues that were answered with a unique job that was there already."""
ENQUEUE_FAILED = "jobs.enqueue_failed"
"""Counted by clients; also tagged with the outcome, ``not_stored`` or ``unknown``."""
RESULTS_LOST = "results.lost"
"""Results that could not be kept: no JSON, or too large."""
FLOW_SENT = "flow.sent"
"""Jobs whose parents have ended, and that were put on the broker for it."""
FLOW_CANCELLED = "flow.cancelled"
"""Jobs that will not run because one they depend on failed."""
SESSIONS_LOST = "sessions.lost"
"""Times a worker found itself declared dead; no tags."""
PROCESS_DEATHS = "worker.deaths"
"""Worker processes that ended without being asked to; tagged with the cause."""
BROKER_ERRORS = "broker.errors"
"""Calls of a worker's own duties that the broker failed; tagged with the step."""
BROKER_RECONNECTS = "broker.reconnects"
"""Times such a duty worked again after it had failed; tagged with the step."""
OUTBOX_MOVED = "outbox.moved"
"""Jobs a relay has moved from an outbox to the broker; tagged with queue only."""
OUTBOX_REFUSED = "outbox.refused"
"""Times the broker refused a job of an outbox; tagged with queue only."""
CIRCUIT_OPENED = "circuit.opened"
"""Times a worker began to leave a queue alone, or went on after a probe; tagged with queue only."""

CRON_FIRED = "cron.fired"
"""Instants whose job is enqueued; tagged with the entry."""
CRON_MISSED = "cron.missed"
"""Instants that passed unfired and are left out, by the entry's policy; tagged with the entry."""
BATCH_STATUS = "batch.status"
"""Batches whose members have all ended, or ended otherwise after a replay; tagged with the status."""
BATCH_MEMBERS = "batch.members"
"""Members of batches that have ended; tagged with their ending."""

# Timings, in seconds, tagged with queue and function.
EXECUTION_TIME = "job.execution_time"
LATENCY = "job.latency"
"""From the moment a job was due to its start; also tagged with the origin."""
ENQUEUE_TIME = "job.enqueue_time"
"""How long a client waited for the broker's confirmation, once for each call."""
CRON_LATENESS = "cron.lateness"
"""From an instant to the enqueue of its job; tagged with the entry only."""
BATCH_COMPLETION_TIME = "batch.completion_time"
"""From the opening of a batch to the end of its last member; tagged with the status only."""

# Gauges.
QUEUE_SIZE = "queue.size"
"""Jobs, tagged with queue and state."""
QUEUE_OLDEST = "queue.oldest"
"""Seconds the longest waiting ready job has waited, tagged with queue."""
OUTBOX_SIZE = "outbox.size"
"""Jobs that wait in an outbox, tagged with queue and state, ``waiting`` or ``refused``."""
OUTBOX_OLDEST = "outbox.oldest"
"""Seconds since the oldest of them was inserted, tagged with queue."""
CIRCUIT_OPEN = "circuit.open"
"""Worker processes that leave a queue alone; tagged with queue."""
BROKER_UP = "broker.up"
"""Whether the broker answered when the queues were last measured: 1 or 0; no tags."""
PROCESSES = "worker.processes"
"""Worker processes that work; no tags."""
SERVING = "worker.serving"
"""Worker processes that take jobs from a queue; tagged with queue."""
SLOTS = "worker.slots"
"""Jobs that can run at once; tagged with the kind, ``sync`` or ``async``."""
BUSY = "worker.busy"
"""Jobs that run; tagged with the kind."""
HELD = "worker.held"
"""Jobs fetched and not started; no tags."""
IN_FLIGHT = "worker.in_flight"
"""Jobs lent to the worker: held, running, or not settled yet; no tags."""
WINDOW = "worker.window"
"""Jobs the worker would hold ahead; no tags."""
