"""Who deals with a connection: its own thread, or for a moment somebody else's.

The two take turns under one lock. The connection's thread holds it while it deals with anything,
and lets it go while it waits for something to happen (`loop_under`). Somebody who has nothing to do
until the connection brings something may wait for that himself, and deal with it; whoever has other
news for him rings his `Bell`. Whatever is said elsewhere to be done on the connection's thread is
done by who has the lock.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, cast

from pika.adapters.select_connection import IOLoop

_LONGEST = 3600.0
"""Seconds; `poll` cannot wait for more than some weeks."""


class Freight(Protocol):
    """What a connection is for."""

    def up(self, connection: Any) -> None:
        """Begin on a new connection."""
        ...

    def down(self, error: BaseException) -> None:
        """Give up what was under way: the connection is lost, or could not be made."""
        ...

    def unblocked(self) -> None:
        """Go on: the server takes messages again."""
        ...

    def waiting(self) -> bool:
        """Say whether the connection is needed now."""
        ...


def loop_under(lock: threading.Lock) -> IOLoop:
    """Return a loop that holds *lock* while it deals with anything, and not while it waits."""
    loop: Any = IOLoop()
    # The driver has no public way in between; these two are all that it does with what happened.
    poller = loop._poller  # noqa: SLF001
    handlers = poller._fd_handlers  # noqa: SLF001
    dispatch, process = poller._dispatch_fd_events, poller._process_timeouts  # noqa: SLF001

    def dispatch_alone(events: dict[int, int]) -> None:
        with lock:
            # Who had the lock until now may have given up what something happened to.
            dispatch({where: what for where, what in events.items() if where in handlers})

    def process_alone() -> None:
        with lock:
            process()

    poller._dispatch_fd_events, poller._process_timeouts = dispatch_alone, process_alone  # noqa: SLF001
    return cast("IOLoop", loop)


def _pipe(owner: object) -> tuple[int, int]:
    """Return the ends of a pipe that nobody waits at, to read from and to write to; closed with *owner*."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
        # Not at the interpreter's exit, when somebody may still ring: the number might be another's by then.
        weakref.finalize(owner, os.close, end).atexit = False
    return ends


class Waker:
    """Has a loop call *heed* soon. `ring` may be called from any thread, by a signal handler, and be interrupted.

    The driver has a way of its own, and takes a lock on it: a signal handler that comes into the thread
    which has that would wait for itself.
    """

    def __init__(self, loop: IOLoop, heed: Callable[[], object]) -> None:
        self._heed = heed
        self._ear, self._button = _pipe(self)
        loop.add_handler(self._ear, self._hear, loop.READ)

    def ring(self) -> None:
        """Have it called."""
        try:  # noqa: SIM105 - which is Python code, to be interrupted in
            os.write(self._button, b"!")
        except BlockingIOError:  # it has been ringing for ages
            pass

    def leave(self, loop: IOLoop) -> None:
        """Let the loop, which does not run, forget it."""
        loop.remove_handler(self._ear)

    def _hear(self, *_: object) -> None:
        os.read(self._ear, 4096)
        self._heed()


class Bell:
    """Wakes the one thread that waits at it; any number may be about to.

    Attributes:
        rung: How often it was. Who reads this before he looks whether there is anything to wait for,
            and hands it to `wait`, misses no ring that comes in between.
    """

    def __init__(self) -> None:
        self._ear, self._button = _pipe(self)
        self._poll = select.poll()
        self._poll.register(self._ear, select.POLLIN)
        self.rung = 0
        self._armed = False

    def ring(self) -> None:
        """Wake who waits, or is about to; costs next to nothing if nobody is. One thread at a time."""
        self.rung += 1
        if self._armed:
            self._armed = False
            with contextlib.suppress(BlockingIOError):  # it has been ringing for ages, unheard
                os.write(self._button, b"!")

    def wait(self, source: int, heard: int, seconds: float) -> bool:
        """Wait for a ring, or for *source* to have something to read; say whether that has.

        One thread at a time. May return before its time for no reason.

        Args:
            source: A file descriptor.
            heard: What `rung` was; it does not wait if it has been rung since.
            seconds: To wait at most.
        """
        happened: dict[int, int] = {}
        self._poll.register(source, select.POLLIN)
        try:
            self._armed = True
            if self.rung == heard:
                happened = dict(self._poll.poll(math.ceil(1000.0 * min(seconds, _LONGEST))))
        finally:
            self._armed = False
            self._poll.unregister(source)
        if self._ear in happened:
            os.read(self._ear, 4096)
        return source in happened
