"""The slots of one process: threads for sync functions, an event loop for async ones.

Their number may be raised while they work. It is never lowered: a slot too many finds no work,
since the buffer gives no more than it was told. So no thread has to be ended under a job.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from goose.worker.config import WorkerConfig
from goose.worker.engine import Engine
from goose.worker.execution import Interrupted
from goose.worker.slots import AsyncSlots, Parking, Slot
from goose.worker.work import Work

logger = logging.getLogger("goose.worker")


class Crew:
    """The slots of one process. `resize` is called by one thread, the rest by any.

    Args:
        on_death: Called with the error when a slot's thread has died.
    """

    def __init__(self, engine: Engine, on_death: Callable[[BaseException], None]) -> None:
        self._engine = engine
        self._on_death = on_death
        self._parking = Parking()
        config = engine.config
        self.asynchronous = AsyncSlots(
            take=engine.take_async,
            run=engine.arun,
            first=config.concurrency,
            count=config.async_slots,
            on_death=on_death,
        )
        self._async_count = config.async_slots
        self.slots = [self._slot(number) for number in range(config.concurrency)]

    def _slot(self, number: int) -> Slot:
        return Slot(
            number,
            take=self._engine.take,
            more=self._more,
            run=self._engine.run,
            parking=self._parking,
            on_death=self._on_death,
        )

    # --- life -----------------------------------------------------------------------------

    def start_loop(self) -> asyncio.AbstractEventLoop:
        """Start the thread of the event loop; return the loop, which runs."""
        return self.asynchronous.start()

    def start(self) -> None:
        """Start the threads of the slots."""
        for slot in self.slots:
            if slot.thread.ident is None:  # else `resize` has
                slot.thread.start()

    def park(self) -> None:
        """Have the threads take no more work, and end."""
        self._parking.close()

    def close(self, wait: float = 2.0) -> None:
        """End the event loop and give its thread *wait* seconds for that."""
        self.asynchronous.close(wait)

    # --- work -----------------------------------------------------------------------------

    def wake(self) -> None:
        """Have slots look for work, if there is some for them."""
        buffer = self._engine.buffer
        if buffer.waiting(is_async=False):
            self._parking.unpark()
            # The slot needs the interpreter's lock, which this thread would keep while it asks the
            # broker for more: half of what a job waits for after it has come to an idle worker.
            time.sleep(0)
        if buffer.waiting(is_async=True):
            self.asynchronous.call()

    def _more(self) -> bool:
        return self._engine.buffer.waiting(is_async=False) > 0

    def interrupt(self) -> None:
        """Interrupt all that runs, to be given back."""
        for work in list(self._engine.running):
            work.interrupted = True
        for slot in self.slots:
            work_now = slot.work
            if work_now is not None:
                slot.interrupt(work_now, Interrupted)
        self.asynchronous.interrupt()

    def cancel(self, work: Work) -> None:
        """Cancel *work* if its function is async; a sync one has to look at ``should_stop``."""
        self.asynchronous.cancel(work)

    def resize(self, config: WorkerConfig) -> None:
        """Have as many slots as *config* says; what runs goes on, in others too."""
        first = len(self.slots) + self._async_count
        threads = max(0, config.concurrency - len(self.slots))
        more = max(0, config.async_slots - self._async_count)
        if not self._engine.notes.grow(first + threads + more):
            logger.error("%d slots are more than can be noted; none is added", threads + more)
            return
        added = [self._slot(number) for number in range(first, first + threads)]
        # A list of its own: others go through the old one meanwhile.
        self.slots = [*self.slots, *added]
        for slot in added:
            slot.thread.start()
        self.asynchronous.grow(range(first + threads, first + threads + more))
        self._async_count += more
        self._engine.buffer.resize(config.concurrency, config.async_slots)
