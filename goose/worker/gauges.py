"""Says how busy a worker process is: its slots, what it holds, what it serves."""

from __future__ import annotations

from goose.metrics import base as names
from goose.metrics.base import Metrics
from goose.worker.engine import Engine


class WorkerGauges:
    """Reports one process's gauges. `step` is called by one thread.

    Args:
        every: Seconds between two reports.
    """

    def __init__(self, engine: Engine, metrics: Metrics, *, every: float) -> None:
        self._engine = engine
        self._metrics = metrics
        self._every = every

    def step(self, now: float) -> float:
        """Report once; return the seconds until the next report."""
        gauge, buffer, config = self._metrics.gauge, self._engine.buffer, self._engine.config
        gauge(names.PROCESSES, 1, {})
        for share in self._engine.fetcher.queues:
            gauge(names.SERVING, 1, {"queue": share.queue})
        slots = {"sync": config.concurrency, "async": config.async_slots}
        for kind, count in slots.items():
            gauge(names.SLOTS, count, {"kind": kind})
            gauge(names.BUSY, buffer.busy(is_async=kind == "async"), {"kind": kind})
        gauge(names.HELD, buffer.held, {})
        gauge(names.IN_FLIGHT, buffer.held + buffer.running + buffer.unsettled, {})
        gauge(names.WINDOW, buffer.window(now), {})
        return self._every
