"""The slots of a simulated process: a job's run takes virtual time.

An async function is driven by hand through the real `Engine.arun`, from one `Nap` to the next. What is
to cancel it while it waits for the store does so at its next nap.
A sync one is called, through the real `Engine.run`, when its time is over, under a clock that
first shows the instant of its start.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from goose.errors import Bury, Postpone, Skip
from goose.middleware.base import Execution
from goose.testing.simulator.ledger import Ledger, Loan
from goose.testing.simulator.script import Kind, Part
from goose.testing.simulator.timeline import Actor, Died, Timeline
from goose.worker.execution import Interrupted
from goose.worker.notes import Running
from goose.worker.work import Work

if TYPE_CHECKING:
    from goose.testing.simulator.process import Worker


class Notes:
    """What a supervised process runs, as its supervisor finds it."""

    def __init__(self) -> None:
        self._running: dict[int, Running] = {}
        self._last: dict[int, str] = {}

    def started(self, slot: int, job_id: str, hard_deadline_mono: float) -> None:
        """Note a job."""
        self._running[slot] = Running(job_id, hard_deadline_mono)

    def ended(self, slot: int) -> None:
        """Note its end."""
        ended = self._running.pop(slot, None)
        if ended is not None:
            self._last[slot] = ended.job_id

    def grow(self, slots: int) -> bool:
        """Return True."""
        return True

    def running(self) -> list[Running]:
        """Return what is noted."""
        return list(self._running.values())

    def last(self) -> list[str]:
        """Return what had run last in each free slot."""
        return [job_id for slot, job_id in self._last.items() if slot not in self._running]


def classify(error: BaseException) -> str:
    """Return how a run that raised *error* has ended, in the ledger's words."""
    match error:
        case Skip():
            return "skipped"
        case Postpone():
            return "postponed"
        case Bury():
            return "buried"
        case Interrupted() | asyncio.CancelledError():
            return "interrupted"
        case _:
            return "failed"


class Slot(Actor):
    """Runs one job at a time, each for as long as its part says."""

    __slots__ = (
        "_context",
        "_coroutine",
        "_ledger",
        "_loan",
        "_timeline",
        "_told",
        "_worker",
        "number",
        "work",
    )

    def __init__(self, worker: Worker, number: int, ledger: Ledger, timeline: Timeline) -> None:
        super().__init__(worker)
        self.number = number
        self.work: Work | None = None
        self._worker = worker
        self._ledger = ledger
        self._timeline = timeline
        self._loan: Loan | None = None
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._context = contextvars.Context()
        self._told = False
        """Whether its coroutine is to be cancelled at its next ``await``."""

    def _part(self, work: Work) -> Part:
        return self._worker.script.part_of(work.job)

    def start(self, work: Work) -> None:
        """Begin to run *work*."""
        worker = self._worker
        self.work = work
        work.slot = self.number
        work.started_mono = worker.clock.mono()
        worker.notes.started(self.number, work.job.id, math.inf)
        self._loan = self._ledger.started(work.delivery)
        if work.plan.is_async:
            self._coroutine = worker.engine.arun(work)
            # Runs take turns, and each has a context of its own, as a task has.
            self._context = contextvars.copy_context()
            self._drive(self._coroutine.send, None)
        else:
            self._later(work, self._part(work).seconds)

    def _later(self, work: Work, seconds: float) -> None:
        self._timeline.at(self._timeline.now + seconds, self, lambda: self._go_on(work))

    def ended(self, ending: str) -> None:
        """Note how the run has ended."""
        if self._loan is not None:
            self._loan.ending = ending

    def _go_on(self, work: Work) -> None:
        if self.work is not work:
            return  # it was interrupted
        if self._part(work).kind is Kind.POISON:
            self._worker.poison()
        elif self._coroutine is not None:
            self._drive(self._coroutine.send, None)
        else:
            self._call(work, lambda fn, execution: fn(execution))

    def interrupt(self) -> None:
        """End the run early, as at the end of a shutdown's grace, unless its part is stubborn."""
        work = self.work
        if work is None or self._part(work).stubborn or (self.busy and self._coroutine is None):
            return
        work.interrupted = True
        if self._coroutine is not None:
            self.cancel()
        else:
            # It is not entered any more, so no middleware notes this.
            self.ended("interrupted")
            self._call(work, lambda fn, execution: None)

    def cancel(self) -> None:
        """Cancel it at its ``await``, if it is async."""
        if self._coroutine is not None and self.busy:
            self._told = True
        elif self._coroutine is not None:
            self._drive(self._coroutine.throw, asyncio.CancelledError())

    def drop(self) -> None:
        """Forget the run: its process is dead."""
        self.work = self._loan = None
        if self._coroutine is not None and not self.busy:  # else it ends by what it is in now
            self._context.run(self._coroutine.close)
        self._coroutine = None

    def _drive(self, resume: Callable[[Any], Any], value: object) -> None:
        """Let the coroutine go on to its next nap, or to its end."""
        work, coroutine = self.work, self._coroutine
        assert work is not None
        assert coroutine is not None
        try:
            seconds = self._context.run(resume, value)
            while self._told and self.place.alive:
                self._told = False
                seconds = self._context.run(coroutine.throw, asyncio.CancelledError())
        except StopIteration:
            self._free()
        else:
            self._later(work, seconds)

    def _call(
        self, work: Work, call: Callable[[Callable[[Execution], Any], Execution], None]
    ) -> None:
        clock = self._worker.clock
        told = work.cancelled

        def in_time(fn: Callable[[Execution], Any], execution: Execution) -> None:
            clock.shown, work.cancelled = None, told
            call(fn, execution)

        clock.shown = work.started_mono
        # What is ordered while a function runs does not keep it from being entered.
        work.cancelled = told and work.interrupted
        try:
            self._worker.engine.run(work, in_time)
        finally:
            clock.shown = None
        self._free()

    def _free(self) -> None:
        if not self.place.alive:  # the run was in the midst of a call when its process ended
            raise Died
        self.work = self._loan = self._coroutine = None
        self._told = False
        self._worker.ended()
