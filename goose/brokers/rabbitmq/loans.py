"""What passes between a lane, the intake and whoever settles: jobs that came, loans, and answers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from goose.brokers.rabbitmq.lane import Lane

KEPT = 3600.0
"""Seconds; longer than a job is lent elsewhere before its holder is seen to be dead or done."""
MOST = 10_000


class Arrival(NamedTuple):
    """A job that the server lent to this process."""

    tag: int
    id: str
    body: bytes
    headers: dict[str, Any] | None
    arrived_mono: float
    verdict: str | None = None
    words: str | None = None


@dataclass(slots=True)
class Loan:
    """A job that was handed on to a session."""

    lane: Lane
    id: str
    tag: int
    generation: int
    epoch: int
    words: str | None
    """Those about it that were heeded, for its header."""


class Ended:
    """Jobs that ended here while the server had taken them back, or may have.

    If one of them comes to this very process again, it is done, and does not run a second time.
    The body must be the same: whoever stores a job again, under its id, writes another. For one
    thread at a time.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], float] = {}

    def note(self, job_id: str, body: bytes) -> None:
        """Remember a job for `KEPT` seconds."""
        now = time.monotonic()
        self._known[job_id, hash(body)] = now + KEPT
        while len(self._known) > MOST or next(iter(self._known.values())) < now:
            del self._known[next(iter(self._known))]

    def knows(self, job_id: str, body: bytes) -> bool:
        """Say whether it is one of them; then it is no longer."""
        if not self._known:
            return False
        return self._known.pop((job_id, hash(body)), 0.0) > time.monotonic()


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
