"""What kind of world to make, apart from the seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from goose.brokers.memory import MemoryBroker
from goose.worker.engine import Engine

FEATURES = (
    "unique",
    "batch",
    "flow",
    "limit",
    "cron",
    "result",
    "rate",
    "debounce",
    "throttle",
    "unique-cron",
    "control",
    "long",
    "batch-cancel",
    "flow-cancel",
)
"""What jobs of a world may use."""


def _as_it_is(_engine: Engine) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A world's size and rules. Times are virtual seconds."""

    broker: Callable[..., MemoryBroker] = MemoryBroker
    """Makes the broker; takes ``clock`` and ``random``. A broken one should be found out."""
    change: Callable[[Engine], None] = _as_it_is
    """Called with each new engine, which it may spoil to see that it is found out."""
    jobs: tuple[int, int] = (6, 16)
    """The fewest and the most jobs."""
    seats: tuple[int, int] = (2, 3)
    """The fewest and the most worker processes at once."""
    ttl: float = 10.0
    stormy: float = 40.0
    """For how long things go wrong."""
    patience: float = 1500.0
    """For how long after the faults have ended jobs may take to be done or dead."""
    rate: float = 0.05
    """How often a call to the broker meets a fault while the calling process holds jobs."""
    events: tuple[int, int] = (3, 9)
    """The fewest and the most faults that come from outside of any call."""
    features: tuple[str, ...] = ()
    """What jobs use, of `FEATURES`; each world plays a few of these. None: plain jobs."""
    crash_at: tuple[int, bool] | None = None
    """Instead of all that: one crash, at that call of a worker, before (True) or after it. Where jobs
    use features, it counts the calls of clients, too."""
