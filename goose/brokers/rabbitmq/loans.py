"""What passes between a lane, the intake and whoever settles: jobs that came, loans, and answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from goose.brokers.rabbitmq.lane import Lane


class Arrival(NamedTuple):
    """A job that the server lent to this process."""

    tag: int
    id: str
    body: bytes
    headers: dict[str, Any] | None
    arrived_mono: float
    verdict: str | None = None
    word: str | None = None


@dataclass(slots=True)
class Loan:
    """A job that was handed on to a session."""

    lane: Lane
    id: str
    tag: int
    generation: int
    epoch: int
    word: str | None
    """The last word about it that was heeded."""


class Hearing:
    """Waits until the server has heard what several lanes had to say.

    Args:
        lanes: How many.
    """

    def __init__(self, lanes: int) -> None:
        self._left = lanes
        self._well = True
        self._done = threading.Event()

    def heard(self, well: bool) -> None:
        """Note that one lane had its answer, or will have none; on the wire's thread."""
        self._well &= well
        self._left -= 1
        if not self._left:
            self._done.set()

    def wait(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds; say whether all was heard."""
        return self._done.wait(timeout) and self._well
