"""How whoever waits for the end of a batch looks for it: often at first, then once a second."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import timedelta

from goose.values import seconds

LOOKS = (0.01, 1.0)
"""Seconds between looks of `Batch.wait`, at first and at most."""


def waits(timeout: float | timedelta | None) -> Iterator[float]:
    """Yield how long to wait between looks, growing, until *timeout* is over."""
    left = math.inf if timeout is None else seconds(timeout, "timeout")
    end_mono, delay = time.monotonic() + left, LOOKS[0]
    yield min(delay, left)
    while (left := end_mono - time.monotonic()) > 0:
        delay = min(1.5 * delay, LOOKS[1])
        yield min(delay, left)
    yield 0.0
