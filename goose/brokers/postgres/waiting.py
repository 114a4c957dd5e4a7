"""Threads of this process that wait for jobs, and how to rouse them."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from goose._events import AutoResetEvent


class Sleeper:
    """One waiting thread."""

    def __init__(self, queues: Collection[str]) -> None:
        self.queues = frozenset(queues)
        self.woken = False
        """Somebody wants it to give up waiting."""
        self.roused = False
        """There may be a job for it."""
        self._event = AutoResetEvent()

    def sleep(self, seconds: float) -> bool:
        """Block for *seconds*, or until roused, also if that was since the last sleep.

        Returns:
            Whether it was roused because there may be a job.
        """
        self._event.wait(seconds)
        roused, self.roused = self.roused, False
        return roused

    def rouse(self) -> None:
        """End its sleep, or the next one."""
        self.roused = True
        self._event.set()

    def wake(self) -> None:
        """The same, for good."""
        self.woken = True
        self._event.set()


class Sleepers:
    """The sleepers of one broker object. Thread-safe; begins anew in a forked child."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._all: set[Sleeper] = set()
        self._pending = False

    @contextmanager
    def join(self, queues: Collection[str]) -> Iterator[Sleeper]:
        """Be a sleeper for the length of the block; woken at once if a `wake` is left over."""
        if self._process != os.getpid():
            self._begin()
        sleeper = Sleeper(queues)
        with self._guard:
            sleeper.woken, self._pending = self._pending, False
            self._all.add(sleeper)
        try:
            yield sleeper
        finally:
            with self._guard:
                self._all.discard(sleeper)

    def rouse(self, queues: Collection[str] | None = None) -> None:
        """Let those look who wait for one of *queues*; None: everybody."""
        with self._guard:
            for sleeper in self._all:
                if queues is None or not sleeper.queues.isdisjoint(queues):
                    sleeper.rouse()

    def wake(self) -> None:
        """End all waits of now, or else the next one."""
        with self._guard:
            for sleeper in self._all:
                sleeper.wake()
            self._pending = not self._all
