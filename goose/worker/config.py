"""What one worker process is told about how to work."""

from __future__ import annotations

from dataclasses import dataclass

from goose.brokers.base import Share
from goose.errors import ConfigError
from goose.jobs import MAX_BYTES, check_queue

ENVELOPE_SLACK = 128 * 1024
"""Bytes a job may grow beyond its size limit on its way: counts and the text of its failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """How one worker process works. Durations are seconds.

    Raises:
        ConfigError: A value is out of range; the message names it.
    """

    queues: tuple[Share, ...] = (Share("default"),)
    concurrency: int = 10
    """Sync functions at once, each on a thread."""
    async_concurrency: int | None = None
    """Async functions at once, all on one event loop; None is 10 times `concurrency`."""
    grace: float = 30.0
    """How long running jobs may go on after a stop."""
    ttl: float = 30.0
    """A session silent for so long is dead, and its jobs belong to others."""
    hard_timeout: float | None = None
    """The longest any job may run before its process is killed; needs a supervisor."""
    hard_margin: float = 10.0
    """A job this long over its own timeout is ended with its process; needs a supervisor."""
    stall_limit: float = 900.0
    """How long a process that only burns CPU, without a tick, is still held for alive."""
    slow_after: float = 300.0
    """A job running so long is logged once, with its stack."""
    max_crashes: int = 3
    """Crashes suffered alone after which a job is dead."""
    defer_delay: float = 30.0
    """How long a job this code does not know waits for a worker that does."""
    defer_limit: float = 3 * 86400.0
    """After so long without such a worker the job is dead."""
    max_bytes: int = MAX_BYTES
    """Size limit of a job, in bytes."""

    def __post_init__(self) -> None:
        if not self.queues:
            raise ConfigError("queues is empty; name at least one, for example queues=['default']")
        weights = [share.weight for share in self.queues]
        for share in self.queues:
            check_queue(share.queue)
        if any(weight < 0 for weight in weights) or (any(weights) and not all(weights)):
            raise ConfigError(
                f"queue weights {weights} mix strict and weighted order; give every queue a weight "
                "above 0, or none a weight"
            )
        if len({share.queue for share in self.queues}) != len(self.queues):
            raise ConfigError(f"queues names a queue twice: {[s.queue for s in self.queues]}")
        for name in ("concurrency", "async_slots", "max_crashes", "max_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in (
            "ttl",
            "hard_margin",
            "stall_limit",
            "slow_after",
            "defer_delay",
            "defer_limit",
        ):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0 seconds")
        if not self.grace >= 0:
            raise ConfigError(f"grace is {self.grace}; it must be 0 seconds or more")
        if self.hard_timeout is not None and not self.hard_timeout > 0:
            raise ConfigError(f"hard_timeout is {self.hard_timeout}; it must be above 0 seconds")

    @property
    def async_slots(self) -> int:
        """Async functions at once."""
        return 10 * self.concurrency if self.async_concurrency is None else self.async_concurrency

    @property
    def slots(self) -> int:
        """Jobs at once, sync and async together; sync ones have the lower numbers."""
        return self.concurrency + self.async_slots
