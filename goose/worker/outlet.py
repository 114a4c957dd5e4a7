"""Standard output and error that never wait for their reader.

A pipe whose reader has stopped (a pager, a stuck log collector) fills up, and then whoever
writes to it waits: threads that run jobs, and the supervisor that sends their heartbeats. An
`Outlet` writes what can be written at once. What cannot waits in memory, up to `LIMIT`, for a
thread that does nothing else; beyond that lines are dropped, and counted in the log itself.

A file descriptor's flags belong to everybody who shares it, to the shell as well, so making it
non-blocking is out of the question. On Linux a pipe or terminal is opened once more through
``/proc``, which gives flags of our own; where that cannot be, everything goes through the thread.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1 << 20
"""Bytes that wait for a reader at most."""
FAREWELL = 0.5
"""Seconds that what waits has at the end of the process."""


class Outlet(io.RawIOBase):
    """Writes to file descriptor *fd* without waiting. Thread-safe."""

    def __init__(self, fd: int, *, limit: int = LIMIT) -> None:
        super().__init__()
        self._fd = fd
        self._limit = limit
        self._lock = threading.Lock()
        self._line: deque[bytes] = deque()
        self._waiting = 0
        self._dropped = 0
        self._draining = False
        self._try, self._let_go = _trying(fd)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Say whether it is a terminal."""
        return os.isatty(self._fd)

    def write(self, data: Any, /) -> int:
        """Write *data*, now or later."""
        left = bytes(data)
        size = len(left)
        with self._lock:
            if not self._draining and self._try is not None:
                left = left[self._try(left) :]
            if left:
                self._keep(left)
        return size

    def close(self) -> None:
        """Let go of what was opened for this; the descriptor stays open."""
        if not self.closed:
            self._let_go()
        super().close()

    def drain(self, seconds: float) -> bool:
        """Wait until nothing waits any more, at most *seconds*; say whether that is so."""
        deadline = time.monotonic() + seconds
        while self._draining and time.monotonic() < deadline:
            time.sleep(0.005)
        return not self._draining

    def _keep(self, data: bytes) -> None:
        """Leave *data* to the thread, or drop it. Lock held."""
        if self._waiting + len(data) > self._limit:
            self._dropped += data.count(b"\n") or 1
            return
        self._line.append(data)
        self._waiting += len(data)
        if not self._draining:
            self._draining = True
            threading.Thread(target=self._run, name="goose-outlet", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._line and self._dropped:
                    note = f"… {self._dropped:,} lines were dropped: nobody read them\n".encode()
                    self._dropped = 0
                    self._line.append(note)
                    self._waiting += len(note)
                if not self._line:
                    self._draining = False
                    return
                data = self._line.popleft()
            self._wait(data)
            with self._lock:
                self._waiting -= len(data)

    def _wait(self, data: bytes) -> None:
        """Write all of *data*, however long that takes."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while data:
            if self._try is None:
                try:
                    data = data[os.write(self._fd, data) :]
                except OSError:
                    return  # the reader is gone, and there is nobody to tell
            else:
                poll.poll(1000)
                data = data[self._try(data) :]


def _trying(fd: int) -> tuple[Callable[[bytes], int] | None, Callable[[], None]]:
    """Return what writes to *fd* as much as it takes at once, and what ends that.

    The first is None if there is no such way.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return lambda data: _all(fd, data), _nothing
    if stat.S_ISSOCK(mode):
        line = socket.socket(fileno=os.dup(fd))
        return lambda data: _some(lambda: line.send(data, socket.MSG_DONTWAIT), data), line.close
    try:
        own = os.open(
            f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        )
    except OSError:
        return None, _nothing
    return lambda data: _some(lambda: os.write(own, data), data), lambda: os.close(own)


def _nothing() -> None:
    pass


def _all(fd: int, data: bytes) -> int:
    written = 0
    try:
        while written < len(data):
            written += os.write(fd, data[written:])
    except OSError:
        return len(data)  # a full disk must not stop jobs, and this is where it would be told
    return written


def _some(write: Callable[[], int], data: bytes) -> int:
    try:
        return write()
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)  # the reader is gone, and there is nobody to tell


_outlets: list[Outlet] = []


def unblock() -> None:
    """Have this process's ``sys.stdout`` and ``sys.stderr`` write through outlets from now on.

    Only those that are the process's own: what somebody put in their place is left alone.
    """
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        with contextlib.suppress(AttributeError, OSError, ValueError):
            if stream.fileno() != fd or isinstance(stream, _Stream):
                continue
            stream.flush()
            outlet = Outlet(fd)
            _outlets.append(outlet)
            setattr(sys, name, _Stream(io.BufferedWriter(outlet), stream.encoding))
    if _outlets:
        atexit.unregister(farewell)
        atexit.register(farewell)


def farewell() -> None:
    """Give what waits a moment to be written; call it before an end without ceremony."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, _Stream):
            stream.flush()
    for outlet in _outlets:
        outlet.drain(FAREWELL)


class _Stream(io.TextIOWrapper):
    """Writes each line whole; what cannot be encoded is shown escaped."""

    def __init__(self, buffer: io.BufferedWriter, encoding: str) -> None:
        super().__init__(buffer, encoding, "backslashreplace", line_buffering=True)
