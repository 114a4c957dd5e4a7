"""What a supervisor and its charges are told, and what they work with."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from goose.brokers.base import Broker
from goose.worker.clock import Clock
from goose.worker.errands import Submit
from goose.worker.process import Spawn
from goose.worker.witness import NoWitness, Witness

RESTART_LIMIT = 30.0
"""Default of `Plan.restart_limit`, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a supervisor is told. Durations are seconds."""

    processes: int = 1
    """As long as nobody orders another number."""
    grace: float = 30.0
    ttl: float = 30.0
    stall_limit: float = 900.0
    wait_broker: float = 30.0
    """How long the broker may be out of reach at the start."""
    restart_limit: float = RESTART_LIMIT
    """The longest wait before a dead child is replaced."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What the supervisor's steps work with."""

    broker: Broker
    spawn: Spawn
    submit: Submit
    clock: Clock
    random: random.Random
    witness: Witness = field(default_factory=NoWitness)
    log_by: Callable[[str | None], object] = lambda _: None
    """Has this process log by another level; None is its own again."""
