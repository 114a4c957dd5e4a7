"""The one way into a file for everything this process writes to it: `Writer.run`.

Callers that come while a transaction is under way wait, and the first of them then leads:
it runs the work of all who wait in one transaction, so that they share one sync of the
disk. A lone caller leads at once and waits for nobody. Each work has a savepoint; an error
undoes and reaches only its own caller. When SQLite itself undoes the whole transaction (a
full disk, an I/O error) the others run again, each alone.

A transaction begins IMMEDIATE, so that it either has the file's write lock from the start
or has done nothing. While another process holds it, the leader tries again after short
random sleeps, up to `timeout` seconds.

Nobody checkpoints behind our back: SQLite 3.7.0 to 3.51.2 can lose a transaction when two
connections checkpoint while a third restarts the log. Our connections never do it by
themselves; when the log's file has outgrown its limit, the leader that notices does, alone
(by a lock on a file beside the database) and while it holds the write lock. The next
writer restarts the log and cuts its file back, so that the size tells how full it is. A
program that opens the file with its own connections should set ``wal_autocheckpoint`` to 0.

Source: sqlite.org/wal.html, "The WAL-Reset Bug".
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from goose.brokers.sqlite.connections import WAL_LIMIT, Connections, pauses
from goose.brokers.sqlite.faults import is_busy, spoils, translate
from goose.brokers.sqlite.schema import migrate
from goose.brokers.sqlite.sleepers import Sleepers
from goose.errors import BrokerUnavailable, GooseError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_MOST = 64
"""Works in one transaction at most."""
_LOOK_PAUSE = 0.01
"""Seconds between looks at the log's size. Linux gives a file that somebody looked at an exact
time at its next write, and so makes the next sync write the inode too, half as long again."""
_log = logging.getLogger("goose.brokers.sqlite")


class _Turn:
    """One caller's work and what became of it."""

    __slots__ = ("done", "durable", "error", "namespace", "result", "timeout", "work")

    def __init__(self, work: Work[Any], namespace: str, timeout: float, durable: bool) -> None:
        self.work = work
        self.durable = durable
        self.namespace = namespace
        self.timeout = timeout
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.done = True

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


