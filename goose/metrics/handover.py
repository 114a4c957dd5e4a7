"""A worker process's numbers, gathered for its supervisor.

The supervisor of several processes shows their numbers as one (`goose.metrics.aggregate`). A
`Handover` is the backend inside each process: it adds up what is counted, and `hand_over`
passes on what has changed since the last time. What is passed on is a change, never a total:
a supervisor that adds up changes has counters that no crash of a process can turn back, and a
process that is killed takes with it only what it counted since it last handed over.

That is bounded by jobs, not only by time: however fast they are, and however seldom the thread
that hands over ten times a second gets its turn, whoever counts a batch of jobs hands over by
itself once `AHEAD` of them wait. What a kill can take is these, and the batch that the broker
was just told of.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from goose.metrics.base import Tags
from goose.metrics.bounds import Bounds
from goose.metrics.catalogue import BUCKETS, Kind, measure_of

Change: TypeAlias = tuple[Kind, str, dict[str, str], Any]
"""Kind, name, tags, and what changed: a count, a gauge's value, or a sum and counts by bucket."""

CHUNK = 200
"""Changes in one message at most, which keeps it well below what a socket holds."""
AHEAD = 100
"""Jobs that may be counted and not handed over. Source: a message costs both ends together a few
hundred microseconds, which a hundred jobs share."""


class Handover:
    """Adds up numbers until they are handed over. Thread-safe; nothing blocks.

    Args:
        on_many: Called, by whoever counts, when `AHEAD` jobs wait to be handed over.
    """

    never_blocks = True

    def __init__(self, on_many: Callable[[], object] = lambda: None) -> None:
        self._on_many = on_many
        self._ahead = 0
        self._handing_over = threading.Lock()
        self._lock = threading.Lock()
        self._bounds: dict[tuple[str, Kind], tuple[Bounds, tuple[str, ...]]] = {}
        self._counts: dict[tuple[str, tuple[str, ...]], int] = {}
        self._timings: dict[tuple[str, tuple[str, ...]], list[Any]] = {}
        self._gauges: dict[tuple[str, tuple[str, ...]], float] = {}
        self._told: dict[tuple[str, tuple[str, ...]], float] = {}

    def increment(self, name: str, value: int, tags: Tags) -> None:
        """Count *value* more of *name*."""
        key = (name, self._values(name, "counter", tags))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + value

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        """Say that *name* is *value* now."""
        key = (name, self._values(name, "gauge", tags))
        with self._lock:
            if self._told.get(key) != value:
                self._gauges[key] = value
            else:
                self._gauges.pop(key, None)

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        """Record one duration of *seconds* under *name*."""
        self.timings(name, (seconds,), tags)

    def timings(self, name: str, seconds: Sequence[float], tags: Tags) -> None:
        """Record several durations at once."""
        key = (name, self._values(name, "timing", tags))
        buckets = [bisect_left(BUCKETS, one) for one in seconds]
        with self._lock:
            timing = self._timings.get(key)
            if timing is None:
                timing = self._timings[key] = [0.0, [0] * (len(BUCKETS) + 1)]
            timing[0] += sum(seconds)
            counts = timing[1]
            for bucket in buckets:
                counts[bucket] += 1

    def counted(self, jobs: int) -> None:
        """Take note that all there is to say about *jobs* more jobs has been counted."""
        self._ahead += jobs
        if self._ahead >= AHEAD:
            self._on_many()

    def hand_over(self, send: Callable[[Sequence[Change]], bool]) -> bool:
        """Pass on what has changed; say whether all of it is on its way.

        What *send* refuses is kept for the next time.
        """
        with self._handing_over:  # one change after the other, as they came
            return self._hand_over(send)

    def _hand_over(self, send: Callable[[Sequence[Change]], bool]) -> bool:
        self._ahead = 0
        with self._lock:
            if not (self._counts or self._timings or self._gauges):
                return True
            counts, self._counts = self._counts, {}
            timings, self._timings = self._timings, {}
            gauges, self._gauges = self._gauges, {}
            self._told.update(gauges)
        found: tuple[tuple[Kind, Mapping[tuple[str, tuple[str, ...]], Any]], ...] = (
            ("counter", counts),
            ("timing", timings),
            ("gauge", gauges),
        )
        changes: list[Change] = [
            (kind, name, self._tags(name, kind, values), what)
            for kind, changed in found
            for (name, values), what in changed.items()
        ]
        for start in range(0, len(changes), CHUNK):
            if not send(changes[start : start + CHUNK]):
                self._keep(changes[start:])
                return False
        return True

    def _keep(self, changes: Sequence[Change]) -> None:
        for kind, name, tags, what in changes:
            if kind == "counter":
                self.increment(name, what, tags)
            elif kind == "gauge":
                key = (name, self._values(name, kind, tags))
                with self._lock:
                    self._told.pop(key, None)
                    self._gauges.setdefault(key, what)
            else:
                key = (name, self._values(name, kind, tags))
                with self._lock:
                    ours = self._timings.setdefault(key, [0.0, [0] * len(what[1])])
                    ours[0] += what[0]
                    ours[1] = [one + other for one, other in zip(ours[1], what[1], strict=True)]

    def _values(self, name: str, kind: Kind, tags: Tags) -> tuple[str, ...]:
        try:
            bounds, _ = self._bounds[name, kind]
        except KeyError:
            measure = measure_of(name, kind, tags)
            with self._lock:
                bounds, _ = self._bounds.setdefault((name, kind), (Bounds(measure), measure.tags))
        return bounds.values(tags)

    def _tags(self, name: str, kind: Kind, values: tuple[str, ...]) -> dict[str, str]:
        _, tags = self._bounds[name, kind]
        return dict(zip(tags, values, strict=True))
