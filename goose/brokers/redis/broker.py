"""`RedisBroker`: jobs on a Redis or Valkey server, shared by any number of machines.

Every verb is one call of a Lua script, which the server runs in one step, so that whatever
a job's next state is, it is stored in the step that ends the previous one. Time is the
server's. How a `dequeue` that finds nothing sleeps, and is woken, is told in `lending`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

from goose.brokers.base import Capability, Delivery
from goose.brokers.redis import scripts
from goose.brokers.redis.access import grouped
from goose.brokers.redis.inspector import Inspecting
from goose.brokers.redis.keys import Line
from goose.brokers.redis.lending import Lending
from goose.brokers.redis.links import Call
from goose.brokers.redis.records import pack, when
from goose.brokers.redis.scripts import Script
from goose.brokers.redis.sessions import Sessioned
from goose.brokers.redis.upkeep import Upkept
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope

if TYPE_CHECKING:
    from goose.brokers.examining import Examination
    from goose.stores.base import Store

CHUNK = 500
"""Jobs in one call of a script at most."""


class RedisBroker(Lending, Sessioned, Upkept, Inspecting):
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

    def open_store(self) -> Store:
        """See `Keeper.open_store`: on the same server, over connections of its own."""
        from goose.stores.redis import RedisStore

        return RedisStore(self._place, **self._given)

    def examine(self) -> Examination:
        """See `Examined.examine`; of a cluster, one server is looked at."""
        from goose.brokers.redis.examination import examine  # not every program's

        return examine(self._ready(), self._keys.home.prefix, clustered=self._keys.clustered)

    def __repr__(self) -> str:
        return f"RedisBroker({self._link.where!r})"

    # --- in ------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        """See `Broker.enqueue`; up to 500 jobs of a queue in one step."""
        if len(envelopes) == 1:
            [envelope] = envelopes
            line = self._keys.line(envelope.queue)
            call = self._storing(scripts.ENQUEUE, line, [envelope.id, pack(envelope)])
            self._store([(call, envelopes)])
            return
        calls: list[tuple[Call, Sequence[Envelope]]] = []
        for line, part in grouped(self._by_line(envelopes), CHUNK):
            values: list[Any] = []
            for envelope in part:
                values += (envelope.id, pack(envelope))
            calls.append((self._storing(scripts.ENQUEUE, line, values), part))
        self._store(calls)

    def schedule(self, envelopes: Sequence[Envelope]) -> None:
        """See `Broker.schedule`; due instants to the microsecond, by the server's clock."""
        calls: list[tuple[Call, Sequence[Envelope]]] = []
        for line, part in grouped(self._by_line(envelopes), CHUNK):
            values: list[Any] = []
            for envelope in part:
                values += (envelope.id, pack(envelope), when(envelope))
            calls.append((self._storing(scripts.SCHEDULE, line, values), part))
        self._store(calls)

    def _by_line(self, envelopes: Sequence[Envelope]) -> dict[Line, list[Envelope]]:
        lines: defaultdict[str, list[Envelope]] = defaultdict(list)
        for envelope in envelopes:
            lines[envelope.queue].append(envelope)
        return {self._keys.line(queue): found for queue, found in lines.items()}

    def _storing(self, script: Script, line: Line, values: Sequence[Any]) -> Call:
        keys = line.enqueue if script is scripts.ENQUEUE else (*line.enqueue, line.scheduled)
        return Call(script, keys, (line.queue, b"1" if self.options.wait else b"0", *values))

    def _store(self, calls: Sequence[tuple[Call, Sequence[Envelope]]]) -> None:
        """Make *calls*, one after the other, so that what is known of each is simple.

        A second try stores nothing twice, as ids that are stored already are left out.
        """
        link, wait = self._ready(), self.options.wait
        for number, (call, jobs) in enumerate(calls):
            try:
                if not wait:
                    link.run(call, again=True, jobs=jobs)
                    continue
                _, confirmed = link.confirmed(call, wait, self.options.wait_timeout, jobs)
            except BrokerUnavailable as error:
                if number:
                    error.unsent = False  # those before it were
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
