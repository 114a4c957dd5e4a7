"""Watches what runs: ends what is over its time, and tells about what is slow.

Soft timeouts of sync functions are kept here, by interrupting their slot; those of async
functions are kept by the event loop itself. Both are best effort: a function that never comes
back to the interpreter is ended only by the supervisor, with its process.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Sequence

from goose._words import several
from goose.errors import JobTimeout
from goose.worker.buffer import Buffer, patience
from goose.worker.clock import Clock
from goose.worker.outcomes import Ending, Outcome, Verb, fields, stored
from goose.worker.slots import AsyncSlots, Slot, awaiting
from goose.worker.stops import given_back
from goose.worker.transactions import OPEN_LONG
from goose.worker.work import Work

logger = logging.getLogger("goose.worker")

EVERY = 0.1
"""Seconds between looks: how late a soft timeout may be."""
_OPEN = ", and its transaction is open as long, in whose way nothing can be cleaned up"
SUSPECT_DELAY = 60.0
"""Seconds a suspect stays away at least after it did not find this process empty."""


class Watch:
    """Looks at running and waiting jobs. `step` is called by one thread."""

    def __init__(
        self,
        slots: Callable[[], Sequence[Slot]],
        buffer: Buffer,
        *,
        slow_after: float,
        settle: Callable[[Sequence[Outcome]], None],
        tick: Callable[[float], None],
        clock: Clock,
        async_slots: AsyncSlots | None = None,
    ) -> None:
        self._slots = slots
        self._async = async_slots
        self._buffer = buffer
        self._clock = clock
        self._slow_after = slow_after
        self._settle = settle
        self._tick = tick

    def step(self, now: float) -> float:
        """Look once; return the seconds until the next look."""
        self._tick(now)
        for slot in self._slots():
            work = slot.work
            if work is not None and work.started_mono:
                self._look(slot, work, now - work.started_mono)
        for work, task in self._async.tasks() if self._async else ():
            if self._is_slow(work, now - work.started_mono):
                _tell(work, now - work.started_mono, awaiting(task))
        wall = self._clock.wall()
        back, suspect = self._buffer.give_up(now, wall)
        outcomes = [given_back(work) for work in back]
        if suspect is not None:
            outcomes.append(_postponed(suspect, wall))
        if outcomes:
            logger.info("gave back %s that waited too long for a slot", several(len(outcomes)))
            self._settle(outcomes)
        return EVERY

    def dump(self, now: float) -> None:
        """Log every running job with its stack; from any thread."""
        for slot in self._slots():
            work = slot.work
            if work is not None and work.started_mono:
                _tell(work, now - work.started_mono, stack_of(slot))
        for work, task in self._async.tasks() if self._async else ():
            _tell(work, now - work.started_mono, awaiting(task))

    def _look(self, slot: Slot, work: Work, ran: float) -> None:
        timeout = work.job.timeout
        if timeout is not None and ran > timeout and not work.doing:
            slot.interrupt(work, JobTimeout)
        if self._is_slow(work, ran):
            _tell(work, ran, stack_of(slot))

    def _is_slow(self, work: Work, ran: float) -> bool:
        """Say whether *work* is to be told about now: once, when it has run for long."""
        limit = min(self._slow_after, OPEN_LONG) if work.plan.transactional else self._slow_after
        if work.reported_slow or not work.started_mono or ran <= limit:
            return False
        work.reported_slow = True
        return True


def stack_of(slot: Slot) -> str:
    """Return where *slot*'s thread is now, as a traceback's lines."""
    frame = sys._current_frames().get(slot.thread.ident or 0)  # noqa: SLF001 - the documented way
    return "".join(traceback.format_stack(frame)) if frame else ""


def _tell(work: Work, ran: float, stack: str) -> None:
    costs = _OPEN if work.plan.transactional else ""
    logger.warning(
        "job %s of %s has been running for %.0f s%s; it is at\n%s",
        work.job.id,
        work.job.fn,
        ran,
        costs,
        stack,
        extra=fields(work.job),
    )


def _postponed(work: Work, wall: float) -> Outcome:
    """Return the outcome of a suspect that comes back later, by when it will be waited for longer."""
    job = work.job
    delay = max(SUSPECT_DELAY, patience(job, wall))
    next_state = job if job.deferred_since is not None else job.evolve(deferred_since=wall)
    return Outcome(
        Ending.POSTPONED, Verb.REQUEUE, work.delivery, stored(next_state, delay), job, delay=delay
    )
