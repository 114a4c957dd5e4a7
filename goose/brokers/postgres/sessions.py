"""Sessions: who beats, who is dead, and whose loans go to whom.

A session's deadline is an instant of the server's clock. Once it has passed, the next
`recover` declares the session dead: it waits for a loan that is just being made to it, and
from then on the session takes nothing and its receipts are void, since each settle looks at
the session too. Until then a late heartbeat still saves it. What the dead held is transferred
in later steps, each of which sees all that was ever lent to them. A session that ended is
remembered by name for a week, so that it cannot be opened again by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from goose.brokers.base import Delivery, Session
from goose.brokers.postgres.access import Access
from goose.brokers.postgres.connections import Connection
from goose.brokers.postgres.rows import delivered, micros, named, new_receipt
from goose.brokers.postgres.statements import statement
from goose.errors import BrokerError, SessionLost

_REMEMBERED = 7 * 86400.0
"""Seconds the name of an ended session is kept."""
_NOBODY: Mapping[str, Any] = {"dead": None, "dead_epoch": None}


class Sessioned(Access):
    """Implements `Sessions`."""

    def open(self, session: Session, *, ttl: float) -> None:
        """See `Sessions.open`."""
        values = {**named(session), "ttl": micros(ttl), "remembered": micros(_REMEMBERED)}
        if not self._run("open", values):
            raise BrokerError(
                f"session {session.key} was opened before; every life needs its own epoch"
            )

    def heartbeat(self, session: Session, *, ttl: float) -> None:
        """See `Sessions.heartbeat`."""
        if not self._run("heartbeat", {**named(session), "ttl": micros(ttl)}, again=True):
            raise lost(session)

    def end(self, session: Session) -> bool:
        """See `Sessions.end`."""
        schema, values = self.options.schema, named(session)

        def work(connection: Connection) -> bool:
            # Two statements, as the second must see what was lent while the first waited.
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
                row = connection.execute(statement("close_in", schema), values).fetchone()
                if row is None or row[0] == 2:
                    return True
                return connection.execute(statement("end", schema), values).rowcount > 0

        return self._call(work, again=True)

    def recover(
        self,
        session: Session,
        *,
        limit: int,
        proven: bool = False,
        dead: Session | None = None,
    ) -> Sequence[Delivery]:
        """See `Sessions.recover`; no death is certain here without waiting, except on a word."""
        who = _NOBODY if dead is None else {"dead": dead.id, "dead_epoch": dead.epoch}
        if dead is None:
            [(alive, some_dead, some_silent)] = self._rows("lost", named(session), again=True)
            if not alive:
                raise lost(session)
            if not some_dead and (proven or not some_silent):
                return []
        if not proven:
            self._run("lapse", {**named(session), **who}, again=True)
        found = self._transfer("recover", session, limit, who)
        self._run("forget", {}, again=True)
        return found

    def held(self, session: Session) -> Sequence[Delivery]:
        """See `Sessions.held`."""
        rows = self._rows("held", named(session), again=True)
        if not rows:
            raise lost(session)
        if rows[0][0] is None:
            return []
        return [loan for row in rows for loan in delivered([row], row[6], session)]

    def audit(self, session: Session, *, limit: int) -> Sequence[Delivery]:
        """See `Sessions.audit`."""
        return self._transfer("audit", session, limit, {})

    def _transfer(
        self, verb: str, session: Session, limit: int, who: Mapping[str, Any]
    ) -> Sequence[Delivery]:
        receipt = new_receipt()
        values = {**named(session), **who, "limit": limit, "receipt": receipt}
        rows = self._rows(verb, values)
        if not rows:
            raise lost(session)
        return [] if rows[0][0] is None else delivered(rows, receipt, session, orphans=True)


def lost(session: Session) -> SessionLost:
    """Return what says that *session* does not live."""
    return SessionLost(f"session {session.key} is dead or was never opened; open a new epoch")
