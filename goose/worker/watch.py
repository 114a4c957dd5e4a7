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

from goose.errors import JobTimeout
from goose.worker.buffer import Buffer
from goose.worker.fetch import given_back
from goose.worker.outcomes import Ending, Outcome, Verb, stored
from goose.worker.slots import Slot
from goose.worker.work import Work

logger = logging.getLogger("goose.worker")

EVERY = 0.1
"""Seconds between looks: how late a soft timeout may be."""
SUSPECT_DELAY = 60.0
"""Seconds a suspect stays away after it did not find this process empty."""


class Watch:
    """Looks at running and waiting jobs. `step` is called by one thread."""

    def __init__(
        self,
        slots: Sequence[Slot],
        buffer: Buffer,
        *,
        slow_after: float,
        settle: Callable[[Sequence[Outcome]], None],
        tick: Callable[[float], None],
    ) -> None:
        self._slots = slots
        self._buffer = buffer
        self._slow_after = slow_after
        self._settle = settle
        self._tick = tick

    def step(self, now: float) -> float:
        """Look once; return the seconds until the next look."""
        self._tick(now)
        for slot in self._slots:
            work = slot.work
            if work is not None and work.started_mono:
                self._look(slot, work, now - work.started_mono)
        back, suspect = self._buffer.give_up(now)
        outcomes = [given_back(work) for work in back]
        if suspect is not None:
            outcomes.append(_postponed(suspect))
        if outcomes:
            logger.info("gave back %d jobs that waited too long for a slot", len(outcomes))
            self._settle(outcomes)
        return EVERY

    def _look(self, slot: Slot, work: Work, ran: float) -> None:
        timeout = work.job.timeout
        if timeout is not None and ran > timeout and not work.doing:
            slot.interrupt(work, JobTimeout)
        if ran > self._slow_after and not work.reported_slow:
            work.reported_slow = True
            frame = sys._current_frames().get(slot.thread.ident or 0)  # noqa: SLF001
            stack = "".join(traceback.format_stack(frame)) if frame else ""
            logger.warning(
                "job %s of %s has been running for %.0f s; it is at\n%s",
                work.job.id,
                work.job.fn,
                ran,
                stack,
                extra={"job_id": work.job.id, "function": work.job.fn},
            )


def _postponed(work: Work) -> Outcome:
    envelope = stored(work.job, SUSPECT_DELAY)
    return Outcome(
        Ending.POSTPONED, Verb.REQUEUE, work.delivery, envelope, work.job, delay=SUSPECT_DELAY
    )
