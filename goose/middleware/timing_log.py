"""Logs how long each execution took, and how it ended.

One record per execution, after it: ``app.tasks:send_email took 0.012 s (returned)``, with
``seconds`` and ``outcome`` as attributes of the record for formatters that write JSON. The
outcome is ``returned``, ``swallowed`` (a middleware inside this one ended an error), or the
class of what was raised; its message and the job's arguments stay out of the log.

`timing_log` is ready made, for ``--middleware goose.middleware.timing_log:timing_log``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from goose.middleware.base import Execution

SLOW = 10.0
"""Seconds from which an execution is slow by default."""


class TimingLog:
    """Middleware that logs each execution's duration. Thread-safe.

    What it measures is everything inside it: put it first to include other middleware.

    Args:
        level: Level of the records.
        slow: Seconds from which a record is a warning instead; None for never.
        logger: Name of the logger.
        clock: Seconds, monotonic; for tests.
    """

    def __init__(
        self,
        level: int = logging.INFO,
        *,
        slow: float | None = SLOW,
        logger: str = "goose.timing",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._level = level
        self._slow = slow
        self._logger = logging.getLogger(logger)
        self._clock = clock

    @contextmanager
    def __call__(self, execution: Execution) -> Generator[None]:
        """Log the duration of what runs inside."""
        started = self._clock()
        try:
            yield
        except BaseException as error:
            self._log(execution, self._clock() - started, type(error).__name__)
            raise
        outcome = "returned" if execution.returned else "swallowed"
        self._log(execution, self._clock() - started, outcome)

    def _log(self, execution: Execution, seconds: float, outcome: str) -> None:
        slow = self._slow is not None and seconds >= self._slow
        level = max(self._level, logging.WARNING) if slow else self._level
        job = execution.job
        self._logger.log(
            level,
            "%s took %.3f s (%s)%s",
            job.fn,
            seconds,
            outcome,
            f", slow: {self._slow:g} s or more" if slow else "",
            extra={
                "job_id": job.id,
                "function": job.fn,
                "queue": job.queue,
                "attempt": job.attempt,
                "seconds": seconds,
                "outcome": outcome,
            },
        )


timing_log = TimingLog()
"""A `TimingLog` with the default options."""
