"""Several metrics backends as one that cannot fail.

The engine counts through a `Fanout`. It calls each backend in turn; what one raises stops
neither the others nor the job. The first error of a backend is logged with its traceback,
later ones as a number, at most once a minute, so that a backend which is down for a day
leaves a readable log.

A `Fanout` of nothing is false, so that the hot path can leave out the measuring as well:
``if metrics: metrics.timing(...)``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from goose.metrics.base import Metrics, Tags

logger = logging.getLogger("goose.metrics")

QUIET = 60.0
"""Seconds between two log records about one failing backend."""


@dataclass(frozen=True, slots=True)
class BackendStatistics:
    """How one backend fares."""

    backend: str
    """Name of its class."""
    failures: int
    """Calls that raised."""


class Fanout:
    """Passes every number to each of *backends*; what they raise goes no further.

    Thread-safe if they are. The caller's thread runs them, so none may block.

    Args:
        backends: In the order they are called; none at all makes this false.
        clock: Seconds, monotonic; for tests.
    """

    def __init__(
        self, backends: Sequence[Metrics] = (), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._guards = tuple(_Guard(backend, clock) for backend in backends)

    def __bool__(self) -> bool:
        return bool(self._guards)

    def increment(self, name: str, value: int, tags: Tags) -> None:
        """Count *value* more of *name* at every backend."""
        for guard in self._guards:
            try:
                guard.backend.increment(name, value, tags)
            except Exception as error:  # noqa: BLE001 - whatever it raises, jobs go on
                guard.failed(error)

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        """Say at every backend that *name* is *value* now."""
        for guard in self._guards:
            try:
                guard.backend.gauge(name, value, tags)
            except Exception as error:  # noqa: BLE001 - whatever it raises, jobs go on
                guard.failed(error)

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        """Record one duration of *seconds* at every backend."""
        for guard in self._guards:
            try:
                guard.backend.timing(name, seconds, tags)
            except Exception as error:  # noqa: BLE001 - whatever it raises, jobs go on
                guard.failed(error)

    def timings(self, name: str, seconds: Sequence[float], tags: Tags) -> None:
        """Record several durations at every backend: in one call where it has ``timings``."""
        for guard in self._guards:
            try:
                if guard.many is not None:
                    guard.many(name, seconds, tags)
                else:
                    for one in seconds:
                        guard.backend.timing(name, one, tags)
            except Exception as error:  # noqa: BLE001 - whatever it raises, jobs go on
                guard.failed(error)

    def counted(self, jobs: int) -> None:
        """Say that all about *jobs* more jobs has been counted, to backends that have ``counted``."""
        for guard in self._guards:
            if guard.counted is not None:
                try:
                    guard.counted(jobs)
                except Exception as error:  # noqa: BLE001 - whatever it raises, jobs go on
                    guard.failed(error)

    def close(self) -> None:
        """Close the backends that have a ``close``; may be called twice if they allow it."""
        for guard in self._guards:
            close = getattr(guard.backend, "close", None)
            if close is None:
                continue
            try:
                close()
            except Exception as error:  # noqa: BLE001 - whatever it raises, jobs go on
                guard.failed(error)

    def statistics(self) -> tuple[BackendStatistics, ...]:
        """Return how each backend fares, in their order."""
        return tuple(BackendStatistics(guard.name, guard.failures) for guard in self._guards)


class _Guard:
    """One backend, and what is known of its failures."""

    def __init__(self, backend: Metrics, clock: Callable[[], float]) -> None:
        self.backend = backend
        self.many: Callable[[str, Sequence[float], Tags], None] | None = getattr(
            backend, "timings", None
        )
        self.counted: Callable[[int], None] | None = getattr(backend, "counted", None)
        # The class only: a repr may hold the address or a password.
        self.name = type(backend).__name__
        self.failures = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._told = 0
        self._quiet_until: float | None = None

    def failed(self, error: Exception) -> None:
        with self._lock:
            self.failures += 1
            now = self._clock()
            if self._quiet_until is not None and now < self._quiet_until:
                return
            first = self._quiet_until is None
            self._quiet_until = now + QUIET
            count, self._told = self.failures - self._told, self.failures
        if first:
            logger.warning(
                "metrics backend %s raised; jobs are not affected", self.name, exc_info=error
            )
        else:
            logger.warning(
                "metrics backend %s raised %d more times, last: %s: %s",
                self.name,
                count,
                type(error).__name__,
                error,
            )
