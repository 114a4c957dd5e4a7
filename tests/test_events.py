"""What threads that may be interrupted pass through."""

from __future__ import annotations

import threading
import time

import pytest

from goose._events import AutoResetEvent
from goose._interrupts import raise_in


class _Interrupt(BaseException):
    """What a timeout raises."""


@pytest.mark.timeout(120)
def test_whoever_is_interrupted_leaves_an_event_that_works() -> None:
    """Stopped at any step of setting it, again and again, a thread never keeps others from it."""
    event = AutoResetEvent()

    def use(begun: threading.Lock) -> None:
        try:
            begun.release()
            while True:
                event.set()
        except _Interrupt:
            pass

    for _ in range(300):
        begun = threading.Lock()
        begun.acquire()
        thread = threading.Thread(target=use, args=(begun,), daemon=True)
        thread.start()
        begun.acquire()
        assert thread.ident is not None
        raise_in(thread.ident, _Interrupt)
        thread.join(30)
        assert not thread.is_alive(), "it waits for itself"
        event.set()
        assert event.wait(30)
        assert not event.is_set()


def test_an_event_is_cleared_by_who_waits() -> None:
    """However often it was set, one wait ends at once, and the next one takes its time."""
    event = AutoResetEvent()
    assert not event.wait(0.0)
    event.set()
    event.set()
    assert event.is_set()
    assert event.wait()
    began = time.monotonic()
    assert not event.wait(0.01)
    assert time.monotonic() - began >= 0.009
    assert not event.wait(-1.0)
