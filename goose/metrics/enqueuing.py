"""Counts what clients enqueue: how many jobs, how many in vain, and how long callers waited."""

from __future__ import annotations

import atexit
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from goose.jobs import Job
from goose.metrics import base as names
from goose.metrics import connect
from goose.metrics.base import Metrics
from goose.metrics.bounds import MAX_SERIES, OTHER
from goose.metrics.detached import detached
from goose.metrics.fanout import Fanout


class Meter:
    """Counts for the clients of one `goose.sending.Root`. Thread-safe.

    Args:
        backends: Objects, URLs or ``module:name``; what is made from the latter two is closed
            by `close`, and when the program ends.

    Raises:
        ConfigError: One cannot be had.
    """

    def __init__(self, backends: Sequence[str | Metrics]) -> None:
        connected = [connect(backend) for backend in backends]
        guarded = [detached(backend) for backend in connected]
        self._metrics = Fanout(guarded)
        self._own = Fanout(
            [
                guard
                for spec, made, guard in zip(backends, connected, guarded, strict=True)
                if isinstance(spec, str) or guard is not made
            ]
        )
        self._tags: dict[tuple[str, str], dict[str, str]] = {}
        # A script that enqueues and ends would take its last numbers with it.
        atexit.register(self._own.close)

    def stored(self, jobs: Iterable[Job[Any]], seconds: float) -> None:
        """Count *jobs*, stored by one call that took *seconds*."""
        counts = Counter((job.queue, job.fn) for job in jobs)
        for key, count in counts.items():
            self._metrics.increment(names.ENQUEUED, count, self._tags_of(key))
        for key in list(counts)[:1]:
            self._metrics.timing(names.ENQUEUE_TIME, seconds, self._tags_of(key))

    def existing(self, jobs: Iterable[Job[Any]]) -> None:
        """Count *jobs*, which were there already and are the answer to an enqueue."""
        for key, count in Counter((job.queue, job.fn) for job in jobs).items():
            self._metrics.increment(names.EXISTING, count, self._tags_of(key))

    def failed(self, jobs: Mapping[Job[Any], str]) -> None:
        """Count *jobs* that were not confirmed, with what is known of each."""
        counts = Counter((job.queue, job.fn, known) for job, known in jobs.items())
        for (queue, function, known), count in counts.items():
            if known != "stored":
                tags = {**self._tags_of((queue, function)), "outcome": known}
                self._metrics.increment(names.ENQUEUE_FAILED, count, tags)

    def close(self) -> None:
        """Close the backends that were made from names."""
        atexit.unregister(self._own.close)
        self._own.close()

    def _tags_of(self, key: tuple[str, str]) -> dict[str, str]:
        tags = self._tags.get(key)
        if tags is None:
            if len(self._tags) >= MAX_SERIES:
                key = (key[0], OTHER)
            tags = self._tags.setdefault(key, {"queue": key[0], "function": key[1]})
        return tags
