"""Runs the supervisor's broker calls beside its own loop.

A supervisor must answer signals and end stuck children even while the broker hangs. So it
never calls the broker itself: it sends somebody on an errand and looks at the result when
it is there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Submit(Protocol):
    """Starts an errand."""

    def __call__(self, errand: Callable[[], T], /) -> Future[T]:
        """Have *errand* run, once; what it returns or raises is in the future."""
        ...


class ThreadErrands:
    """Runs errands one after the other on one thread of its own.

    The thread never keeps the process from ending: an errand that hangs is left behind.

    Args:
        finished: Called on that thread after each errand.
    """

    def __init__(self, finished: Callable[[], None]) -> None:
        self._finished = finished
        self._queue: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="goose-errands", daemon=True).start()

    def __call__(self, errand: Callable[[], T], /) -> Future[T]:
        """Queue *errand*. Thread-safe."""
        future: Future[T] = Future()
        self._queue.put((errand, future))
        return future

    def _run(self) -> None:
        while True:
            errand, future = self._queue.get()
            run_into(errand, future)
            self._finished()


def run_into(errand: Callable[[], T], future: Future[T]) -> None:
    """Run *errand* here and put what it returns or raises into *future*."""
    try:
        result = errand()
    except Exception as error:  # noqa: BLE001 - whoever sent for it judges it
        future.set_exception(error)
    else:
        future.set_result(result)
