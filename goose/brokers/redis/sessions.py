"""Sessions: who beats, who is dead, and whose loans go to whom.

A session's deadline is an instant of the server's clock. Once it has passed, the next
`recover` declares the session dead, and from that step on it takes nothing and its receipts
are void. Until then a late heartbeat still saves it. Loans of the dead are transferred a
bounded number at a time; bodies are fetched after that, by who then holds them. A session that
ended or died is remembered for a week, so that it cannot be opened again by mistake.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from goose.brokers.base import Delivery, Session
from goose.brokers.redis import scripts
from goose.brokers.redis.access import Access
from goose.brokers.redis.keys import Domain
from goose.brokers.redis.links import Call, pairs
from goose.brokers.redis.records import loans, micros, ready_at, unpack
from goose.errors import BrokerError, SessionLost

_REMEMBERED = 7 * 86400.0
"""Seconds the name of an ended session is kept."""
_AT_ONCE = 100
"""Dead sessions looked at in one step, and loans transferred, at most."""


class Sessioned(Access):
    """Implements `Sessions`."""

    def open(self, session: Session, *, ttl: float) -> None:
        """See `Sessions.open`."""
        home = self._keys.home
        keys = (home.sessions, home.lost, home.gone)
        args = (session.key, micros(ttl), micros(_REMEMBERED))
        if not self._ready().run(Call(scripts.OPEN, keys, args)):
            raise BrokerError(
                f"session {session.key} was opened before; every life needs its own epoch"
            )

    def heartbeat(self, session: Session, *, ttl: float) -> None:
        """See `Sessions.heartbeat`."""
        call = Call(scripts.HEARTBEAT, (self._keys.home.sessions,), (session.key, micros(ttl)))
        if not self._ready().run(call, again=True):
            raise _lost(session)

    def end(self, session: Session) -> bool:
        """See `Sessions.end`."""
        home = self._keys.home
        keys = (home.sessions, home.lost, home.gone, home.holders, home.held(session.key))
        return bool(self._ready().run(Call(scripts.END, keys, (session.key,)), again=True))

    def recover(
        self,
        session: Session,
        *,
        limit: int,
        proven: bool = False,
        dead: Session | None = None,
    ) -> Sequence[Delivery]:
        """See `Sessions.recover`; no death is certain here without waiting, except on a word."""
        if dead is not None:
            return self._take_over(session, limit, "word", dead.key)
        return self._take_over(session, limit, "known" if proven else "silent")

    def audit(self, session: Session, *, limit: int) -> Sequence[Delivery]:
        """See `Sessions.audit`."""
        return self._take_over(session, limit, "audit")

    def held(self, session: Session) -> Sequence[Delivery]:
        """See `Sessions.held`."""
        home = self._keys.home
        asks = [(b"ZSCORE", home.sessions, session.key), (b"HGETALL", home.held(session.key))]
        alive, flat = self._ready().ask(asks)
        if alive is None:
            raise _lost(session)
        return self._with_bodies(pairs(flat), session, None)

    def _take_over(
        self, session: Session, limit: int, mode: str, word: str = ""
    ) -> Sequence[Delivery]:
        home = self._keys.home
        found: list[Delivery] = []
        for name in self._lapse(home, session, mode, word):
            if len(found) >= limit:
                break
            found += self._transfer(home, session, name, limit - len(found))
        return found

    def _lapse(
        self, domain: Domain, session: Session, mode: str, word: str, *, at_home: bool = True
    ) -> Sequence[bytes]:
        """Declare dead who is, and return the names of those whose loans wait for an heir."""
        keys = (domain.sessions, domain.lost, domain.holders)
        args = (session.key, mode, word, _AT_ONCE, b"1" if at_home else b"0")
        found: Sequence[bytes] = _answered(
            self._ready().run(Call(scripts.LAPSE, keys, args)), session
        )
        return found

    def _transfer(
        self, domain: Domain, session: Session, name: bytes, limit: int
    ) -> Sequence[Delivery]:
        """Take over loans of the dead session *name*."""
        dead = name.decode()
        keys = (domain.sessions, domain.lost, domain.gone, domain.holders, domain.receipt)
        call = Call(
            scripts.RECOVER,
            (*keys, domain.held(dead), domain.held(session.key)),
            (session.key, dead, min(limit, _AT_ONCE)),
        )
        flat = _answered(self._link.run(call), session)
        return self._with_bodies(pairs(flat), session, _named(dead))

    def _with_bodies(
        self, held: Iterable[tuple[bytes, bytes]], session: Session, orphan_of: Session | None
    ) -> list[Delivery]:
        """Return the loans of *held* with their jobs, in the order they were lent."""
        by_queue: defaultdict[str, list[tuple[str, bytes]]] = defaultdict(list)
        for queue, name, receipt in loans(held):
            by_queue[queue].append((name, receipt))
        requests = [
            (b"HMGET", self._keys.line(queue).jobs, *(name for name, _ in found))
            for queue, found in by_queue.items()
        ]
        answers = self._ask_all(requests)
        lent: list[tuple[bytes, Delivery]] = []
        for (queue, found), values in zip(by_queue.items(), answers, strict=True):
            for (name, receipt), value in zip(found, values, strict=True):
                if value is not None:  # settled meanwhile
                    envelope = unpack(name, queue, value)
                    at = ready_at(receipt)
                    lent.append((receipt, Delivery(envelope, receipt, session, at, orphan_of)))
        return [delivery for _, delivery in sorted(lent, key=lambda item: item[0])]


def _answered(reply: Any, session: Session) -> Any:
    if reply == -1:
        raise _lost(session)
    return reply


def _lost(session: Session) -> SessionLost:
    return SessionLost(f"session {session.key} is dead or was never opened; open a new epoch")


def _named(key: str) -> Session:
    name, _, epoch = key.rpartition("/")
    return Session(name, int(epoch))
