"""Sessions: who beats, who is dead, and whose loans go to whom.

A session's deadline is a reading of the clock since boot (see `host`). Once it has passed,
the next `recover` declares the session dead: its receipts are void in the same step, and
its loans move, with new receipts, to who asks for them. Until then a late heartbeat still
saves it. A session that ended or was forgotten is remembered by name for a week, so that it
cannot be opened again by mistake.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from goose.brokers.base import Delivery, Session
from goose.brokers.sqlite import host
from goose.brokers.sqlite.access import Access
from goose.brokers.sqlite.rows import deliver, numbers
from goose.brokers.sqlite.schema import GONE, LIVE
from goose.brokers.sqlite.statements import Statements
from goose.errors import BrokerError, SessionLost

_REMEMBERED = 7 * 86400 * 1_000_000
"""Microseconds the name of an ended session is kept."""


class _Record(NamedTuple):
    """A row of the sessions."""

    seq: int
    id: str
    epoch: int
    state: int
    deadline: float
    boot: str
    namespace: int
    pid: int
    started: int

    def is_silent(self, uptime: float) -> bool:
        """Whether it is past its deadline, or of another boot."""
        return self.deadline <= uptime or self.boot != host.current().boot

    def is_gone(self) -> bool:
        """Whether the process that opened it has certainly ended."""
        return host.Process(self.boot, self.namespace, self.pid, self.started).is_gone()


def _find(cursor: sqlite3.Cursor, statements: Statements, session: Session) -> _Record | None:
    row = cursor.execute(statements.session, (session.id, session.epoch)).fetchone()
    return _Record(*row) if row else None


def check_session(cursor: sqlite3.Cursor, statements: Statements, session: Session) -> int:
    """Return the number of *session* in the file.

    Raises:
        SessionLost: It is not known, or held for dead.
    """
    record = _find(cursor, statements, session)
    if record is None:
        raise SessionLost(f"session {session.key} is not known here; open a new epoch")
    if record.state != LIVE or record.boot != host.current().boot:
        raise SessionLost(f"session {session.key} is held for dead; open a new epoch")
    return record.seq


class Sessioned(Access):
    """Implements `Sessions`."""

    def open(self, session: Session, *, ttl: float) -> None:
        """See `Sessions.open`; remembers the calling process, for a proof of its death."""

        def work(connection: sqlite3.Connection) -> None:
            cursor, process = connection.cursor(), host.current()
            cursor.execute(self._statements.forget_old, (self._now() - _REMEMBERED,))
            place = (process.boot, process.namespace, process.pid, process.started)
            deadline = self._uptime() + ttl
            cursor.execute(self._statements.open, (session.id, session.epoch, deadline, *place))
            if not cursor.rowcount:
                raise BrokerError(
                    f"session {session.key} was opened before; every life needs its own epoch"
                )

        self._write(work)

    def heartbeat(self, session: Session, *, ttl: float) -> None:
        """See `Sessions.heartbeat`."""

        def work(connection: sqlite3.Connection) -> None:
            cursor = connection.cursor()
            seq = check_session(cursor, self._statements, session)
            cursor.execute(self._statements.heartbeat, (self._uptime() + ttl, seq))

        # A power cut ends the session in any case.
        self._write(work, durable=False)

    def end(self, session: Session) -> bool:
        """See `Sessions.end`."""

        def work(connection: sqlite3.Connection) -> bool:
            cursor = connection.cursor()
            record = _find(cursor, self._statements, session)
            if record is None or record.state == GONE:
                return True
            cursor.execute(self._statements.end, (self._now(), record.seq))
            return cursor.rowcount > 0

        return self._write(work)

    def recover(
        self,
        session: Session,
        *,
        limit: int,
        proven: bool = False,
        dead: Session | None = None,
    ) -> Sequence[Delivery]:
        """See `Sessions.recover`.

        Proven dead is a session whose opener is gone from this host, or of an earlier boot.
        """
        if not (dead or self._read(lambda c: self._has_lost(c, proven))):
            self._read(lambda c: check_session(c.cursor(), self._statements, session))
            return []

        def work(connection: sqlite3.Connection) -> list[Delivery]:
            cursor = connection.cursor()
            own = check_session(cursor, self._statements, session)
            only = None
            if dead is not None:
                record = _find(cursor, self._statements, dead)
                lost = [record] if record else []
                only = record.seq if record else -1
            elif proven or not self._is_late(cursor, session):
                lost = self._dead_now(cursor, proven)
            else:
                lost = []
            self._declare_dead(cursor, lost)
            rows = cursor.execute(self._statements.orphans, (only, limit)).fetchall()
            found = self._transfer(cursor, rows, own, session)
            cursor.execute(self._statements.forget_lost, (self._now(),))
            return found

        return self._write(work)

    def held(self, session: Session) -> Sequence[Delivery]:
        """See `Sessions.held`."""

        def look(connection: sqlite3.Connection) -> list[Delivery]:
            cursor = connection.cursor()
            own = check_session(cursor, self._statements, session)
            rows = cursor.execute(self._statements.held, (own,)).fetchall()
            return [loan for row in rows for loan in deliver([row], row[6], session)]

        return self._read(look)

    def audit(self, session: Session, *, limit: int) -> Sequence[Delivery]:
        """See `Sessions.audit`."""
        if not self._read(lambda c: c.execute(self._statements.strays, (1,)).fetchone()):
            return []

        def work(connection: sqlite3.Connection) -> list[Delivery]:
            cursor = connection.cursor()
            own = check_session(cursor, self._statements, session)
            rows = cursor.execute(self._statements.strays, (limit,)).fetchall()
            return self._transfer(cursor, rows, own, session)

        return self._write(work)

    def _is_late(self, cursor: sqlite3.Cursor, session: Session) -> bool:
        """Whether *session* is silent itself: then it has heard as little of others as they of it."""
        record = _find(cursor, self._statements, session)
        return record is None or record.is_silent(self._uptime())

    def _has_lost(self, connection: sqlite3.Connection, proven: bool) -> bool:
        """Whether there is anything to recover; saves most rounds the file's write lock."""
        cursor = connection.cursor()
        return bool(
            cursor.execute(self._statements.some_lost).fetchone() or self._dead_now(cursor, proven)
        )

    def _dead_now(self, cursor: sqlite3.Cursor, proven: bool) -> list[_Record]:
        """Return the sessions held for living that are dead."""
        uptime = self._uptime()
        live = map(_Record._make, cursor.execute(self._statements.live_sessions).fetchall())
        return [
            record for record in live if (record.is_gone() if proven else record.is_silent(uptime))
        ]

    def _declare_dead(self, cursor: sqlite3.Cursor, lost: Sequence[_Record]) -> None:
        """From here on they take nothing, and their receipts are void."""
        names = numbers([record for record in lost if record.state == LIVE])
        cursor.execute(self._statements.lose, (names,))
        cursor.execute(self._statements.void, (names,))

    def _transfer(
        self, cursor: sqlite3.Cursor, rows: Sequence[tuple[Any, ...]], own: int, session: Session
    ) -> list[Delivery]:
        if not rows:
            return []
        receipt = self._next_receipt(cursor)
        cursor.execute(self._statements.lend, (own, receipt, self._now(), numbers(rows)))
        return deliver(rows, receipt, session, orphans=True)
