"""What crosses the contract of `goose.brokers.base`: frozen values, and nothing else does.

Brokers make them and the engine reads them; both import them from `goose.brokers.base`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from goose.jobs import Envelope


class Capability(Enum):
    """What a broker promises beyond the protocol."""

    DEDUPES = "dedupes"
    """Storing an id that is stored already changes nothing, so an unsure enqueue can be repeated."""
    DURABLE = "durable"
    """Jobs survive the end of every process that uses the broker."""
    SHARED = "shared"
    """Several processes can use it at once."""
    CLOCK = "clock"
    """Due instants and sessions are measured by the broker's own clock."""
    CONCURRENT = "concurrent"
    """Threads that store at once share its round trips by themselves, and none waits for another."""


class State(Enum):
    """Where a stored job is in its life."""

    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    """Lent to a session; it may not have been started yet."""
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Session:
    """One life of one worker process, as the broker knows it."""

    id: str
    epoch: int = 1
    """Raised each time the same process had to begin again."""

    @property
    def key(self) -> str:
        """One text for both parts."""
        return f"{self.id}/{self.epoch}"


@dataclass(frozen=True, slots=True)
class Share:
    """A queue a worker takes from, and its part of the attention.

    All weights 0 means strict order: a queue is looked at only when those before it are
    empty. Otherwise every weight is above 0 and the queues take turns in proportion.
    """

    queue: str
    weight: int = 0


class Delivery(NamedTuple):
    """One loan of one envelope to one session; settled exactly once. A tuple, as `Envelope` is."""

    envelope: Envelope
    receipt: object
    """The broker's own token, fresh for every loan. Goose never looks inside."""
    session: Session
    """Who holds it."""
    ready_at: float | None = None
    """Epoch seconds by the broker's clock when the job became ready, if it knows."""
    orphan_of: Session | None = None
    """For a recovered delivery: the dead session that held it before."""
    verdict: str | None = None
    """What a witness said of the job's part in the death of the process that held it last, by
    `Witnessed.testify`; None if nobody said anything."""

    def evolve(self, **changes: Any) -> Delivery:
        """Return a copy with *changes*."""
        return self._replace(**changes)


@dataclass(frozen=True, slots=True)
class Promotion:
    """What one round of upkeep did."""

    promoted: int
    """Jobs made due."""
    next_due_in: float | None
    """Seconds until the next scheduled job is due, or None if there is none; 0 if more wait now."""
    trimmed: int = 0
    """Dead jobs dropped because they were too old or too many."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored job as the `Inspector` shows it. Instants are epoch seconds by the broker's clock."""

    envelope: Envelope
    state: State
    at: float
    """Since when it is ready, running or dead; when it is due if scheduled."""
    session: Session | None = None
    """Who holds it, if running."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """One queue's numbers at one moment."""

    queue: str
    counts: Mapping[State, int]
    """Jobs in each state that the broker can count."""
    oldest: float | None
    """Seconds the longest waiting ready job has been ready; None without one."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing."""

    items: Sequence[Stored]
    next: str | None
    """Pass it as `after` for the following part; None at the end."""
