"""The threads of one worker process: a loop for each step, the slots, the event loop.

They hold no logic. Each loop calls one step of the engine over and over, each slot runs one job
at a time, and the wires between them are here: an outcome kicks the loop that settles, room
kicks the one that fetches, work wakes a slot.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping

from goose.worker.clock import Clock
from goose.worker.config import WorkerConfig
from goose.worker.engine import Engine
from goose.worker.execution import Interrupted
from goose.worker.follower import open_queues
from goose.worker.loops import Loop, Step
from goose.worker.slots import AsyncSlots, Parking, Slot
from goose.worker.stops import Stops
from goose.worker.watch import Watch

logger = logging.getLogger("goose.worker")


class Threads:
    """Runs *engine*: the event loop from `start_async` on, the rest from `start` on.

    Args:
        engine: Whose steps to call; its kicks are connected here.
        steps: What runs besides the steps of the engine itself, by the loop's name; one under the
            name of the engine's takes its place.
        on_tick: Called with the monotonic time about every 0.1 s while the process makes progress.
        on_death: Called with the error when one of the threads has died.
    """

    def __init__(
        self,
        engine: Engine,
        config: WorkerConfig,
        steps: Mapping[str, Step],
        *,
        clock: Clock,
        random: random.Random,
        on_tick: Callable[[float], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._random = random
        self._on_death = on_death
        self._parking = Parking()
        self._slots = [self._slot(number) for number in range(config.concurrency)]
        self._async = AsyncSlots(
            take=engine.take_async,
            run=engine.arun,
            first=config.concurrency,
            count=config.async_slots,
            on_death=on_death,
        )
        self._watch = Watch(
            lambda: self._slots,
            engine.buffer,
            slow_after=config.slow_after,
            settle=engine.settle,
            tick=on_tick,
            clock=clock,
            async_slots=self._async,
        )
        self._async_count = config.async_slots
        named = self._engines_own() | dict(steps)
        self._loops = {name: self._loop(name, step) for name, step in named.items()}
        engine.kicks.fetch = self._loops["fetch"].kick
        engine.kicks.settle = self._loops["settle"].kick
        engine.kicks.slots = self._wake_slots
        engine.kicks.progress = self._loops["progress"].kick
        engine.kicks.checkpoints = self._loops["cursors"].kick

    def _slot(self, number: int) -> Slot:
        return Slot(
            number,
            take=self._engine.take,
            more=self._more,
            run=self._engine.run,
            parking=self._parking,
            on_death=self._on_death,
        )

    def _engines_own(self) -> dict[str, Step]:
        return {
            "fetch": self._engine.fetcher.step,
            "settle": self._engine.settler.step,
            "watch": self._watch.step,
            "orphans": self._engine.checker.step,
            "promote": self._engine.promoter.step,
            "progress": self._engine.progress.step,
        }

    def _loop(self, name: str, step: Step) -> Loop:
        return Loop(
            name,
            step,
            clock=self._clock,
            random=self._random,
            on_death=self._on_death,
            on_failure=self._engine.report.broker_failed,
            on_success=self._engine.report.broker_works_again,
        )

    # --- life -----------------------------------------------------------------------------

    def start_async(self) -> asyncio.AbstractEventLoop:
        """Start the event loop alone, for resources that live on it; return it."""
        return self._async.start()

    def start(self) -> None:
        """Start all the others."""
        for slot in self._slots:
            if slot.thread.ident is None:  # else `resize` has
                slot.thread.start()
        for loop in self._loops.values():
            loop.start()

    def kick(self, name: str) -> bool:
        """Have the step of this name called now; say whether there is one."""
        loop = self._loops.get(name)
        if loop is not None:
            loop.kick()
        return loop is not None

    def stop(self, name: str) -> None:
        """Have the step of this name called no more."""
        self._loops[name].stop()

    def stop_all(self) -> None:
        """Have no step called any more."""
        for loop in self._loops.values():
            loop.stop()

    def join(self, name: str, timeout: float) -> None:
        """Wait up to *timeout* seconds for the loop of this name, which was stopped, if there is one."""
        loop = self._loops.get(name)
        if loop is not None:
            loop.join(timeout)

    def interrupt(self) -> None:
        """Interrupt whatever runs."""
        for slot in self._slots:
            work = slot.work
            if work is not None:
                slot.interrupt(work, Interrupted)
        self._async.interrupt()

    # --- orders, carried out for a `goose.worker.follower.Follower` ------------------------------

    @property
    def config(self) -> WorkerConfig:
        """How it works now."""
        return self._engine.config

    @property
    def stops(self) -> Stops:
        """What must not start or go on here."""
        return self._engine.stops

    @property
    def running(self) -> int:
        """Jobs in its slots."""
        return self._engine.buffer.running

    def work_by(self, config: WorkerConfig, paused: frozenset[str]) -> None:
        """Work so from now on, but take nothing from *paused* queues; for one thread."""
        self.resize(config)
        self._engine.config = config
        self._engine.fetcher.serve(open_queues(config, paused))
        self.kick("fetch")

    def sift(self) -> None:
        """Have stopped jobs start nowhere here; async functions that are to end are cancelled."""
        for work in self._engine.sift():
            self._async.cancel(work)

    def resize(self, config: WorkerConfig) -> None:
        """Have as many slots as *config* says; what runs goes on. For one thread.

        Slots are never taken away: one too many finds no work, since the buffer gives no more
        than it was told, and so no thread has to be ended under a job.
        """
        first = len(self._slots) + self._async_count
        threads = max(0, config.concurrency - len(self._slots))
        more = max(0, config.async_slots - self._async_count)
        if not self._engine.notes.grow(first + threads + more):
            logger.error("%d slots are more than can be noted; none is added", threads + more)
            return
        added = [self._slot(number) for number in range(first, first + threads)]
        # A list of its own: others go through the old one meanwhile.
        self._slots = [*self._slots, *added]
        for slot in added:
            slot.thread.start()
        self._async.grow(range(first + threads, first + threads + more))
        self._async_count += more
        self._engine.buffer.resize(config.concurrency, config.async_slots)
        self._wake_slots()

    def let_slots_go(self) -> None:
        """End the slots that run nothing, and the others after their job."""
        self._parking.close()

    def close_async(self, wait: float = 2.0) -> None:
        """End the event loop and give its thread *wait* seconds for that."""
        self._async.close(wait)

    def dump(self) -> None:
        """Log every running job with its stack; from any thread."""
        self._watch.dump(self._clock.mono())

    # --- the wires ------------------------------------------------------------------------

    def _wake_slots(self) -> None:
        buffer = self._engine.buffer
        if buffer.waiting(is_async=False):
            self._parking.unpark()
            # The slot needs the interpreter's lock, which this thread would keep while it asks the
            # broker for more: half of what a job waits for after it has come to an idle worker.
            time.sleep(0)
        if buffer.waiting(is_async=True):
            self._async.call()

    def _more(self) -> bool:
        return self._engine.buffer.waiting(is_async=False) > 0
