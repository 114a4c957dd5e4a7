"""Where jobs run: threads for sync functions, one event loop for async ones.

A slot takes its next job from the buffer itself, so a run of tiny jobs costs no hand-off.
A slot that finds nothing parks; whoever puts work into the buffer unparks one, and every slot
that takes a job while more wait unparks another, so that all come to work exactly when there is
work for all.

A timeout or a shutdown may interrupt a function that runs on a thread: an exception is raised
in that thread at its next bytecode. `Slot.call` marks when that is allowed, from the entry of
the function to its return and not a moment longer: whoever interrupts first says so
(`_interrupting`), then looks whether the function is still inside; the slot first says that it
left, then looks whether somebody is interrupting. Under the interpreter's lock at least one of
the two sees the other, and the slot then takes back an exception that comes too late.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from goose._interrupts import exposed, raise_in, take_back
from goose.middleware.base import Execution
from goose.worker.work import Work

logger = logging.getLogger("goose.worker")


Guarded: TypeAlias = Callable[[Callable[[Execution], Any], Execution], None]
"""Calls its first argument with its second, such that a timeout may interrupt it."""


class Slot:
    """One thread that runs sync jobs, one at a time.

    Args:
        number: Its place in the notes.
        take: Returns the next job, or None when there is none now.
        more: Says whether others could take a job, too.
        run: Runs one job, its function through what it is given; never raises.
        parking: Where to wait for work.
    """

    def __init__(
        self,
        number: int,
        *,
        take: Callable[[], Work | None],
        more: Callable[[], bool],
        run: Callable[[Work, Guarded], None],
        parking: Parking,
        on_death: Callable[[BaseException], None],
    ) -> None:
        self.number = number
        self.work: Work | None = None
        self._take = take
        self._more = more
        self._run_work = run
        self._parking = parking
        self._on_death = on_death
        self._inside = False
        self._interrupting = False
        self._lock = threading.Lock()
        self.thread = threading.Thread(target=self._run, name=f"goose-slot-{number}", daemon=True)

    def _run(self) -> None:
        exposed.add(threading.get_ident())
        try:
            place = threading.Lock()
            while not self._parking.closed:
                seen = self._parking.calls
                work = self._take()
                if work is None:
                    self._parking.park(place, seen)
                    continue
                if self._parking.can_help and self._more():
                    self._parking.unpark()
                work.slot = self.number
                self.work = work
                self._run_work(work, self.call)
                self.work = None
        except BaseException as error:
            self._on_death(error)
            raise
        finally:
            exposed.discard(threading.get_ident())

    def call(self, fn: Callable[[Execution], Any], execution: Execution) -> None:
        """Call *fn* with *execution*; only in here may `interrupt` raise."""
        try:
            self._inside = True
            fn(execution)
        finally:
            self._inside = False
            if self._interrupting:
                self._calm_down()

    def _calm_down(self) -> None:
        """Take back an interruption that has not been raised yet."""
        with self._lock:
            take_back()
            self._interrupting = False

    def interrupt(self, work: Work, error: type[BaseException]) -> bool:
        """Raise *error* in the function that runs *work* here; say whether it still ran.

        Best effort: code that does not come back to the interpreter is not interrupted.
        """
        with self._lock:
            self._interrupting = True
            ident = self.thread.ident
            if self._inside and self.work is work and ident is not None:
                work.doing = doing(ident)
                raise_in(ident, error)
                return True
            self._interrupting = False
            return False


def doing(ident: int) -> str:
    """Return where thread *ident* is now, as ``file:line in name``; empty if it is gone."""
    frame = sys._current_frames().get(ident)  # noqa: SLF001 - the documented way to see a thread
    if frame is None:
        return ""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def awaiting(task: asyncio.Task[None]) -> str:
    """Return the lines of code that *task* waits at, outermost first, one to a line."""
    lines: list[str] = []
    coroutine: Any = task.get_coro()
    # A suspended task's own stack is one frame; the rest hangs from what each awaits.
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}\n')
        coroutine = coroutine.cr_await
    return "".join(lines)


class Parking:
    """Where idle slots wait. The last to come is the first to go: its caches are warm.

    At most one slot is on its way from here to work at any time, and it wakes the next one
    when it finds more than it takes. So a burst of tiny jobs wakes one slot too many, not all
    of them, and as many as are needed come when jobs block.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parked: list[threading.Lock] = []
        self._waking = 0
        self.calls = 0
        """How often slots were called. A slot that reads it before it looks for work cannot
        miss a call that comes between its look and `park`."""
        self.can_help = False
        """Whether a slot is parked and none is on its way; a hint, not a promise."""
        self.closed = False

    def park(self, place: threading.Lock, seen: int) -> None:
        """Wait until unparked, unless somebody called since `calls` was *seen*.

        Args:
            place: A lock of the caller's own, not held.
            seen: What `calls` was before the caller looked for work and found none.
        """
        with self._lock:
            if self.closed or self.calls != seen:
                return
            place.acquire()
            self._parked.append(place)
            self.can_help = not self._waking
        place.acquire()
        place.release()
        with self._lock:
            self._waking -= 1
            self.can_help = bool(self._parked)

    def unpark(self) -> None:
        """Let one slot look for work; all that are on their way to park look once more."""
        with self._lock:
            self.calls += 1
            if self._waking:
                return  # that one has yet to look, and will find this work
            if self._parked:
                self._waking += 1
                self.can_help = False
                self._parked.pop().release()

    def close(self) -> None:
        """Let all slots go."""
        with self._lock:
            self.closed = True
            self.can_help = False
            self._waking += len(self._parked)
            while self._parked:
                self._parked.pop().release()


