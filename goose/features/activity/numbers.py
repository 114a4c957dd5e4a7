"""One queue's numbers of some minutes, as they are added up and stored."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field

SLOT = 300.0
"""Seconds whose numbers are one value."""
GROWTH = 1.1
"""How much longer the times of a bucket are than those of the one before."""
COUNTED = ("processed", "succeeded", "retried", "dead")
_SHORTEST = 1e-6


@dataclass(slots=True)
class Numbers:
    """Counts by name, and how many runs took how long."""

    counts: Counter[str] = field(default_factory=Counter)
    times: Counter[int] = field(default_factory=Counter)
    """By bucket."""

    def __bool__(self) -> bool:
        return bool(self.counts or self.times)

    def time(self, seconds: float) -> None:
        """Count a run that took so long."""
        self.times[math.ceil(math.log(max(seconds, _SHORTEST), GROWTH))] += 1

    def add(self, other: Numbers) -> None:
        """Count what *other* has counted, too."""
        self.counts.update(other.counts)
        self.times.update(other.times)

    def percentile(self, part: float) -> float | None:
        """Return the seconds within which *part* (0 to 1) of the runs ended; None without any."""
        total = sum(self.times.values())
        if not total:
            return None
        left, bucket = math.ceil(part * total), 0
        for bucket in sorted(self.times):
            left -= self.times[bucket]
            if left <= 0:
                break
        # The middle of the bucket, as its ends differ by a tenth.
        return float(GROWTH ** (bucket - 0.5))

    def dump(self) -> bytes:
        """Return the numbers as they are stored."""
        times = {str(bucket): count for bucket, count in sorted(self.times.items())}
        return json.dumps({**self.counts, "times": times}, separators=(",", ":")).encode()


def load(value: bytes | None) -> Numbers:
    """Return what was stored; nothing for what this version cannot read."""
    try:
        found = json.loads(value or b"{}")
        times = Counter({int(bucket): int(count) for bucket, count in found["times"].items()})
        counts = Counter({name: int(found[name]) for name in COUNTED if name in found})
        return Numbers(counts, times)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Numbers()


def key_of(queue: str, slot: int) -> str:
    """Return the key of a queue's numbers."""
    return f"activity:{{{queue}}}:{slot:010}"
