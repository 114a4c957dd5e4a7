"""Are jobs getting done? `Monitor` looks, remembers, and calls you when that changes.

A queue is unwell while one of its jobs has been failing for longer than is allowed, or one died
not longer ago than that, as this monitor saw. A job that fails and comes back is no news; one that goes on failing
is. What is looked at is stored with the jobs anyway, so nothing has to be recorded for it.

Two things keep a monitor from crying wolf. It says nothing in the first seconds after its start,
in which a backlog from before is worked off. And a change counts only once several looks in a
row have said the same: then `Monitor.on_unhealthy` is called, and again from time to time while
it lasts, or `Monitor.on_recovered`, once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Self

from goose.brokers.base import QueueStats, State
from goose.clients import Client
from goose.errors import BrokerError
from goose.inspecting import Inspection, StoredJob
from goose.values import seconds

logger = logging.getLogger("goose.health")

LOOKS_AT = 1_000
"""Jobs of each state and queue that one look reads at most."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a queue is unwell."""

    queue: str
    """Empty where the broker itself cannot be looked at."""
    reason: str
    """For people."""
    job: str | None = None
    """The id of a job that shows it."""


class Monitor:
    """Looks at queues every few seconds, from `start` (or ``with``) until `stop`.

    `healthy` may be called from any thread; callbacks are called from the monitor's own, one at
    a time, and what they raise is logged.

    Args:
        client: Whose broker is looked at.
        queues: Only these; None for all that hold a job.
        allowed: Seconds for which a job may fail before that counts, and for which a death does.
        grace: Seconds after the start in which nothing counts.
        every: Seconds between looks.
        looks: How many in a row must say the same before it is believed.
        repeat: Seconds after which `on_unhealthy` is called again while it lasts.
        on_unhealthy: Called with the problems.
        on_recovered: Called without arguments.
        clock: Returns epoch seconds, as jobs are marked with.
    """

    def __init__(
        self,
        client: Client,
        *,
        queues: Sequence[str] | None = None,
        allowed: float = 900.0,
        grace: float = 60.0,
        every: float = 10.0,
        looks: int = 3,
        repeat: float = 3600.0,
        on_unhealthy: Callable[[Sequence[Problem]], object] = lambda _: None,
        on_recovered: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._queues = queues
        self._allowed = seconds(allowed, "allowed")
        self._grace = seconds(grace, "grace")
        self._every = seconds(every, "every")
        self._looks = max(1, looks)
        self._repeat = seconds(repeat, "repeat")
        self._on_unhealthy = on_unhealthy
        self._on_recovered = on_recovered
        self._clock = clock
        self._begun: float | None = None
        self._agreeing = 0
        self._told_at = 0.0
        self._problems: tuple[Problem, ...] = ()
        self._has_looked = False
        self._dead: dict[str, int] = {}
        self._died_at: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def problems(self) -> Sequence[Problem]:
        """What is believed to be wrong; nothing while all is well."""
        return self._problems

    def healthy(self) -> bool:
        """Say whether all is believed to be well; True as long as nothing else is known."""
        return not self._problems

    def step(self) -> float:
        """Look once, and call who is to be called; return the seconds until the next look."""
        now = self._clock()
        if self._begun is None:
            self._begun = now
        found = tuple(self._look(now))
        if now - self._begun < self._grace:
            return self._every
        # As long as it lasts, what is told is what was seen last.
        self._agreeing = self._agreeing + 1 if bool(found) != bool(self._problems) else 0
        if self._agreeing >= self._looks:
            self._agreeing = 0
            self._problems = found
            self._tell(now)
        elif found and self._problems:
            self._problems = found
            if now - self._told_at >= self._repeat:
                self._tell(now)
        return self._every

    def _tell(self, now: float) -> None:
        self._told_at = now
        problems = self._problems
        try:
            if problems:
                logger.warning("unhealthy: %s", "; ".join(problem.reason for problem in problems))
                self._on_unhealthy(problems)
            else:
                logger.info("healthy again")
                self._on_recovered()
        except Exception:
            logger.exception("a callback of the health monitor failed")

    # --- looking -------------------------------------------------------------------------

    def _look(self, now: float) -> Iterator[Problem]:
        try:
            inspection = self._client.inspector
            for stats in inspection.queues():
                if self._queues is not None and stats.queue not in self._queues:
                    continue
                problem = self._failing(inspection, stats.queue, now) or self._dying(stats, now)
                if problem is not None:
                    yield problem
            self._has_looked = True
        except BrokerError as error:
            yield Problem("", f"the broker cannot be looked at: {error}")

    def _failing(self, inspection: Inspection, queue: str, now: float) -> Problem | None:
        """Return what is wrong with the jobs of *queue* that wait for a retry.

        The next that are due are looked at: those that fail come back soon.
        """
        for state in (State.SCHEDULED, State.READY):
            for stored in islice(inspection.find(state, queue), LOOKS_AT):
                since = _failing_since(stored)
                if since is not None and now - since > self._allowed:
                    return Problem(
                        queue,
                        f"job {stored.id} of queue {queue} has been failing for {now - since:.0f} s",
                        stored.id,
                    )
        return None

    def _dying(self, stats: QueueStats, now: float) -> Problem | None:
        """Return what is wrong if there were fewer dead jobs at a look not long ago."""
        dead = stats.counts.get(State.DEAD) or 0
        # Those of before the first look are old news; a queue that comes later had none.
        if dead > self._dead.get(stats.queue, 0 if self._has_looked else dead):
            self._died_at[stats.queue] = now
        self._dead[stats.queue] = dead
        died_at = self._died_at.get(stats.queue)
        if died_at is None or now - died_at > self._allowed:
            return None
        ago = f"{now - died_at:.0f} s ago"
        return Problem(stats.queue, f"jobs of queue {stats.queue} died, the last {ago}")

    # --- life ----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look, on a thread."""
        if self._thread is None:
            self._begun = self._clock()
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="goose-health", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Look no more; returns once a look that is under way has ended."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            pause = self.step()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _failing_since(stored: StoredJob) -> float | None:
    """Return since when *stored* fails, epoch seconds; None if it does not."""
    job = stored.job
    return job.failure.first_at if job is not None and job.attempt and job.failure else None
