"""Keeps a backend's slowness to itself.

A backend of the user's own may do what it likes in its methods: open files, wait for servers.
Behind a `Detached` it does so on a thread of its own. Callers leave what they counted in a
line; when that is full the oldest numbers are dropped, and the log says so once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from goose._events import AutoResetEvent
from goose.metrics.base import Metrics, Tags
from goose.metrics.fanout import Fanout

logger = logging.getLogger("goose.metrics")

LINE = 50_000
"""Numbers that may wait for a backend."""
FAREWELL = 1.0
"""Seconds that what waits has at the end."""


def detached(backend: Metrics) -> Metrics:
    """Return *backend* as it may be called from anywhere: behind a thread, if it does not promise."""
    return backend if getattr(backend, "never_blocks", False) else Detached(backend)


class Detached:
    """One backend on its own thread. Thread-safe; nothing blocks but `close`.

    Args:
        backend: What it raises is logged, as by `Fanout`.
        line: Numbers that may wait.
    """

    never_blocks = True

    def __init__(self, backend: Metrics, *, line: int = LINE) -> None:
        self.backend = backend
        self.dropped = 0
        """Numbers given up because the backend was too slow."""
        self._guarded = Fanout([backend])
        self._line: deque[tuple[str, str, Any, Tags]] = deque()
        self._limit = line
        self._news = AutoResetEvent()
        self._busy = False
        self._closing = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def increment(self, name: str, value: int, tags: Tags) -> None:
        """Have *value* more of *name* counted."""
        self._add("increment", name, value, tags)

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        """Have it said that *name* is *value*."""
        self._add("gauge", name, value, tags)

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        """Have one duration of *seconds* recorded."""
        self._add("timing", name, seconds, tags)

    def flush(self, seconds: float = FAREWELL) -> bool:
        """Wait until the backend has everything, at most *seconds*; say whether it has."""
        deadline = time.monotonic() + seconds
        while self._line or self._busy:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, 0.01))
        return True

    def close(self) -> None:
        """Let the thread end, once the backend has what waits or a second has passed."""
        self.flush()
        self._closing = True
        self._news.set()

    def _add(self, verb: str, name: str, value: float, tags: Tags) -> None:
        if len(self._line) >= self._limit:
            self._drop()
        self._line.append((verb, name, value, tags))
        if not self._news.is_set():
            self._news.set()
        if self._thread is None:
            self._start()

    def _drop(self) -> None:
        with self._lock:
            if len(self._line) < self._limit:
                return
            self._line.popleft()
            self.dropped += 1
            first = self.dropped == 1
        if first:
            logger.warning(
                "metrics backend %s is too slow; numbers are dropped, jobs are not affected",
                type(self.backend).__name__,
            )

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                name = f"goose-metrics-{type(self.backend).__name__}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                try:
                    self._thread.start()
                except BaseException:
                    self._thread = None  # if it has begun after all, it looks, and ends
                    raise

    def _run(self) -> None:
        with self._lock:
            unwanted = self._thread is not threading.current_thread()
        if unwanted:
            return
        while not self._closing:
            self._news.wait()
            self._busy = True  # before anything leaves the line
            while self._line:
                verb, name, value, tags = self._line.popleft()
                getattr(self._guarded, verb)(name, value, tags)
            self._busy = False
