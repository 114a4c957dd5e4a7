"""Threads of this process that wait for the file to change, and how to rouse them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from goose._events import AutoResetEvent


class Sleeper:
    """One waiting thread. Cheaper than a condition: an idle worker sleeps 150 times a second."""

    __slots__ = ("_event", "owner", "woken")

    def __init__(self, owner: object) -> None:
        self.owner = owner
        self.woken = False
        """Somebody wants it to give up waiting."""
        self._event = AutoResetEvent()

    def sleep(self, seconds: float) -> None:
        """Block for *seconds* or until roused, also if that was since the last sleep."""
        self._event.wait(seconds)

    def rouse(self) -> None:
        """End its sleep, or the next one."""
        self._event.set()


class Sleepers:
    """The sleepers of one file. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._all: set[Sleeper] = set()

    @contextmanager
    def join(self, owner: object) -> Iterator[Sleeper]:
        """Be a sleeper of *owner* for the length of the block."""
        sleeper = Sleeper(owner)
        with self._guard:
            self._all.add(sleeper)
        try:
            yield sleeper
        finally:
            with self._guard:
                self._all.discard(sleeper)

    def rouse(self) -> None:
        """Let everybody look: the file has changed."""
        if self._all:
            with self._guard:
                for sleeper in self._all:
                    sleeper.rouse()

    def wake(self, owner: object) -> bool:
        """End the waiting of the sleepers of *owner*; return whether there are any."""
        with self._guard:
            found = [sleeper for sleeper in self._all if sleeper.owner is owner]
            for sleeper in found:
                sleeper.woken = True
                sleeper.rouse()
        return bool(found)
