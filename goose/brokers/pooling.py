"""Lends connections, each to one call at a time, and no more than there may be.

Calls are made in the threads of jobs, too, where a timeout may raise something at any step. So nothing
here relies on a step that was begun being finished:

* A place is taken as long as somebody knows its loan, not until a count is put right. References
  to loans that nobody knows any more are looked for when all places seem to be taken.
* Who waits is woken by who gives back, but looks by himself after a moment, too: it may be that who was
  woken is interrupted just then.
* There are only locks, entered by ``with``. A condition is Python code, which can be left with its lock in
  the wrong state. They are reentrant, since a finalizer may enqueue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import ref

C = TypeVar("C")
LOOK = 0.05
"""Seconds after which who waits looks by himself."""


class Loan(Generic[C]):
    """What a call has: a place among all, and a connection."""

    __slots__ = ("__weakref__", "connection")

    connection: C
    """Missing while it is made."""


class Pool(Generic[C]):
    """Thread-safe, but not in a forked child, which begins with another.

    Args:
        limit: How many connections there may be.
        make: Makes one, in the caller's thread.
    """

    def __init__(self, limit: int, make: Callable[[], C]) -> None:
        self._limit = limit
        self._make = make
        self._closed = False
        self._idle: list[Loan[C]] = []
        self._loans: set[ref[Loan[C]]] = set()
        """Those that are idle, those that somebody has, and some that nobody knows any more."""
        self._lock = threading.RLock()
        self._bell = threading.Lock()
        """Free if it has been rung and nobody has heard it."""
        self._bell.acquire()

    def take(self, patience: float) -> Loan[C] | None:
        """Return a loan, which is to be given back, or None if all are taken for *patience* seconds.

        Raises:
            Exception: Whatever the making of a connection raises.
        """
        deadline = 0.0
        while True:
            with self._lock:
                if self._idle:
                    return self._idle.pop()
                if self._has_room():
                    loan: Loan[C] = Loan()
                    self._loans.add(ref(loan))
                    break
            now = time.monotonic()
            deadline = deadline or now + patience
            if now >= deadline:
                return None
            self._bell.acquire(timeout=min(deadline - now, LOOK))
        try:
            loan.connection = self._make()
        except BaseException:
            self.give(loan, keep=False)
            raise
        return loan

    def _has_room(self) -> bool:
        if len(self._loans) >= self._limit:
            self._loans.difference_update([known for known in self._loans if known() is None])
        return len(self._loans) < self._limit

    def give(self, loan: Loan[C], *, keep: bool = True) -> bool:
        """Take back *loan*; return whether its connection will be lent again, as it is unless all was closed.

        Args:
            loan: The loan.
            keep: Whether its connection can be.
        """
        with self._lock:
            keep = keep and not self._closed
            if keep:
                self._idle.append(loan)
            else:
                # Whoever keeps an error may know it for long.
                self._loans.discard(ref(loan))
        self._ring()
        return keep

    def drop(self) -> list[C]:
        """Return the connections that are idle, which are lent no more."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._loans.difference_update([ref(loan) for loan in idle])
        return [loan.connection for loan in idle]

    def close(self) -> list[C]:
        """Return the connections that are idle; from now on none is kept."""
        with self._lock:
            self._closed = True
        return self.drop()

    def all(self) -> list[C]:
        """Return all connections, idle or not; for a forked child, in which nobody else is."""
        loans = [known() for known in self._loans]
        return [loan.connection for loan in loans if loan and hasattr(loan, "connection")]

    def _ring(self) -> None:
        try:  # noqa: SIM105 - which is Python code, to be interrupted in
            self._bell.release()
        except RuntimeError:  # it was rung before
            pass
