"""What the main thread of a worker process does between its `Ready` and its end.

It hears the supervisor, and looks for its own reasons to leave: enough jobs, too much memory,
changed source, nothing left to do. Jobs run on other threads, so nothing they do or receive
gets in its way.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Protocol

from goose.brokers.base import Session
from goose.errors import BrokerError
from goose.metrics.base import Metrics
from goose.metrics.fanout import Fanout
from goose.worker.control import (
    Bootstrap,
    Count,
    Dump,
    Empty,
    Leaving,
    Message,
    NewSession,
    Stop,
    Stopped,
)
from goose.worker.standing import RunnerStatistics

logger = logging.getLogger("goose.worker.child")

LOOK_SECONDS = 1.0
"""Between two looks at memory and source files."""


class Work(Protocol):
    """What `Duty` needs of a `Runner`."""

    def stop(self, grace: float) -> bool:
        """Stop within *grace* seconds and a little; say whether nothing runs any more."""
        ...

    def new_session(self, session: Session) -> None:
        """Go on under another session."""
        ...

    def statistics(self) -> RunnerStatistics:
        """Return its numbers."""
        ...

    def is_empty(self) -> bool:
        """Say whether nothing is left to do."""
        ...

    def dump(self) -> None:
        """Log every running job with its stack."""
        ...


class Duty:
    """What a child's main thread does between `Ready` and its end; `step` it until it returns.

    Args:
        bootstrap: What the child was told.
        work: Its runner, started.
        send: Sends a message to the supervisor.
        make_way: Frees what a successor needs at once: ports that metrics listen on.
        metrics: Counts what the supervisor did or measured.
        hand_over: Hands this process's numbers to the supervisor; told whether it is the end.
        rss: Returns the resident memory, in bytes.
        changed: Returns a changed source file, if any; None does not look.
    """

    def __init__(
        self,
        bootstrap: Bootstrap,
        work: Work,
        *,
        send: Callable[[Message], bool],
        make_way: Callable[[], None] = lambda: None,
        metrics: Metrics | None = None,
        hand_over: Callable[[float, bool], None] = lambda now, last: None,
        rss: Callable[[], int] = lambda: 0,
        changed: Callable[[], str | None] | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._work = work
        self._send = send
        self._make_way = make_way
        self._metrics = metrics or Fanout()
        self._hand_over = hand_over
        self._rss = rss
        self._changed = changed
        self._grace = float(bootstrap.config["grace"])
        self._stopping: threading.Thread | None = None
        self._give_up_at = math.inf
        self._clean = False
        self._empty = False
        self._next_look = -math.inf

    def step(self, now: float, messages: list[Message], *, terminated: bool) -> bool | None:
        """Do what there is to do at *now* (monotonic).

        Returns:
            None while there is work; then whether it ended with nothing running.
        """
        for message in messages:
            self._hear(message, now)
        if terminated:
            self._stop(now, self._grace)
        self._hand_over(now, False)
        if self._stopping is None:
            self._look_around(now)
        elif not self._stopping.is_alive() or now >= self._give_up_at:
            clean = self._clean and not self._stopping.is_alive()
            self._hand_over(now, True)
            if clean and self._empty:
                self._send(Empty())
            self._send(Stopped(clean))
            return clean
        return None

    def _hear(self, message: Message, now: float) -> None:
        match message:
            case Stop():
                if message.make_way:
                    self._free()
                self._stop(now, message.grace)
            case Count():
                for name, value, tags in message.increments:
                    self._metrics.increment(name, value, tags)
                for name, number, tags in message.gauges:
                    self._metrics.gauge(name, number, tags)
            case Dump():
                self._work.dump()
            case NewSession():
                self._work.new_session(Session(message.id, message.epoch))
            case _:
                logger.warning("the supervisor sent %s; ignored", type(message).__name__)

    def _look_around(self, now: float) -> None:
        bootstrap = self._bootstrap
        processed = self._work.statistics().processed
        if bootstrap.max_jobs is not None and processed >= bootstrap.max_jobs:
            self._leave(now, f"it has run {processed} jobs (max-jobs {bootstrap.max_jobs})")
        elif bootstrap.until_empty and self._nothing_left():
            self._empty = True
            self._stop(now, self._grace)
        elif now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            # One that is too large from the start must not be replaced for ever.
            if bootstrap.max_rss is not None and processed and self._rss() > bootstrap.max_rss:
                self._leave(now, f"it uses more than {bootstrap.max_rss:,} bytes (max-rss)")
            elif self._changed is not None and (path := self._changed()):
                self._leave(now, f"{path} has changed", self._grace)

    def _nothing_left(self) -> bool:
        try:
            return self._work.is_empty()
        except BrokerError as error:
            logger.debug("cannot tell whether anything is left: %s", error)
            return False

    def _leave(self, now: float, reason: str, grace: float = math.inf) -> None:
        """Make way for a successor; what runs is not hurried unless *grace* says so."""
        self._free()
        self._send(Leaving(reason))
        self._stop(now, grace)

    def _free(self) -> None:
        """Make way, once: a port that was freed may be a successor's by now."""
        make_way, self._make_way = self._make_way, lambda: None
        make_way()

    def _stop(self, now: float, grace: float) -> None:
        if self._stopping is None:
            self._stopping = threading.Thread(target=self._run_stop, args=(grace,), daemon=True)
            self._stopping.start()
        elif now + grace < self._give_up_at:
            # It drains without haste already; the process then ends under what still runs,
            # and the supervisor gives that back.
            self._give_up_at = now + grace

    def _run_stop(self, grace: float) -> None:
        self._clean = self._work.stop(grace)
