"""A thread that calls a step, over and over, whatever the step meets.

Steps hold the logic and threads only call them, so that a simulator can call the same steps
under a clock of its own. A step takes the monotonic time and returns the seconds until it
wants to be called again. What it raises does not end the loop: it is logged, once per outage
at full length, and the step is called again after a jittered, growing, bounded delay.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from goose.errors import BrokerError
from goose.worker.clock import Clock

logger = logging.getLogger("goose.worker")

BACKOFF = 0.05
"""Seconds: ceiling of the delay after the first failure in a row; doubles each time."""
BACKOFF_LIMIT = 2.0
"""Seconds: no delay is longer, so that work resumes soon after an outage."""

Step = Callable[[float], float]


class Backoff:
    """Counts failures in a row and says how long to wait after each: full jitter."""

    def __init__(self, random: random.Random) -> None:
        self._random = random
        self.failures = 0

    def failed(self) -> float:
        """Note a failure; return the seconds to wait."""
        self.failures += 1
        ceiling = min(BACKOFF * 2.0 ** min(self.failures, 16), BACKOFF_LIMIT)
        return self._random.uniform(0.0, ceiling)

    def succeeded(self) -> bool:
        """Note a success; say whether it ends a row of failures."""
        ended, self.failures = self.failures > 0, 0
        return ended


class Loop:
    """Calls *step* from a thread of its own until `stop`.

    Args:
        name: For the thread and the log.
        step: What to call; returns seconds until the next call.
        on_death: Called if the thread itself ends by what no loop survives.
        on_failure: Called with the name when the broker failed the step.
        on_success: Called with the name when the step works again after failures.
    """

    def __init__(
        self,
        name: str,
        step: Step,
        *,
        clock: Clock,
        random: random.Random,
        on_death: Callable[[BaseException], None],
        on_failure: Callable[[str], None] = lambda _: None,
        on_success: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._on_failure = on_failure
        self._on_success = on_success
        self._name = name
        self._step = step
        self._clock = clock
        self._backoff = Backoff(random)
        self._on_death = on_death
        self._event = threading.Event()
        self._kicked = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"goose-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def kick(self) -> None:
        """Have the step called now. Cheap when it was kicked already; from any thread."""
        if not self._kicked:
            self._kicked = True
            self._event.set()

    def stop(self) -> None:
        """Ask the thread to end after the step it is in."""
        self._stopping = True
        self._event.set()

    def join(self, timeout: float) -> bool:
        """Wait up to *timeout* seconds for the thread to end; say whether it did."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping:
                delay = self._call()
                if delay > 0:
                    self._event.wait(delay)
                # Cleared before the step looks: a kick from here on is not forgotten.
                self._event.clear()
                self._kicked = False
        except BaseException as error:
            self._on_death(error)
            raise

    def _call(self) -> float:
        try:
            delay = self._step(self._clock.mono())
        except BrokerError as error:
            if self._backoff.failures == 0:
                logger.warning("%s: the broker failed: %s; trying again", self._name, error)
            self._on_failure(self._name)
            return self._backoff.failed()
        except Exception:
            logger.exception("%s failed; trying again", self._name)
            return self._backoff.failed()
        if self._backoff.succeeded():
            logger.info("%s: the broker works again", self._name)
            self._on_success(self._name)
        return delay
