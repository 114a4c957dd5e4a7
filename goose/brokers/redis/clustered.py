"""`RedisBroker` on a Cluster, where one script sees one queue.

What concerns all queues, the names of sessions and queues, is at a *home* in a slot of its
own. A session takes part in a queue by being written into its slot too, with the time it has
left; from then on its heartbeats go to both. Each slot declares it dead by itself, and whoever
is dead in one is dead: its next heartbeat says so.

A job that moves to another queue is stored there first and removed here then, so that a crash
in between leaves two of it, never none.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from goose.brokers.base import Delivery, Session
from goose.brokers.redis import scripts
from goose.brokers.redis.access import grouped
from goose.brokers.redis.broker import CHUNK, RedisBroker
from goose.brokers.redis.cluster import ClusterLink
from goose.brokers.redis.keys import Domain, Line
from goose.brokers.redis.links import Call, Link, pairs
from goose.brokers.redis.records import micros, pack, when
from goose.errors import BrokerError, BrokerUnavailable, ConfigError, SessionLost
from goose.jobs import Envelope

_REGISTER_EVERY = 30.0
"""Seconds after which a queue's name is written down again, lest a failover forgot it."""
_WEEK = 7 * 86400.0


class RedisClusterBroker(RedisBroker):
    """A broker on a Redis Cluster; made by ``RedisBroker("redis+cluster://…")``."""

    def __init__(self, place: Any = None, **given: Any) -> None:
        super().__init__(place, **given)
        self._registered: dict[str, float] = {}

    def _make_link(self, client: Any) -> Link:
        if client is not None:
            raise ConfigError("for a cluster give a URL: redis+cluster://host1,host2")
        return ClusterLink(self.options)

    # --- queues --------------------------------------------------------------------------

    def _domains(self) -> Iterator[Domain]:
        for line in self._lines():
            yield line.domain

    def _register(self, line: Line) -> None:
        """Write the queue's name down where all are known."""
        now = time.monotonic()
        if now - self._registered.get(line.queue, -_REGISTER_EVERY) >= _REGISTER_EVERY:
            self._ready().ask([(b"SADD", self._keys.home.queues, line.queue)])
            self._registered[line.queue] = now

    def _storing(self, script: scripts.Script, line: Line, values: Sequence[Any]) -> Call:
        self._register(line)
        return super()._storing(script, line, values)

    # --- sessions ------------------------------------------------------------------------

    def _claim(self, domain: Domain, session: Session, queues: Sequence[str], call: Call) -> Any:
        reply = self._link.run(call)
        if reply == -1:
            self._join(self._keys.line(queues[0]), session)
            reply = self._link.run(call)
        if reply == -1:
            raise _lost(session)
        return reply

    def _join(self, line: Line, session: Session) -> None:
        """Let *session* take part in a queue.

        Raises:
            SessionLost: It does not live, or is dead there.
        """
        home, there, key, link = self._keys.home, line.domain, session.key, self._ready()
        self._register(line)
        deadline, (seconds, rest) = link.ask([(b"ZSCORE", home.sessions, key), (b"TIME",)])
        if deadline is None:
            raise _lost(session)
        link.ask([(b"SADD", home.uses(key), line.queue), (b"EXPIRE", home.uses(key), int(_WEEK))])
        left = max(float(deadline) - int(seconds) * 1e6 - int(rest), 1.0)
        keys = (there.sessions, there.lost, there.gone)
        link.run(Call(scripts.OPEN, keys, (key, int(left), micros(_WEEK))), again=True)
        # Only now is it certain that whoever declares it dead finds it here too.
        [here] = link.ask([(b"ZSCORE", there.sessions, key)])
        [alive] = link.ask([(b"ZSCORE", home.sessions, key)])
        if here is None or alive is None:
            raise _lost(session)

    def _uses(self, session: Session) -> list[Line]:
        """Return the queues in which *session* took part."""
        [names] = self._ready().ask([(b"SMEMBERS", self._keys.home.uses(session.key))])
        return [self._keys.line(name) for name in sorted(name.decode() for name in names)]

    def heartbeat(self, session: Session, *, ttl: float) -> None:
        """See `Sessions.heartbeat`; beats in every queue it can reach before it fails."""
        super().heartbeat(session, ttl=ttl)
        failed: BrokerError | None = None
        for line in self._uses(session):
            call = Call(scripts.HEARTBEAT, (line.domain.sessions,), (session.key, micros(ttl)))
            try:
                if not self._link.run(call, again=True):
                    self._join(line, session)
            except SessionLost:
                raise
            except BrokerError as error:
                failed = error
        if failed is not None:
            raise failed

    def end(self, session: Session) -> bool:
        """See `Sessions.end`; one step in each queue, all of them before the last at home."""
        lines = self._uses(session)
        for line in lines:
            if self._link.ask([(b"EXISTS", line.domain.held(session.key))])[0]:
                return False
        for line in lines:
            domain = line.domain
            keys = (domain.sessions, domain.lost, domain.gone, domain.holders)
            call = Call(scripts.END, (*keys, domain.held(session.key)), (session.key,))
            if not self._link.run(call, again=True):
                return False
        return super().end(session)

    def held(self, session: Session) -> Sequence[Delivery]:
        """See `Sessions.held`."""
        found = list(super().held(session))
        for line in self._uses(session):
            [flat] = self._link.ask([(b"HGETALL", line.domain.held(session.key))])
            found += self._with_bodies(pairs(flat), session, None)
        return found

    def _take_over(
        self, session: Session, limit: int, mode: str, word: str = ""
    ) -> Sequence[Delivery]:
        """See `Sessions.recover`; goes on with other nodes when one does not answer."""
        found = list(super()._take_over(session, limit, mode, word))
        failed: BrokerError | None = None
        if mode == "silent" and self._is_late(session):
            mode = "known"
        for line in self._lines():
            if len(found) >= limit:
                break
            try:
                names = self._lapse(line.domain, session, mode, word, at_home=False)
                if names:
                    self._join(line, session)
                for name in names:
                    if len(found) < limit:
                        left = limit - len(found)
                        found += self._transfer(line.domain, session, name, left)
            except SessionLost:
                raise
            except BrokerUnavailable as error:
                failed = error
        if failed is not None and not found:
            raise failed
        return found

    def _is_late(self, session: Session) -> bool:
        """Whether *session* is silent itself, by its home; it need not be known in a queue."""
        sessions = self._keys.home.sessions
        now = self._ready().run(Call(scripts.CLOCK, (sessions,), ()))
        [deadline] = self._link.ask([(b"ZSCORE", sessions, session.key)])
        return deadline is not None and float(deadline) <= float(now)

    # --- moves between slots -------------------------------------------------------------

    def requeue(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """See `Broker.requeue`; to another queue in two steps."""

        def put(line: Line, envelopes: Sequence[Envelope]) -> Call:
            values: list[Any] = []
            for envelope in envelopes:
                values += (envelope.id, pack(envelope), when(envelope))
            return self._storing(scripts.SCHEDULE, line, values)

        here, moving = _apart(deliveries)
        return [*super().requeue(here), *self._move(moving, put)]

    def bury(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """See `Broker.bury`; into another queue in two steps."""

        def put(line: Line, envelopes: Sequence[Envelope]) -> Call:
            self._register(line)
            values: list[Any] = [line.queue]
            for envelope in envelopes:
                values += (envelope.id, pack(envelope))
            return Call(scripts.INTER, (line.jobs, line.dead, line.domain.queues), values)

        here, moving = _apart(deliveries)
        return [*super().bury(here), *self._move(moving, put)]

    def _move(
        self,
        moving: Sequence[tuple[Delivery, Envelope]],
        put: Callable[[Line, Sequence[Envelope]], Call],
    ) -> Sequence[Delivery]:
        """Store the envelopes of loans that are good where they go, then end the loans."""
        groups: defaultdict[tuple[str, str], list[tuple[Delivery, Envelope]]] = defaultdict(list)
        for delivery, envelope in moving:
            groups[delivery.envelope.queue, envelope.queue].append((delivery, envelope))
        lost: list[Delivery] = []
        for (_, queue), part in grouped(groups, CHUNK):
            good = [pair for pair in part if self._is_good(pair[0])]
            lost += [delivery for delivery, _ in part if delivery not in [g[0] for g in good]]
            if good:
                line = self._keys.line(queue)
                self._link.run(put(line, [envelope for _, envelope in good]), again=True)
                lost += self.ack([delivery for delivery, _ in good])
        return lost

    def _is_good(self, delivery: Delivery) -> bool:
        domain = self._keys.line(delivery.envelope.queue).domain
        key = delivery.session.key
        field = f"{delivery.envelope.queue}/{delivery.envelope.id}"
        alive, receipt = self._ready().ask(
            [(b"ZSCORE", domain.sessions, key), (b"HGET", domain.held(key), field)]
        )
        return alive is not None and bool(receipt == delivery.receipt)

    def _replay_part(self, lines: Sequence[Line], new: Line, part: Sequence[Envelope]) -> list[str]:
        replayed = super()._replay_part([new], new, part)
        for line in lines:
            left = [envelope for envelope in part if envelope.id not in replayed]
            if line is new or not left:
                continue
            [scores] = self._ready().ask([(b"ZMSCORE", line.dead, *(e.id for e in left))])
            dead = [e for e, score in zip(left, scores, strict=True) if score is not None]
            if dead:
                values: list[Any] = []
                for envelope in dead:
                    values += (envelope.id, pack(envelope))
                self._link.run(self._storing(scripts.ENQUEUE, new, values), again=True)
                keys = (line.jobs, line.dead, line.first)
                gone = self._link.run(Call(scripts.DELETE, keys, [e.id for e in dead]))
                replayed += [dead[number].id for number in gone]
        return replayed


def _apart(
    deliveries: Sequence[tuple[Delivery, Envelope]],
) -> tuple[list[tuple[Delivery, Envelope]], list[tuple[Delivery, Envelope]]]:
    """Return those that stay in their queue, and those that move to another."""
    here: list[tuple[Delivery, Envelope]] = []
    moving: list[tuple[Delivery, Envelope]] = []
    for pair in deliveries:
        (here if pair[0].envelope.queue == pair[1].queue else moving).append(pair)
    return here, moving


def _lost(session: Session) -> SessionLost:
    return SessionLost(f"session {session.key} is dead or was never opened; open a new epoch")
