"""Lends jobs to workers, and lets idle ones sleep at the server until there is something to do.

A `dequeue` that finds nothing leaves its name with the queues and sleeps in a BLPOP of their
wake lists; whoever makes jobs ready leaves one token for each job, but no more than there are
sleepers, so that one job wakes one worker. Its next look is sent right behind the BLPOP, in the
same packet: the server takes it up the moment the sleep ends, so that one trip both wakes the
worker and hands it the job. Who was not woken has looked at nothing.

The look behind also leaves the sleeper's name again if it finds nothing, so that the next
`dequeue` for the same queues goes on with that sleep and need not look first. A dequeue also
looks by itself when a scheduled job of its queues is due, and after some seconds in any case; as
an idle server looks at its timeouts ten times a second, that may be a tenth of a second late,
where `promote_due` is not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from goose.brokers.base import Delivery, Session, Share, order
from goose.brokers.redis import scripts
from goose.brokers.redis.access import Access
from goose.brokers.redis.keys import Domain, Line
from goose.brokers.redis.links import Call
from goose.brokers.redis.records import delivered, micros
from goose.brokers.redis.waiting import Alarm
from goose.errors import BrokerUnavailable, SessionLost

_LONGEST_NAP = 0.4
"""Part of the timeout for which a BLPOP waits at most, so that its answer is never late."""
_MARGIN = 1.0
"""Seconds for which a sleeper stays known after it should have looked again."""
_SPREAD = 0.01
"""Seconds over which sleepers that wait for the same due job are spread."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What one `dequeue` asks for, again and again."""

    session: Session
    queues: Sequence[Share]
    limit: int
    alarm: Alarm | None = None
    """The sleeper, if it sleeps when there is nothing."""
    sleep: float = 0.0
    """Seconds for which it is known as asleep then."""

    @property
    def place(self) -> tuple[object, ...]:
        """Where it sleeps, and for whom."""
        return (self.session, *(share.queue for share in self.queues))


class Lending(Access):
    """Implements `Broker.dequeue`."""

    def __init__(self, place: Any = None, **given: Any) -> None:
        super().__init__(place, **given)
        self._unheard: BrokerUnavailable | None = None
        """A node of a cluster did not answer a call that others did; raised by the next one."""

    def dequeue(
        self, session: Session, queues: Sequence[Share], *, limit: int, wait: float
    ) -> Sequence[Delivery]:
        """See `Broker.dequeue`; at most about a megabyte of jobs, but at least one."""
        if wait <= 0:
            self._alarms.answer()
            return self._lend(_Look(session, queues, limit))
        alarm = self._alarms.take()
        if alarm is None:
            return self._lend(_Look(session, queues, limit))
        nap = min(wait, self.options.timeout * _LONGEST_NAP)
        try:
            return self._sleep(
                _Look(session, queues, limit, alarm, nap + _MARGIN), wait, nap, alarm
            )
        except BaseException:
            alarm.place = None
            raise
        finally:
            self._alarms.give(alarm)

    def _sleep(self, look: _Look, wait: float, nap: float, alarm: Alarm) -> Sequence[Delivery]:
        """Lend, or sleep and lend, for up to *wait* seconds, in naps of at most *nap*."""
        deadline = time.monotonic() + wait
        if not alarm.sleeps(look.place, nap + _MARGIN / 2):
            found = self._lend(look)
            if found:
                return found
        while not alarm.rung and not self._closed:
            due = alarm.due_mono + self._random.uniform(0.0, _SPREAD)
            now = time.monotonic()
            left = min(deadline - now, due - now, nap)
            token, lent = self._doze(look, left, alarm) if left > 0 else (False, None)
            over = time.monotonic() >= deadline
            if lent is None and (token or not over):
                lent = self._lend(look)
            if lent or over:
                return lent or []
        return []

    def _doze(
        self, look: _Look, seconds: float, alarm: Alarm
    ) -> tuple[bool, Sequence[Delivery] | None]:
        """Sleep; return whether there was a token, and what was lent, None if nobody looked."""
        lines = [self._keys.line(queue) for queue in order(look.queues, self._random)]
        wakes = [line.wake for line in lines]
        if self._keys.clustered:
            return self._ready().doze(wakes, seconds, alarm)
        wakes.append(lines[0].own_wake(alarm.name))
        groups = list(self._groups(lines))
        if len(groups) > 1:
            return self._ready().doze(wakes, seconds, alarm)
        [(domain, part)] = groups
        call = _call(domain, part, look, look.limit)
        token, reply = self._ready().doze(wakes, seconds, alarm, call)
        return token, None if reply is None else self._taken(look, part, reply)

    def _taken(self, look: _Look, lines: Sequence[Line], reply: Any) -> Sequence[Delivery]:
        if reply == -1:
            raise _lost(look.session)
        lent = delivered(reply, [line.queue for line in lines], look.session)
        self._note(look, lent, reply[0])
        return lent

    def _lend(self, look: _Look) -> Sequence[Delivery]:
        """Return the loans there are now."""
        self._ready()
        unheard, self._unheard = self._unheard, None
        if unheard is not None:
            raise unheard
        lent: list[Delivery] = []
        next_due = -1
        lines = [self._keys.line(queue) for queue in order(look.queues, self._random)]
        for domain, part in self._groups(lines):
            names = [line.queue for line in part]
            call = _call(domain, part, look, look.limit - len(lent))
            try:
                reply = self._claim(domain, look.session, names, call)
            except BrokerUnavailable as error:
                if not lent:
                    raise
                self._unheard = error  # another node's; what this one lent is not held back
                break
            lent += delivered(reply, names, look.session)
            if reply[0] >= 0:
                next_due = reply[0] if next_due < 0 else min(next_due, reply[0])
            if len(lent) >= look.limit:
                break
        self._note(look, lent, next_due)
        return lent

    def _note(self, look: _Look, lent: Sequence[Delivery], due: int) -> None:
        """Note whether the server now holds the sleeper for asleep; *due* is in microseconds or -1."""
        if look.alarm is None:
            return
        if lent:
            look.alarm.wakes_up()
        else:
            look.alarm.falls_asleep(look.place, look.sleep, None if due < 0 else due / 1e6)

    def _claim(self, domain: Domain, session: Session, queues: Sequence[str], call: Call) -> Any:
        reply = self._link.run(call)
        if reply == -1:
            raise _lost(session)
        return reply


def _call(domain: Domain, lines: Sequence[Line], look: _Look, limit: int) -> Call:
    """Return the call that lends up to *limit* jobs of *lines*."""
    alarm, key = look.alarm, look.session.key
    keys = [domain.sessions, domain.holders, domain.held(key), domain.receipt]
    for line in lines:
        keys += line.dequeue
    sleeper: tuple[Any, Any] = (b"", b"0")
    if alarm is not None:
        sleeper = (alarm.name, b"1" if alarm.registered else b"0")
    names = (line.queue for line in lines)
    return Call(scripts.DEQUEUE, keys, (key, limit, micros(look.sleep), *sleeper, *names))


def _lost(session: Session) -> SessionLost:
    return SessionLost(f"session {session.key} is dead or was never opened")
