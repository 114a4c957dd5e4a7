"""Waking one thread from others that may be interrupted at any step.

A timeout of a job raises in the job's thread, wherever that is: maybe in an enqueue, in the midst of
`threading.Event.set` or at the head of ``with condition:``. Both are Python code around a lock, and
leave it locked when they are stopped right after they got it (every second time, when one tries): then
whoever comes next waits for ever. A lock by itself is taken and given back in single steps. So
what such threads pass through uses ``with lock:``, and this instead of an event.
"""

from __future__ import annotations

import threading


class AutoResetEvent:
    """An event that is cleared by the one thread that waits for it, as it wakes."""

    __slots__ = ("_gate",)

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Say whether `wait` would return at once."""
        return not self._gate.locked()

    def set(self) -> None:
        """Wake who waits, or have the next wait end at once; from any thread."""
        try:  # noqa: SIM105 - which is Python code
            self._gate.release()
        except RuntimeError:  # it is set already
            pass

    def wait(self, seconds: float | None = None) -> bool:
        """Block until it is set, and clear it; for at most *seconds*, if given. Say whether it was set."""
        return self._gate.acquire(timeout=-1 if seconds is None else max(0.0, seconds))
