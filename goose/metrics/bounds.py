"""Keeps the number of series finite.

Every set of tag values is a series that costs memory here and on the server. Names of
functions and queues come from outside, so somebody could make series without end. A `Bounds`
lets the first `MAX_SERIES` sets of one measure be themselves; after that new functions are
counted together as ``function="other"``, and when even that is not enough, everything new is.
"""

from __future__ import annotations

import logging
import threading

from goose.metrics.base import Tags
from goose.metrics.catalogue import Measure

logger = logging.getLogger("goose.metrics")

MAX_SERIES = 1000
"""Sets of tag values per measure before new functions become ``other``."""
OTHER = "other"


class Bounds:
    """The sets of tag values of one measure. Thread-safe."""

    def __init__(self, measure: Measure, max_series: int = MAX_SERIES) -> None:
        self._measure = measure
        self._max_series = max_series
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._lock = threading.Lock()
        self._told = False

    def values(self, tags: Tags) -> tuple[str, ...]:
        """Return the values of the measure's tags; one that is missing is empty, others are left out."""
        values = tuple([tags.get(tag, "") for tag in self._measure.tags])
        try:
            return self._known[values]
        except KeyError:
            return self._bounded(values)

    def _bounded(self, values: tuple[str, ...]) -> tuple[str, ...]:
        with self._lock:
            if len(self._known) >= self._max_series and values not in self._known:
                values = self._folded(values)
            return self._known.setdefault(values, values)

    def _folded(self, values: tuple[str, ...]) -> tuple[str, ...]:
        if not self._told:
            self._told = True
            logger.warning(
                "%s has %d sets of tags; new functions are counted as %r",
                self._measure.name,
                self._max_series,
                OTHER,
            )
        tags = self._measure.tags
        pairs = zip(tags, values, strict=True)
        folded = tuple(OTHER if tag == "function" else value for tag, value in pairs)
        # Queues without end as well: give up on telling anything apart.
        return folded if len(self._known) < 2 * self._max_series else (OTHER,) * len(tags)