class AsyncSlots:
    """One event loop, in a thread of its own, that runs all async jobs.

    Args:
        take: Returns the next job, or None when there is none now.
        run: Runs one job; never raises.
        first: Number of the first async slot in the notes.
        count: Jobs at once.
    """

    def __init__(
        self,
        *,
        take: Callable[[], Work | None],
        run: Callable[[Work], Any],
        first: int,
        count: int,
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._take = take
        self._run_work = run
        self._on_death = on_death
        self._free = list(range(first + count - 1, first - 1, -1))
        self.running: dict[Work, asyncio.Task[None]] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._called = False
        self._closing = False
        self.thread = threading.Thread(target=self._run, name="goose-async", daemon=True)

    def start(self) -> asyncio.AbstractEventLoop:
        """Start the thread; return its loop, which runs."""
        self.thread.start()
        self._ready.wait()
        assert self.loop is not None
        return self.loop

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                self.loop = runner.get_loop()
                self.loop.call_soon(self._ready.set)
                while not self._closing:
                    self._run_loop(self.loop)
        except BaseException as error:
            self._ready.set()
            self._on_death(error)
            raise

    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run until `close`, or until a job stops the loop, which must not end the others."""
        try:
            loop.run_forever()
        except SystemExit as error:
            # Of a task that a job made; it reaches whoever awaits that task, too.
            logger.error("a task made by an async job called sys.exit(%s); ignored", error.code)

    def call(self) -> None:
        """Have the loop look for work. Cheap when it was called already; from any thread."""
        if not self._called and self.loop is not None:
            self._called = True
            self.loop.call_soon_threadsafe(self._start_all)

    def _start_all(self) -> None:
        self._called = False
        while self._free:
            work = self._take()
            if work is None:
                return
            work.slot = self._free.pop()
            task = asyncio.get_running_loop().create_task(self._one(work))
            self.running[work] = task

    async def _one(self, work: Work) -> None:
        try:
            await self._run_work(work)
        finally:
            self._free.append(work.slot)
            del self.running[work]
            self._start_all()

    def tasks(self) -> list[tuple[Work, asyncio.Task[None]]]:
        """Return what runs; from any thread."""
        return list(self.running.items())

    def cancel(self, work: Work) -> None:
        """Cancel *work* if it runs here; from any thread."""
        task = self.running.get(work)
        if task is not None and self.loop is not None:
            self.loop.call_soon_threadsafe(task.cancel)

    def grow(self, numbers: Sequence[int]) -> None:
        """Have as many more slots as there are *numbers* for them; from any thread."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._free.extend, numbers)

    def interrupt(self) -> None:
        """Cancel everything that runs; from any thread."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._cancel_all)

    def _cancel_all(self) -> None:
        for work, task in list(self.running.items()):
            work.interrupted = True
            task.cancel()

    def close(self, wait: float = 2.0) -> None:
        """End the loop and give its thread *wait* seconds for that."""
        self._closing = True
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(wait)
