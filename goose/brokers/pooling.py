"""Lends connections, each to one call at a time, and no more than there may be.

Calls are made in the threads of jobs, too, where a timeout may raise something at any step. So nothing
here relies on a step that was begun being finished:

* A place is taken as long as somebody knows its loan (or keeps the error of who was interrupted as
  he had it), not until a count is put right. References to loans that nobody knows any more are
  looked for when all places seem to be taken.
* Who waits is woken by who gives back, but looks by himself after a moment, too: it may be that who was
  woken is interrupted just then. Those who wait are known by weak references as well.
* There are only locks, entered by ``with``. A condition is Python code, which can be left with its lock in
  the wrong state. They are reentrant, since a finalizer or a signal handler may enqueue.

Whoever comes takes what is free, so that busy threads need not change places at each call; but who has waited
for a moment is handed the next loan that is given back.

A forked child begins with none. Its copies of its parent's are closed at once, without a word to the server,
so that those of the parent go on, and end when it ends.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakSet, ref

C = TypeVar("C")
LOOK = 0.05
"""Seconds after which who waits looks by himself, and is served before those who come."""


class Loan(Generic[C]):
    """What a call has: a place among all, and a connection."""

    __slots__ = ("__weakref__", "connection")

    connection: C
    """Missing while it is made."""


class _Turn(Generic[C]):
    """Of somebody who waits."""

    __slots__ = ("__weakref__", "gate", "loan", "since_mono")

    def __init__(self) -> None:
        self.since_mono = time.monotonic()
        self.loan: Loan[C] | None = None
        """What he was handed."""
        self.gate = threading.Lock()
        """Free when he should look."""
        self.gate.acquire()


class Pool(Generic[C]):
    """Thread-safe, and on both sides of a fork.

    Args:
        limit: How many connections there may be.
        make: Makes one, in the caller's thread.
        forsake: Closes the copy of one in a child.
    """

    def __init__(self, limit: int, make: Callable[[], C], forsake: Callable[[C], object]) -> None:
        self._limit = limit
        self._make = make
        self._forsake = forsake
        self._closed = False
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        self._idle: list[Loan[C]] = []
        self._loans: set[ref[Loan[C]]] = set()
        """Those that are idle, those that somebody has, and some that nobody knows any more."""
        self._line: deque[ref[_Turn[C]]] = deque()
        """Those who wait, and some who do not any more."""
        self._lock = threading.RLock()

    def take(self, patience: float) -> Loan[C] | None:
        """Return a loan, which is to be given back, or None if all are taken for *patience* seconds.

        Raises:
            Exception: Whatever the making of a connection raises.
        """
        with self._lock:
            if self._idle:
                return self._idle.pop()
        loan = self._free() or self._wait(patience)
        if loan is not None and not hasattr(loan, "connection"):
            try:
                loan.connection = self._make()
            except BaseException:
                self.give(loan, keep=False)
                raise
        return loan

    def _free(self) -> Loan[C] | None:
        """Return an idle loan, or one without a connection yet, or None if all are taken."""
        loan: Loan[C] = Loan()
        known = ref(loan)
        with self._lock:
            if self._idle:
                return self._idle.pop()
            # First taken, then looked at: so nobody who comes in between takes the same place.
            self._loans.add(known)
            if len(self._loans) > self._limit:
                self._loans.difference_update(
                    [each for each in tuple(self._loans) if each() is None]
                )
            if len(self._loans) <= self._limit:
                return loan
            self._loans.discard(known)
        return None

    def _wait(self, patience: float) -> Loan[C] | None:
        if self._lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - nobody could give back
            return None
        turn: _Turn[C] = _Turn()
        me = ref(turn)
        deadline = turn.since_mono + patience
        loan: Loan[C] | None = None
        with self._lock:
            self._line.append(me)
        try:
            while loan is None and (left := deadline - time.monotonic()) > 0:
                turn.gate.acquire(timeout=min(left, LOOK))
                loan = turn.loan or self._free()
        finally:
            with self._lock:
                if me in self._line:
                    self._line.remove(me)
        if loan is None:
            return turn.loan
        if turn.loan is not None and turn.loan is not loan:
            self.give(turn.loan)  # it came while he helped himself
        return loan

    def give(self, loan: Loan[C], *, keep: bool = True) -> bool:
        """Take back *loan*; return whether its connection will be lent again, as it is unless all was closed.

        Args:
            loan: The loan.
            keep: Whether its connection can be.
        """
        with self._lock:
            keep = keep and not self._closed
            first = self._first() if self._line else None
            if not keep:
                # Whoever keeps an error may know it for long.
                self._loans.discard(ref(loan))
            elif first is not None and time.monotonic() - first.since_mono >= LOOK:
                self._line.popleft()
                first.loan = loan
            else:
                self._idle.append(loan)
        if first is not None:
            try:  # noqa: SIM105 - which is Python code, to be interrupted in
                first.gate.release()
            except RuntimeError:  # he is to look already
                pass
        return keep

    def _first(self) -> _Turn[C] | None:
        while self._line:
            turn = self._line[0]()
            if turn is not None:
                return turn
            self._line.popleft()
        return None

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

    def _begin_in_child(self) -> None:
        inherited = [each() for each in self._loans]
        self._begin()
        for loan in inherited:
            if loan is not None and hasattr(loan, "connection"):
                self._forsake(loan.connection)


_all: WeakSet[Pool[Any]] = WeakSet()


def _begin_all_in_child() -> None:
    for pool in list(_all):
        pool._begin_in_child()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_begin_all_in_child)
