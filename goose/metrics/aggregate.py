"""Numbers of several processes as one, in the text that Prometheus reads.

A supervisor's `Aggregate` takes the changes its processes hand over. Counts and histograms
are added up and never go down, whatever becomes of a process. A gauge is the sum of what each
process said last, for as long as that process lives. What a supervisor counts itself comes in
by the three methods of every backend.

Measures that functions make themselves with prometheus-client come as snapshots of a process's
own registry. Their counters and histograms are added up too, over the processes that have
ended as well; a gauge is shown once for each process, under the label ``process``.

No file is shared between processes and no package is needed.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from goose.metrics.base import Tags
from goose.metrics.catalogue import BUCKETS, MEASURES, Kind, Measure, measure_of
from goose.metrics.handover import Change

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OWN = "supervisor"
"""Source of what the supervisor counts itself."""

Values: TypeAlias = tuple[str, ...]
Sample: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and its labels."""
Foreign: TypeAlias = Sequence[Any]
"""Families as ``[name, type, help, [[sample, labels, value], …]]``."""


class Aggregate:
    """Adds up. Thread-safe; nothing blocks."""

    never_blocks = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measures: dict[tuple[str, Kind], Measure] = {
            (measure.name, measure.kind): measure for measure in MEASURES.values()
        }
        self._counts: dict[tuple[str, Values], int] = {}
        self._timings: dict[tuple[str, Values], list[Any]] = {}
        self._gauges: dict[tuple[str, Values], dict[str, float]] = {}
        self._foreign: dict[str, Foreign] = {}
        self._ended: dict[Sample, float] = {}

    # --- what comes in -------------------------------------------------------------------

    def increment(self, name: str, value: int, tags: Tags) -> None:
        """Count *value* more of *name*."""
        self.add(OWN, [("counter", name, dict(tags), value)])

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        """Say that *name* is *value* now."""
        self.add(OWN, [("gauge", name, dict(tags), value)])

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        """Record one duration of *seconds* under *name*."""
        counts = [int(seconds <= bound) for bound in (*BUCKETS, math.inf)]
        first = counts.index(1)
        counts[first + 1 :] = [0] * (len(counts) - first - 1)
        self.add(OWN, [("timing", name, dict(tags), (seconds, counts))])

    def add(self, source: str, changes: Iterable[Change]) -> None:
        """Take the *changes* that process *source* handed over."""
        with self._lock:
            for kind, name, tags, what in changes:
                measure = self._measures.get((name, kind))
                if measure is None:
                    measure = self._measures[name, kind] = measure_of(name, kind, tags)
                key = (name, tuple([str(tags.get(tag, "")) for tag in measure.tags]))
                if kind == "counter":
                    self._counts[key] = self._counts.get(key, 0) + what
                elif kind == "gauge":
                    self._gauges.setdefault(key, {})[source] = what
                else:
                    timing = self._timings.setdefault(key, [0.0, [0] * len(what[1])])
                    timing[0] += what[0]
                    timing[1] = [one + more for one, more in zip(timing[1], what[1], strict=True)]

    def replace_gauges(self, names: Iterable[str]) -> None:
        """Forget what the supervisor itself said of these gauges: new values follow."""
        gone = set(names)
        with self._lock:
            for (name, _), said in self._gauges.items():
                if name in gone:
                    said.pop(OWN, None)

    def foreign(self, source: str, families: Foreign) -> None:
        """Take what process *source* has in a registry of its own, all of it."""
        with self._lock:
            self._foreign[source] = families

    def forget(self, source: str) -> None:
        """Process *source* has ended: its gauges go, its counts stay."""
        with self._lock:
            for said in self._gauges.values():
                said.pop(source, None)
            for _, kind, _, samples in self._foreign.pop(source, ()):
                if kind in _ADDED_UP:
                    for sample in samples:
                        key = _sample(sample)
                        self._ended[key] = self._ended.get(key, 0.0) + sample[2]

    # --- what goes out -------------------------------------------------------------------

    def gauges(self) -> list[tuple[str, float, dict[str, str]]]:
        """Return every gauge's sum over the processes, with its tags."""
        with self._lock:
            return [
                (name, sum(said.values()), self._tags(name, "gauge", values))
                for (name, values), said in self._gauges.items()
                if said
            ]

    def text(self) -> str:
        """Return everything in Prometheus's text format."""
        lines: list[str] = []
        with self._lock:
            for measure in self._measures.values():
                lines += _head(measure.prometheus, measure.kind, measure.help)
                lines += self._samples(measure)
            lines += self._foreign_lines()
        return "\n".join(lines) + "\n"

    def _tags(self, name: str, kind: Kind, values: Values) -> dict[str, str]:
        return dict(zip(self._measures[name, kind].tags, values, strict=True))

    def _samples(self, measure: Measure) -> Iterable[str]:
        name, labels = measure.prometheus, measure.labels
        if measure.kind == "counter":
            counts = {values: n for (of, values), n in self._counts.items() if of == measure.name}
            # A counter without tags has one series, known before anything is counted.
            for values, count in (counts or ({} if measure.tags else {(): 0})).items():
                yield f"{name}_total{_labels(zip(labels, values, strict=True))} {count}"
        elif measure.kind == "gauge":
            for (of, values), said in self._gauges.items():
                if of == measure.name and said:
                    shown = _labels(zip(labels, values, strict=True))
                    yield f"{name}{shown} {_number(sum(said.values()))}"
        else:
            for (of, values), (total, counts) in self._timings.items():
                if of == measure.name:
                    yield from _histogram(
                        name, list(zip(labels, values, strict=True)), total, counts
                    )

    def _foreign_lines(self) -> Iterable[str]:
        heads: dict[str, tuple[str, str]] = {}
        added: dict[str, dict[Sample, float]] = {}
        for source, families in self._foreign.items():
            for name, kind, text, samples in families:
                heads.setdefault(name, (kind, text))
                found = added.setdefault(name, {})
                for sample in samples:
                    key = _sample(sample)
                    if kind in _ADDED_UP:
                        found[key] = found.get(key, self._ended.get(key, 0.0)) + sample[2]
                    else:
                        found[key[0], (*key[1], ("process", source))] = sample[2]
        for name, (kind, text) in heads.items():
            yield from _head(name, kind, text)
            for (sample_name, labels), value in added[name].items():
                yield f"{sample_name}{_labels(labels)} {_number(value)}"


_ADDED_UP = ("counter", "histogram", "summary")
_KINDS = {"timing": "histogram", "unknown": "untyped", "info": "gauge", "stateset": "gauge"}


def _sample(sample: Sequence[Any]) -> Sample:
    name, labels, _ = sample
    return name, tuple(sorted(labels.items()))


def _head(name: str, kind: str, text: str) -> list[str]:
    shown = f"{name}_total" if kind == "counter" else name
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return [f"# HELP {shown} {escaped}", f"# TYPE {shown} {_KINDS.get(kind, kind)}"]


def _histogram(
    name: str, labels: list[tuple[str, str]], total: float, counts: Sequence[int]
) -> Iterable[str]:
    below = 0
    for bound, count in zip((*BUCKETS, math.inf), counts, strict=True):
        below += count
        yield f"{name}_bucket{_labels([*labels, ('le', _number(bound))])} {below}"
    yield f"{name}_sum{_labels(labels)} {_number(total)}"
    yield f"{name}_count{_labels(labels)} {below}"


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
    return f"{{{shown}}}" if shown else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))
