"""Transactions in which jobs run, each on a connection of its own to the broker's file.

A transaction begins IMMEDIATE, so that nothing it reads changes before it writes; it has the
file's one write lock until the job ends, and everything else that is written to the file waits
meanwhile, heartbeats too. That is SQLite's price for the promise, and harmless while such jobs
are short: nobody can be declared dead either while nobody can write. Of one process, one
transactional job at a time tries for the lock; the others wait for their turn, so that the
process's own writer is never one among many.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
import threading
import time
import weakref
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from goose.brokers.base import Delivery
from goose.brokers.sqlite.access import Access
from goose.brokers.sqlite.connections import pauses, prepare
from goose.brokers.sqlite.faults import is_busy, translate
from goose.brokers.sqlite.line import place_fresh
from goose.brokers.sqlite.rows import loans, receipt_of
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope


class JobConnection(sqlite3.Connection):
    """A connection in one transaction, which its job's end ends.

    A ``with`` block is a savepoint: an error undoes what was done inside, and no more.
    """

    def commit(self) -> NoReturn:
        """Refuse."""
        raise sqlite3.ProgrammingError(
            "Goose commits, together with the job's end: leave commit() out"
        )

    def rollback(self) -> NoReturn:
        """Refuse."""
        raise sqlite3.ProgrammingError(
            "Goose rolls back what a job did that fails: raise an error, or goose.Postpone or goose.Bury"
        )

    def executescript(self, sql_script: str, /) -> NoReturn:
        """Refuse: it would commit first."""
        raise sqlite3.ProgrammingError(
            "executescript() commits before it begins: execute() the statements one by one"
        )

    def __enter__(self) -> Self:
        self.execute("SAVEPOINT goose_with")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> Literal[False]:
        if kind is not None:
            self.execute("ROLLBACK TO goose_with")
        self.execute("RELEASE goose_with")
        return False


_open: weakref.WeakSet[JobConnection] = weakref.WeakSet()


class Completer(Access):
    """Implements `Completing`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turn = threading.Lock()

    def begin(self, delivery: Delivery) -> SQLiteCompletion:
        """See `Completing.begin`; waits for the file's write lock for up to ``timeout``."""
        timeout = self.options.timeout
        deadline = time.monotonic() + timeout
        self._read(lambda _: None)  # so that the tables are there
        if not self._turn.acquire(timeout=timeout):
            raise BrokerUnavailable(
                f"{self.options.path}: other transactional jobs of this process took longer than "
                f"{timeout:g} s; keep them short, as one at a time can write to the file"
            )
        try:
            return SQLiteCompletion(self, delivery, self._connect(deadline))
        except BaseException:
            self._turn.release()
            raise

    def _connect(self, deadline: float) -> JobConnection:
        """Return a connection in a transaction that has the write lock."""
        path, problem = self.options.path, None
        for _ in pauses(deadline):
            connection = sqlite3.connect(
                path,
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
                factory=JobConnection,
            )
            try:
                prepare(connection, path, self.options.synchronous)
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                connection.close()
                problem = error
                if is_busy(error):
                    continue
                break
            _open.add(connection)
            return connection
        problem = problem or sqlite3.OperationalError("no time left to begin")
        raise translate(problem, path) from problem

    def ack_within(
        self, connection: JobConnection, delivery: Delivery, note: Envelope | None
    ) -> bool:
        """Ack or note *delivery* in the transaction of *connection*; say whether the loan was good."""
        cursor = connection.cursor(sqlite3.Cursor)
        cursor.row_factory = None
        if note is not None:
            values = (note.body, *receipt_of(delivery))
            return cursor.execute(self._statements.note, values).rowcount == 1
        place_fresh(cursor, self._statements)
        return cursor.execute(self._statements.ack, (loans([delivery]),)).rowcount == 1

    def is_done(self, delivery: Delivery, note: Envelope | None) -> bool:
        """Say whether the loan of *delivery* has ended, or has this *note*."""
        loan = receipt_of(delivery)
        row = self._read(lambda c: c.execute(self._statements.body, loan).fetchone())
        return row is None or (note is not None and row[0] == note.body)

    def ended(self) -> None:
        """Let others have their turn, and look at what the job may have enqueued."""
        self._turn.release()
        self._writer.sleepers.rouse()


class SQLiteCompletion:
    """See `goose.brokers.completion.Completion`."""

    def __init__(self, broker: Completer, delivery: Delivery, connection: JobConnection) -> None:
        self.connection = connection
        self._broker = broker
        self._delivery = delivery
        self._note: Envelope | None = None

    def commit(self, note: Envelope | None = None) -> bool:
        """See `Completion.commit`."""
        self._note = note
        connection = self.connection
        if not connection.in_transaction:
            raise sqlite3.ProgrammingError(
                "the transaction has ended before the function did, so what it wrote cannot be one step "
                "with the job's end any more: leave COMMIT and ROLLBACK to Goose, and let errors out"
            )
        if not self._broker.ack_within(connection, self._delivery, note):
            return False
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            told = translate(error, self._broker.options.path)
            if isinstance(told, BrokerUnavailable):
                raise told from error
            raise
        return True

    def is_done(self) -> bool:
        """See `Completion.is_done`."""
        self._close()  # what may be left of it must not be in the way
        return self._broker.is_done(self._delivery, self._note)

    def close(self) -> None:
        """See `Completion.close`."""
        self._close()
        self._broker.ended()

    def _close(self) -> None:
        _open.discard(self.connection)
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()


def _keep_in_child() -> None:
    """Leave inherited connections unused and unclosed for ever: see `connections`."""
    for connection in list(_open):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


os.register_at_fork(after_in_child=_keep_in_child)
