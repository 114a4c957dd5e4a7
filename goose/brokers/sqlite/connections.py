"""Opening a database file: two connections of a process to it, and what `fork` does to them.

One connection writes, one reads; neither is used by two threads at once (their locks are
here). They are opened at the first use and opened anew when the file was replaced by
another of the same name, or after an I/O error.

SQLite keeps its file locks per process, in memory that a forked child inherits while the
locks themselves stay with the parent. A child that used, or closed, an inherited connection
could thus damage the file, and so could one that opened it anew beside the stale memory.
Therefore both connections are closed *before* a fork, which waits for the transaction of
the moment, and each side opens its own when it needs one. If a thread does not let go in
time, the child keeps the inherited connections for ever, unused and unclosed.

Source: sqlite.org/howtocorrupt.html, sections 2.2 and 2.6.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator

from goose.errors import BrokerError, ConfigError

WAL_LIMIT = 4 * 1024 * 1024
"""Bytes of write-ahead log after which it is checkpointed; its file is cut back to this."""
PAGE_SIZE = 2048
"""Bytes of a page of a file made here. A lone enqueue writes three pages to the log and waits for
them to reach the disk: half of SQLite's default takes a tenth off the whole, and more would be
split into further pages too often."""
_LOOK_PAUSE = 0.01
"""Seconds for which a file that was there is taken to be there still."""
_FORK_PATIENCE = 5.0
"""Seconds a fork waits for a transaction of another thread."""


class Connections:
    """The writer and the reader of one file in this process.

    Attributes:
        writing: Hold it from before `writer` to the end of the transaction.
        reading: Hold it from before `reader` to the end of the query. When both are
            needed, take `writing` first.
        present: Namespaces whose tables are known to be in the file.
        opened: How many connections were opened so far.
    """

    def __init__(self, path: str, synchronous: str) -> None:
        self.path = path
        self.writing = threading.Lock()
        self.reading = threading.Lock()
        self.present: set[str] = set()
        self.opened = 0
        self._durable = True
        self._closed = False
        self._synchronous = synchronous
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._writer_file: tuple[int, int] | None = None
        self._reader_file: tuple[int, int] | None = None
        self._held_for_fork: list[threading.Lock] = []

    def is_ready(self, namespace: str) -> bool:
        """Whether the tables of *namespace* are known to be in the file that is there now."""
        return namespace in self.present and self._writer_file == self._identity()

    def writer(self, durable: bool) -> sqlite3.Connection:
        """Return the open writer; raises `sqlite3.Error` or `GooseError` if it cannot be.

        Args:
            durable: Whether its next transaction is synced to the disk as the options say, or
                with a later one.
        """
        if self._writer is not None and self._writer_file != self._identity():
            self.drop_writer()
        if self._writer is None:
            self._writer = self._open()
            self._writer_file = self._identity()
            self.present = set()  # it may be another file, even under the same number
            self._durable = True
        if durable is not self._durable:
            level = self._synchronous if durable else "normal"
            self._writer.execute(f"PRAGMA synchronous = {level}")
            self._durable = durable
        return self._writer

    def reader(self) -> sqlite3.Connection:
        """Return the open reader; raises as `writer`."""
        if self._reader is not None and self._reader_file != self._identity():
            self.drop_reader()
        return self.open_reader()

    def open_reader(self) -> sqlite3.Connection:
        """Return the reader as `reader` does, but of whichever file it is of."""
        if self._reader is not None and self._reader.in_transaction:
            # Whoever read last was interrupted; everybody after would see that moment for ever.
            self.drop_reader()
        if self._reader is None:
            self._reader = self._open()
            self._reader_file = self._identity()
        return self._reader

    def roll_back(self) -> None:
        """End the writer's transaction, if there is one left."""
        try:
            if self._writer is not None and self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except sqlite3.Error:
            self.drop_writer()  # which undoes, too

    def drop_writer(self) -> None:
        """Close the writer; the next use opens another."""
        connection, self._writer = self._writer, None
        _close(connection)

    def drop_reader(self) -> None:
        """Close the reader; the next use opens another."""
        connection, self._reader = self._reader, None
        _close(connection)

    def close(self) -> None:
        """Close both for good, waiting for what other threads do with them."""
        with self.writing, self.reading:
            self._closed = True
            self.drop_writer()
            self.drop_reader()

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _open(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < (3, 35):
            raise BrokerError(
                f"Python's SQLite is {sqlite3.sqlite_version}; the sqlite broker needs 3.35 or later"
            )
        if self._closed:
            raise BrokerError(f"{self.path} was closed while it was used")
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise ConfigError(f"{self.path}: there is no directory {folder}; make it first")
        connection = sqlite3.connect(
            self.path,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            prepare(connection, self.path, self._synchronous)
        except BaseException:
            connection.close()
            raise
        connection.text_factory = _text
        self.opened += 1
        return connection

    # --- fork ----------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close both connections, so that the child inherits none."""
        deadline = time.monotonic() + _FORK_PATIENCE
        for lock in (self.writing, self.reading):
            if lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                self._held_for_fork.append(lock)
        if len(self._held_for_fork) == 2:
            self.drop_writer()
            self.drop_reader()

    def after_fork_in_parent(self) -> None:
        """Let the threads go on."""
        while self._held_for_fork:
            self._held_for_fork.pop().release()

    def after_fork_in_child(self) -> None:
        """Begin anew: other threads, and what they held, are not in this process."""
        self._held_for_fork = []
        self.writing = threading.Lock()
        self.reading = threading.Lock()
        for connection in (self._writer, self._reader):
            if connection is not None:
                # Never to be closed in this process, not even when the interpreter ends.
                import ctypes

                ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        self._writer = self._reader = None


def pauses(deadline: float) -> Iterator[None]:
    """Yield between tries, after a short random sleep each, until *deadline* (monotonic)."""
    longest = 0.0005
    yield
    while time.monotonic() < deadline:
        time.sleep(random.uniform(0.0002, longest))
        longest = min(longest * 1.5, 0.008)
        yield


def _text(stored: bytes) -> str:
    """Bad UTF-8 in one row, put there by another program, must not stop the whole queue."""
    return stored.decode("utf-8", "replace")


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is None:
        return
    try:
        connection.close()
    except sqlite3.Error:  # pragma: no cover - nothing hangs on a failed farewell
        return


def prepare(connection: sqlite3.Connection, path: str, synchronous: str) -> None:
    """Set *connection* up; an error that `is_busy` means to try again with another."""
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")  # no effect on a file that has tables
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise BrokerError(
            f"{path}: the file system refuses SQLite's WAL mode (it stays {mode!r}); "
            "put the file on a local disk, not a network share"
        )
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    # Only `Writer.checkpoint` may, see there.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
    connection.execute("PRAGMA cache_size = -16000")
