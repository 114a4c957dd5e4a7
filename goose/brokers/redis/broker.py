"""`RedisBroker`: jobs on a Redis or Valkey server, shared by any number of machines.

Every verb is one call of a Lua script, which the server runs in one step, so that whatever
a job's next state is, it is stored in the step that ends the previous one. Time is the
server's. A `dequeue` that finds nothing leaves its name with the queues and sleeps in a BLPOP
of their wake lists; whoever makes jobs ready leaves one token for each job, but no more than
there are sleepers, so that one job wakes one worker. A dequeue also looks by itself when a
scheduled job of its queues is due, and after some seconds in any case; as an idle server looks
at its timeouts ten times a second, that may be a tenth of a second late, where `promote_due`
is not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

from goose.brokers.base import Capability, Delivery, Session, Share, order
from goose.brokers.redis import scripts
from goose.brokers.redis.access import grouped
from goose.brokers.redis.inspector import Inspecting
from goose.brokers.redis.keys import Domain, Line
from goose.brokers.redis.links import Call
from goose.brokers.redis.records import delivered, micros, pack, when
from goose.brokers.redis.scripts import Script
from goose.brokers.redis.sessions import Sessioned
from goose.brokers.redis.upkeep import Upkept
from goose.brokers.redis.waiting import Alarm
from goose.errors import BrokerUnavailable, SessionLost
from goose.jobs import Envelope

if TYPE_CHECKING:
    from goose.stores.base import Store

CHUNK = 500
"""Jobs in one call of a script at most."""
_LONGEST_NAP = 0.4
"""Part of the timeout for which a BLPOP waits at most, so that its answer is never late."""
_MARGIN = 1.0
"""Seconds for which a sleeper stays known after it should have looked again."""
_SPREAD = 0.01
"""Seconds over which sleepers that wait for the same due job are spread."""


class RedisBroker(Sessioned, Upkept, Inspecting):
    """A durable broker on a server, as durable as that is told to be.

    Thread-safe, and safe to use on both sides of a fork. Nothing is connected before the
    first use.

    Args:
        place: A URL (see `goose.brokers.redis.options`), or a client of redis-py, whose
            connections are used. ``redis://localhost:6379/0`` by default.
        options: As in the query of the URL, and before it: ``namespace``, ``pool``
            (connections), ``timeout`` and ``connect_timeout`` (seconds), ``wait`` (replicas),
            ``wait_timeout`` (seconds), ``dead_max_age`` (seconds), ``dead_max_count``,
            ``strict`` and others.

    Raises:
        ConfigError: The URL or an option is unknown or nonsense.
    """

    capabilities = frozenset(
        {Capability.DEDUPES, Capability.DURABLE, Capability.SHARED, Capability.CLOCK}
    )

    def __new__(cls, place: Any = None, **_: Any) -> Self:
        """Return a broker of the kind that the URL asks for."""
        if cls is RedisBroker and isinstance(place, str) and "+cluster:" in place:
            from goose.brokers.redis.clustered import RedisClusterBroker  # which is one of these

            return cast("Self", object.__new__(RedisClusterBroker))
        return object.__new__(cls)

    def __init__(self, place: Any = None, **given: Any) -> None:
        super().__init__(place, **given)
        self._place, self._given = place, given
        self._unheard: BrokerUnavailable | None = None
        """A node of a cluster did not answer a call that others did; raised by the next one."""

    def open_store(self) -> Store:
        """See `Keeper.open_store`: on the same server, over connections of its own."""
        from goose.stores.redis import RedisStore

        return RedisStore(self._place, **self._given)

    def __repr__(self) -> str:
        return f"RedisBroker({self._link.where!r})"

    # --- in ------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        """See `Broker.enqueue`; up to 500 jobs of a queue in one step."""
        if len(envelopes) == 1:
            [envelope] = envelopes
            line = self._keys.line(envelope.queue)
            self._store([self._storing(scripts.ENQUEUE, line, [envelope.id, pack(envelope)])])
            return
        calls: list[Call] = []
        for line, part in grouped(self._by_line(envelopes), CHUNK):
            values: list[Any] = []
            for envelope in part:
                values += (envelope.id, pack(envelope))
            calls.append(self._storing(scripts.ENQUEUE, line, values))
        self._store(calls)

    def schedule(self, envelopes: Sequence[Envelope]) -> None:
        """See `Broker.schedule`; due instants to the microsecond, by the server's clock."""
        calls: list[Call] = []
        for line, part in grouped(self._by_line(envelopes), CHUNK):
            values: list[Any] = []
            for envelope in part:
                values += (envelope.id, pack(envelope), when(envelope))
            calls.append(self._storing(scripts.SCHEDULE, line, values))
        self._store(calls)

    def _by_line(self, envelopes: Sequence[Envelope]) -> dict[Line, list[Envelope]]:
        lines: defaultdict[str, list[Envelope]] = defaultdict(list)
        for envelope in envelopes:
            lines[envelope.queue].append(envelope)
        return {self._keys.line(queue): found for queue, found in lines.items()}

    def _storing(self, script: Script, line: Line, values: Sequence[Any]) -> Call:
        keys = line.enqueue if script is scripts.ENQUEUE else (*line.enqueue, line.scheduled)
        return Call(script, keys, (line.queue, b"1" if self.options.wait else b"0", *values))

    def _store(self, calls: Sequence[Call]) -> None:
        """Make *calls*, one after the other, so that what is known of each is simple.

        A second try does no harm, as ids that are stored already are left out.
        """
        link, wait = self._ready(), self.options.wait
        for number, call in enumerate(calls):
            try:
                if not wait:
                    link.run(call, again=True)
                    continue
                _, confirmed = link.confirmed(call, wait, self.options.wait_timeout)
            except BrokerUnavailable:
                raise
            except Exception as error:
                if number:  # "refused" would mean that nothing was stored
                    raise BrokerUnavailable(f"a part of the jobs was refused: {error}") from error
                raise
            if confirmed < wait:
                link.reconnect()  # its replicas may follow another master by now
                raise BrokerUnavailable(
                    f"Redis at {link.where}: {confirmed} of {wait} replicas confirmed the jobs "
                    f"within {self.options.wait_timeout:g} s; they are on the master"
                )

    # --- out -----------------------------------------------------------------------------

    def dequeue(
        self, session: Session, queues: Sequence[Share], *, limit: int, wait: float
    ) -> Sequence[Delivery]:
        """See `Broker.dequeue`; at most about a megabyte of jobs, but at least one."""
        if wait <= 0:
            self._alarms.answer()
            return self._lend(session, queues, limit, None, 0.0)[0]
        alarm = self._alarms.take()
        if alarm is None:
            return self._lend(session, queues, limit, None, 0.0)[0]
        try:
            return self._lend_or_sleep(session, queues, limit, wait, alarm)
        finally:
            self._alarms.give(alarm)

    def _lend_or_sleep(
        self, session: Session, queues: Sequence[Share], limit: int, wait: float, alarm: Alarm
    ) -> Sequence[Delivery]:
        wakes = [self._keys.line(share.queue).wake for share in queues]
        longest = self.options.timeout * _LONGEST_NAP
        deadline = time.monotonic() + wait
        while True:
            nap = min(deadline - time.monotonic(), longest)
            found, due_in = self._lend(session, queues, limit, alarm, max(nap, 0.001) + _MARGIN)
            if found or alarm.rung or self._closed:
                return found
            left = min(deadline - time.monotonic(), longest)
            if due_in is not None:
                left = min(left, due_in + self._random.uniform(0.0, _SPREAD))
            if left > 0 and self._link.doze(wakes, left, alarm):
                continue
            if alarm.rung or time.monotonic() >= deadline:
                return []

    def _lend(
        self,
        session: Session,
        queues: Sequence[Share],
        limit: int,
        alarm: Alarm | None,
        sleep: float,
    ) -> tuple[list[Delivery], float | None]:
        """Return the loans, and if there are none the seconds until a job is due.

        Args:
            session: For whom.
            queues: Where to look.
            limit: Jobs at most.
            alarm: The sleeper, if it sleeps when there is nothing.
            sleep: Seconds for which it is known as asleep then.
        """
        self._ready()
        unheard, self._unheard = self._unheard, None
        if unheard is not None:
            raise unheard
        lent: list[Delivery] = []
        next_due: float | None = None
        asleep = alarm is not None and alarm.registered
        lines = [self._keys.line(queue) for queue in order(queues, self._random)]
        for domain, part in self._groups(lines):
            names = [line.queue for line in part]
            args = (
                *(session.key, limit - len(lent), micros(sleep)),
                *(alarm.name if alarm else b"", b"1" if asleep else b"0", *names),
            )
            keys = [domain.sessions, domain.holders, domain.held(session.key), domain.receipt]
            for line in part:
                keys += line.dequeue
            try:
                reply = self._claim(domain, session, names, Call(scripts.DEQUEUE, keys, args))
            except BrokerUnavailable as error:
                if not lent:
                    raise
                self._unheard = error  # another node's; what this one lent is not held back
                break
            lent += delivered(reply, names, session)
            if reply[0] >= 0:
                due = reply[0] / 1e6
                next_due = due if next_due is None else min(next_due, due)
            if len(lent) >= limit:
                break
        if alarm is not None:
            alarm.registered = not lent
        return lent, next_due

    def _claim(self, domain: Domain, session: Session, queues: Sequence[str], call: Call) -> Any:
        reply = self._link.run(call)
        if reply == -1:
            raise SessionLost(f"session {session.key} is dead or was never opened")
        return reply

    # --- settle --------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See `Broker.ack`."""

        def call(line: Line, session: str, part: Sequence[Delivery]) -> Call:
            keys = (line.domain.sessions, line.domain.held(session), line.jobs)
            args: list[Any] = [session, line.queue]
            for delivery in part:
                args += (delivery.envelope.id, delivery.receipt)
            return Call(scripts.ACK, keys, args)

        return self._settle(deliveries, call)

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See `Broker.release`; each takes back the place it had."""

        def call(line: Line, session: str, part: Sequence[Delivery]) -> Call:
            domain = line.domain
            keys = (domain.sessions, domain.held(session), line.ready, line.first)
            args: list[Any] = [session, line.queue]
            for delivery in part:
                args += (delivery.envelope.id, delivery.receipt)
            return Call(scripts.RELEASE, (*keys, line.sleepers, line.wake), args)

        return self._settle(sorted(deliveries, key=lambda lent: lent.receipt), call)  # type: ignore[arg-type, return-value]

    def _settle(
        self,
        deliveries: Sequence[Delivery],
        call: Callable[[Line, str, Sequence[Delivery]], Call],
    ) -> Sequence[Delivery]:
        groups: defaultdict[tuple[str, str], list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            groups[delivery.envelope.queue, delivery.session.key].append(delivery)
        parts = list(grouped(groups, CHUNK))
        calls = [call(self._keys.line(queue), session, part) for (queue, session), part in parts]
        lost: list[Delivery] = []
        for (_, part), reply in zip(parts, self._run_all(calls), strict=True):
            lost += [part[number] for number in reply]
        return lost

    def requeue(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """See `Broker.requeue`."""

        def call(old: Line, new: Line, session: str, part: Sequence[Any]) -> Call:
            domain = old.domain
            keys = (domain.sessions, domain.held(session), old.jobs, new.jobs, new.ready)
            args: list[Any] = [session, old.queue, new.queue]
            for delivery, envelope in part:
                args += (envelope.id, delivery.receipt, pack(envelope), when(envelope))
            more = (new.scheduled, new.sleepers, new.wake, domain.queues)
            return Call(scripts.REQUEUE, (*keys, *more), args)

        return self._settle_pairs(deliveries, call)

    def bury(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """See `Broker.bury`; drops the oldest dead jobs of a queue that has too many."""
        keep = self.options.dead_max_count

        def call(old: Line, new: Line, session: str, part: Sequence[Any]) -> Call:
            domain = old.domain
            keys = (domain.sessions, domain.held(session), old.jobs, new.jobs, new.dead)
            args: list[Any] = [session, old.queue, new.queue, keep]
            for delivery, envelope in part:
                args += (envelope.id, delivery.receipt, pack(envelope))
            return Call(scripts.BURY, (*keys, domain.queues), args)

        return self._settle_pairs(deliveries, call)

    def _settle_pairs(
        self,
        pairs: Sequence[tuple[Delivery, Envelope]],
        call: Callable[[Line, Line, str, Sequence[Any]], Call],
    ) -> Sequence[Delivery]:
        groups: defaultdict[tuple[str, str, str], list[Any]] = defaultdict(list)
        for pair in pairs:
            delivery, envelope = pair
            key = (delivery.envelope.queue, envelope.queue, delivery.session.key)
            groups[key].append(pair)
        parts = list(grouped(groups, CHUNK))
        line = self._keys.line
        calls = [call(line(old), line(new), session, part) for (old, new, session), part in parts]
        lost: list[Delivery] = []
        for (_, part), reply in zip(parts, self._run_all(calls), strict=True):
            lost += [part[number][0] for number in reply]
        return lost

    # --- life ----------------------------------------------------------------------------

    def wake(self) -> None:
        """See `Broker.wake`; needs no network."""
        self._alarms.ring()