class Writer:
    """Everything this process does with one file. Thread-safe; survives a fork on both sides.

    Attributes:
        sleepers: Roused by each commit of this process.
        users: How many brokers share it.
    """

    def __init__(self, path: str, synchronous: str) -> None:
        self.path = path
        self.sleepers = Sleepers()
        self.users = 0
        self._connections = Connections(path, synchronous)
        self._waiting: deque[_Turn] = deque()
        self._lead = threading.Lock()
        self._next_look = 0.0

    def run(
        self,
        work: Work[T],
        namespace: str,
        timeout: float,
        *,
        durable: bool = True,
        single: bool = False,
    ) -> T:
        """Return what *work* returns, once what it wrote is committed.

        Args:
            work: Called with the writer in an open transaction, perhaps more than once, but
                only the last time counts. It neither commits nor rolls back.
            namespace: Whose tables it needs; made if they are missing.
            timeout: Seconds to wait for other writers of the file.
            durable: Whether it must survive a power cut, as far as the file's ``synchronous``
                goes; else it survives the end of every process, and saves a sync of the disk.
            single: Whether *work* is one statement, which needs no BEGIN and COMMIT around it.

        Raises:
            BrokerUnavailable: Others wrote all that time, or the disk failed.
            BrokerError: SQLite refused.
            Exception: What *work* raised; nothing of it was stored.
        """
        if self._waiting or self._lead.locked():
            result: T = self._run_together(_Turn(work, namespace, timeout, durable))
        else:
            with self._lead:
                done = self._run_alone(work, namespace, durable, single)
                if done is None:
                    turn = _Turn(work, namespace, timeout, durable)
                    self._transact([turn])
                    done = (turn.outcome(),)
            (result,) = done
        if time.monotonic() >= self._next_look:
            self._checkpoint_if_due()
        self.sleepers.rouse()
        return result

    def read(self, query: Work[T], namespace: str, timeout: float) -> T:
        """Return what *query* reads; raises as `run`. It sees one moment per statement."""
        if not self._connections.is_ready(namespace):
            self.run(lambda _: None, namespace, timeout)
        for _ in pauses(time.monotonic() + timeout):
            with self._connections.reading:
                try:
                    return query(self._connections.reader())
                except sqlite3.Error as error:
                    if spoils(error):
                        self._connections.drop_reader()
                    if not is_busy(error):
                        raise translate(error, self.path) from error
        raise BrokerUnavailable(f"{self.path} stayed locked by another writer for {timeout:g} s")

    def version(self) -> tuple[int, int]:
        """Return a value that every commit of any process to the file changes.

        Cheaper than `read`, which must have been used before: it does not notice that the
        file was replaced. Errors look like no change, for the next `read` to find.
        """
        with self._connections.reading:
            try:
                row = self._connections.open_reader().execute("PRAGMA data_version").fetchone()
            except (sqlite3.Error, GooseError):
                return self._connections.opened, -1
            # Each connection counts for itself.
            return self._connections.opened, row[0]

    def close(self) -> None:
        """Close the connections for good."""
        self._connections.close()

    # --- a lone caller -------------------------------------------------------------------

    def _run_alone(
        self, work: Work[T], namespace: str, durable: bool, single: bool
    ) -> tuple[T] | None:
        """Run *work* in a transaction of its own, holding the lead; None if none can begin now.

        The usual case made short: nobody to share with, nobody to wait for, all tables there.
        """
        with self._connections.writing:
            try:
                connection = self._prepare_alone(namespace, durable, single)
                if connection is None:
                    return None
                result = work(connection)
                if not single:
                    connection.execute("COMMIT")
                return (result,)
            except sqlite3.Error as error:
                if single and is_busy(error):
                    return None  # a statement that could not begin did nothing
                if spoils(error):
                    self._connections.drop_writer()
                raise translate(error, self.path) from error
            finally:
                # An interrupt may come right after the transaction began.
                self._connections.roll_back()

    def _prepare_alone(
        self, namespace: str, durable: bool, single: bool
    ) -> sqlite3.Connection | None:
        """Return the writer, in a transaction unless *single*; None if something is in the way."""
        try:
            connection = self._connections.writer(durable) if single else self._begin(durable)
        except (sqlite3.Error, GooseError):
            return None  # nothing was done; `_transact` tries again, or tells why not
        return connection if namespace in self._connections.present else None

    # --- group commit --------------------------------------------------------------------

    def _run_together(self, turn: _Turn) -> Any:
        """Run *turn* with others who wait; whoever comes to lead first runs them all."""
        self._waiting.append(turn)
        with self._lead:
            while not turn.done:
                self._lead_others(turn)
        return turn.outcome()

    def _lead_others(self, own: _Turn) -> None:
        """Run the work of those who wait, *own* among them sooner or later."""
        batch: list[_Turn] = []
        while self._waiting and len(batch) < _MOST:
            batch.append(self._waiting.popleft())
        try:
            self._transact(batch)
        except BaseException:
            # Only an interrupt of this very thread comes here; the others lose nothing.
            self._waiting.extendleft(t for t in reversed(batch) if not t.done and t is not own)
            raise

    def _transact(self, batch: list[_Turn]) -> None:
        deadline = time.monotonic() + max(turn.timeout for turn in batch)
        problem: sqlite3.Error | None = None
        again: list[_Turn] = []
        durable = any(turn.durable for turn in batch)
        for _ in pauses(deadline):
            with self._connections.writing:
                try:
                    connection = self._begin(durable)
                except sqlite3.Error as error:
                    problem = error
                    if not is_busy(error):
                        break
                except GooseError as error:
                    for turn in batch:
                        turn.fail(error)
                    return
                else:
                    problem = None
                    again = self._run_all(connection, batch)
                    break
                finally:
                    # An interrupt may come right after the transaction began.
                    self._connections.roll_back()
        else:
            problem = problem or sqlite3.OperationalError("no time left to begin")
        if problem is not None:
            for turn in batch:
                turn.fail(translate(problem, self.path))
            return
        for turn in again:
            self._transact([turn])

    def _begin(self, durable: bool = False) -> sqlite3.Connection:
        connection = self._connections.writer(durable)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if spoils(error):
                self._connections.drop_writer()
            raise
        return connection

    def _run_all(self, connection: sqlite3.Connection, batch: list[_Turn]) -> list[_Turn]:
        """Run *batch* in the transaction begun and commit it; return those to run again."""
        committing = False
        try:
            for turn in batch:
                self._run_one(connection, turn, alone=len(batch) == 1)
                if not connection.in_transaction:
                    return [turn for turn in batch if not turn.done]
            committing = True
            connection.execute("COMMIT")
            _finish(batch)
        except sqlite3.Error as error:
            if spoils(error):
                self._connections.drop_writer()
            self._connections.roll_back()
            for turn in batch:
                if not turn.done:
                    turn.fail(translate(error, self.path))
            return []
        except BaseException:
            if committing and not connection.in_transaction:
                _finish(batch)
            raise
        self._connections.present.update(turn.namespace for turn in batch if not turn.error)
        return []

    def _run_one(self, connection: sqlite3.Connection, turn: _Turn, *, alone: bool) -> None:
        """Run *turn*; if it fails, undo what it did and leave the others' in place."""
        if not alone:
            connection.execute("SAVEPOINT turn")
        try:
            if turn.namespace not in self._connections.present:
                migrate(connection, turn.namespace)
            turn.result = turn.work(connection)
        except Exception as error:  # noqa: BLE001 - it is raised in the caller's thread
            turn.fail(translate(error, self.path) if isinstance(error, sqlite3.Error) else error)
            if connection.in_transaction:
                connection.execute("ROLLBACK" if alone else "ROLLBACK TO turn")
        if not alone and connection.in_transaction:
            connection.execute("RELEASE turn")

    # --- checkpoints ---------------------------------------------------------------------

    def _checkpoint_if_due(self) -> None:
        """Look at the size of the log, and checkpoint it if it has outgrown its limit."""
        begun = time.monotonic()
        self._next_look = begun + _LOOK_PAUSE
        try:
            size = os.stat(self.path + "-wal").st_size
        except OSError:
            return  # closed or replaced meanwhile
        if size <= WAL_LIMIT:
            return
        self._next_look = begun + 1.0
        try:
            whole = self.checkpoint()
        except (sqlite3.Error, OSError, GooseError) as error:
            _log.warning("%s: the log could not be checkpointed now: %s", self.path, error)
            return
        # One that a reader cuts short will be as short the next moment.
        took = time.monotonic() - begun
        self._next_look = begun + took + (0.0 if whole else max(0.2, 10 * took))

    def checkpoint(self) -> bool:
        """Copy the log into the database; return whether all of it was, False if others are at it."""
        with _alone(self.path + "-checkpoint") as alone:
            if not alone:
                return False
            for _ in pauses(time.monotonic() + 0.1):
                with self._connections.writing:
                    try:
                        self._begin()
                        return self._copy_log()
                    except sqlite3.Error as error:
                        if not is_busy(error):
                            raise
                    finally:
                        self._connections.roll_back()
        return False

    def _copy_log(self) -> bool:
        # Another connection than the one that holds the write lock: SQLite wants it so.
        with self._connections.reading:
            reader = self._connections.reader()
            busy, frames, copied = reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return not busy and bool(frames == copied)

    # --- fork ----------------------------------------------------------------------------

    def before_fork(self) -> None:
        """See `Connections`."""
        self._connections.before_fork()

    def after_fork_in_parent(self) -> None:
        """See `Connections`."""
        self._connections.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Forget the parent's threads; what they asked for is theirs."""
        self._connections.after_fork_in_child()
        self.sleepers = Sleepers()
        self._waiting = deque()
        self._lead = threading.Lock()


def _finish(batch: list[_Turn]) -> None:
    for turn in batch:
        turn.done = True


@contextmanager
def _alone(path: str) -> Iterator[bool]:
    """Hold the lock file at *path*; yield False if another process or thread does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            # A child forked meanwhile has the descriptor too; closing ours would not unlock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
