"""Metrics for OpenTelemetry, through the meter provider your program sets up.

``opentelemetry://`` (no host: where numbers go is the provider's affair). Names are those of
`goose.metrics.catalogue` with ``goose.`` in front, times are histograms in seconds. In a worker
with several processes each has a provider of its own; give it a resource that tells them apart,
as OpenTelemetry asks for anyway.
"""

from __future__ import annotations

import threading
from typing import Any

from goose.errors import ConfigError, MissingDriver
from goose.metrics.base import Tags
from goose.metrics.bounds import Bounds
from goose.metrics.catalogue import BUCKETS, Kind, Measure, measure_of

try:
    from opentelemetry import metrics
except ImportError as error:
    raise MissingDriver(
        'metrics for OpenTelemetry need its API; pip install "goose-jobs[opentelemetry]"'
    ) from error


class OpenTelemetry:
    """Keeps metrics in instruments of OpenTelemetry. Thread-safe.

    Args:
        url: ``opentelemetry://``.
        meter: Makes the instruments; by default the global provider's meter ``goose``.

    Raises:
        ConfigError: The URL says more than that.
    """

    never_blocks = True

    def __init__(
        self, url: str = "opentelemetry://", *, meter: metrics.Meter | None = None
    ) -> None:
        if url.rstrip("/") != "opentelemetry:":
            raise ConfigError(f"{url!r}: write opentelemetry://, and set up the provider in code")
        self._meter = meter or metrics.get_meter("goose")
        self._instruments: dict[tuple[str, Kind], tuple[Any, Bounds, Measure]] = {}
        self._lock = threading.Lock()

    def increment(self, name: str, value: int, tags: Tags) -> None:
        """Count *value* more of *name*."""
        instrument, attributes = self._find(name, "counter", tags)
        instrument.add(value, attributes)

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        """Say that *name* is *value* now."""
        instrument, attributes = self._find(name, "gauge", tags)
        instrument.set(value, attributes)

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        """Record one duration of *seconds* in the histogram *name*."""
        instrument, attributes = self._find(name, "timing", tags)
        instrument.record(seconds, attributes)

    def _find(self, name: str, kind: Kind, tags: Tags) -> tuple[Any, dict[str, str]]:
        found = self._instruments.get((name, kind)) or self._made(name, kind, tags)
        instrument, bounds, measure = found
        return instrument, dict(zip(measure.tags, bounds.values(tags), strict=True))

    def _made(self, name: str, kind: Kind, tags: Tags) -> tuple[Any, Bounds, Measure]:
        with self._lock:
            if (name, kind) in self._instruments:
                return self._instruments[name, kind]
            measure = measure_of(name, kind, tags)
            full, text = f"goose.{name}", measure.help
            instrument: Any
            if kind == "counter":
                instrument = self._meter.create_counter(full, "1", text)
            elif kind == "gauge":
                instrument = self._meter.create_gauge(full, measure.unit[:1] or "1", text)
            else:
                instrument = self._meter.create_histogram(
                    full, "s", text, explicit_bucket_boundaries_advisory=BUCKETS
                )
            made = self._instruments[name, kind] = (instrument, Bounds(measure), measure)
            return made
