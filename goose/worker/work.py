"""What travels through one worker process: a prepared delivery, and how to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from goose.brokers.base import Delivery
from goose.jobs import JSON, Job
from goose.middleware.base import Execution


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run one function; made once, not per job."""

    is_async: bool
    decode: Callable[[tuple[JSON, ...], Mapping[str, JSON]], tuple[tuple[Any, ...], dict[str, Any]]]
    call: Callable[[Execution], Any]
    transactional: bool = False
    """Whether what it writes is one transaction with the end of its job."""


class Work:
    """One prepared delivery, on its way from the buffer through a slot to its outcome."""

    __slots__ = (
        "cancelled",
        "delivery",
        "doing",
        "execution",
        "filled",
        "held_mono",
        "interrupted",
        "job",
        "plan",
        "reported_slow",
        "slot",
        "started_mono",
    )

    def __init__(self, delivery: Delivery, job: Job[Any], plan: Plan, held_mono: float) -> None:
        self.delivery = delivery
        self.job = job
        self.plan = plan
        self.held_mono = held_mono
        self.started_mono = 0.0
        self.slot = -1
        self.execution: Execution | None = None
        self.filled: tuple[tuple[JSON, ...], Mapping[str, JSON]] | None = None
        self.interrupted = False
        self.cancelled = False
        self.reported_slow = False
        self.doing = ""
