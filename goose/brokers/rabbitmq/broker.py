"""`RabbitMQBroker`: jobs on RabbitMQ, stored when the server has confirmed them.

A process has up to two connections, each with a thread of its own: one that publishes, where
the server may make us wait when it is short of memory, and one that consumes, where it never
does. Nothing is connected before it is used.

An ack has no answer in this protocol, so `ack` asks the server something behind it, once for
all the jobs of a call, and returns with the answer. `requeue` and `bury` first store the next
state and have that confirmed, and then ack. So a crash in between leaves both: a job may run
twice, and is never lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from goose.brokers.base import Capability, Delivery, Notify, Session, Share
from goose.brokers.rabbitmq.confirms import Parcel
from goose.brokers.rabbitmq.faults import Refused, unsent
from goose.brokers.rabbitmq.inspector import Inspecting
from goose.brokers.rabbitmq.ladder import climb
from goose.brokers.rabbitmq.options import Options, read
from goose.brokers.rabbitmq.parcels import aloft, delay_of, parcel
from goose.brokers.rabbitmq.parts import Parts
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope

if TYPE_CHECKING:
    from goose.brokers.examining import Examination


class RabbitMQBroker(Inspecting):
    """A durable broker on a server or cluster, as durable as its queues.

    Thread-safe, and safe to use on both sides of a fork.

    Args:
        url: See `goose.brokers.rabbitmq.options`; ``amqp://localhost`` by default.
        on_return: Called with the routing key and the job's id when no queue took a job.
        on_lost: Called with the error when a connection is lost. Both are called on threads
            that must not be kept waiting.
        options: As in the query of the URL, and before it.

    Raises:
        ConfigError: The URL or an option is unknown or nonsense.
    """

    capabilities = frozenset({Capability.DURABLE, Capability.SHARED, Capability.CONCURRENT})

    def __init__(
        self,
        url: str = "amqp://localhost",
        *,
        on_return: Callable[[str, str], None] = lambda _key, _id: None,
        on_lost: Callable[[BaseException], None] = lambda _: None,
        **options: Any,
    ) -> None:
        self.options: Options = read(url, options)
        self._on_return = on_return
        self._on_lost = on_lost
        self._made: dict[int, Parts] = {}
        """By process: to end what a fork has copied would end the parent's."""

    def __repr__(self) -> str:
        return f"RabbitMQBroker({self.options.where!r})"

    @property
    def _parts(self) -> Parts:
        pid = os.getpid()
        parts = self._made.get(pid)
        if parts is None:
            # Another thread, or a signal handler that came into this, may be quicker; these have begun nothing.
            made = Parts(self.options, self._on_return, self._on_lost)
            parts = self._made.setdefault(pid, made)
        return parts

    # --- in ------------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        """See `Broker.enqueue`; nothing tells whether an id is stored already."""
        parts, deadline = self._parts, self._deadline()
        ready = parts.topology.ready
        try:
            parcels = [parcel(e, "", ready(e.queue, deadline)) for e in envelopes]
        except BrokerUnavailable as error:
            # It is about queues, which come before jobs.
            raise unsent(error) from error.__cause__
        parts.publisher.send(parcels, deadline)

    def _deadline(self) -> float:
        return time.monotonic() + self.options.timeout

    def post(self, calls: Sequence[tuple[Sequence[Envelope], Notify]]) -> bool:
        """See `Posting.post`; only to queues that are known to exist, and some thousands at a time."""
        parts = self._parts
        posts: list[tuple[list[Parcel], Notify]] = []
        for envelopes, notify in calls:
            parcels: list[Parcel] = []
            for envelope in envelopes:
                name = parts.topology.known(envelope.queue)
                if name is None:
                    return False
                parcels.append(parcel(envelope, "", name))
            posts.append((parcels, notify))
        return parts.publisher.post(posts)

    def schedule(self, envelopes: Sequence[Envelope]) -> None:
        """See `Broker.schedule`; up to a tenth of a second late, an instant by our own clock."""
        parts, deadline = self._parts, self._deadline()
        try:
            parcels = [self._bound(parts, envelope, None, deadline) for envelope in envelopes]
        except BrokerUnavailable as error:
            raise unsent(error) from error.__cause__
        parts.publisher.send(parcels, deadline)

    def _bound(
        self, parts: Parts, envelope: Envelope, words: str | None, deadline: float
    ) -> Parcel:
        """Return *envelope* as a message to where it belongs now."""
        delay = delay_of(envelope)
        if delay <= 0:
            return parcel(envelope, "", parts.topology.ready(envelope.queue, deadline), words)
        way = climb(delay)
        return aloft(envelope, way, parts.topology.way(way, envelope.queue, deadline), words)

    # --- out -----------------------------------------------------------------------------

    def dequeue(
        self, session: Session, queues: Sequence[Share], *, limit: int, wait: float
    ) -> Sequence[Delivery]:
        """See `Broker.dequeue`."""
        parts, deadline = self._parts, self._deadline()
        for share in queues:
            # Made here, it is also known to `Inspector.queues`.
            parts.topology.ready(share.queue, deadline)
        return parts.intake.dequeue(session, queues, limit, wait)

    # --- settle --------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See `Broker.ack`."""
        return self._parts.intake.settle(deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See `Broker.release`."""
        parts = self._parts
        lost = parts.intake.settle(deliveries, back=True)
        given = [delivery.envelope.id for delivery in deliveries if delivery not in lost]
        if given:
            parts.announce(given)
        return lost

    def requeue(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """See `Broker.requeue`."""
        parts = self._parts
        deadline = self._deadline()

        def next_one(envelope: Envelope, words: str | None) -> Parcel:
            return self._bound(parts, envelope, words, deadline)

        return self._replace(deliveries, next_one, deadline)

    def bury(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """See `Broker.bury`; the server drops the oldest dead jobs of a queue that has too many."""
        parts, died, deadline = self._parts, repr(time.time()), self._deadline()

        def grave(envelope: Envelope, _word: str | None) -> Parcel:
            queue = parts.topology.dead(envelope.queue, deadline)
            return parcel(envelope, "", queue, goose_died=died)

        return self._replace(deliveries, grave, deadline)

    def _replace(
        self,
        pairs: Sequence[tuple[Delivery, Envelope]],
        message: Callable[[Envelope, str | None], Parcel],
        deadline: float,
    ) -> Sequence[Delivery]:
        """Store the next states of those that are ours, then ack these."""
        if not pairs:
            return []
        parts = self._parts
        intake = parts.intake
        ours, lost = intake.good([delivery for delivery, _ in pairs])
        envelopes = {delivery.receipt: envelope for delivery, envelope in pairs}
        parcels = [message(envelopes[d.receipt], intake.words_of(d)) for d in ours]
        try:
            parts.publisher.send(parcels, deadline)
        except Refused:
            # Its queue may have just been deleted; then it is made again.
            parts.topology.forget()
            parcels = [message(envelopes[d.receipt], intake.words_of(d)) for d in ours]
            parts.publisher.send(parcels, deadline)
        # What is taken back by the server between the two is stored twice, and runs again.
        intake.settle(ours)
        return lost

    # --- the dead ------------------------------------------------------------------------

    def testify(self, verdicts: Mapping[str, str]) -> None:
        """See `Witnessed.testify`; repeated for two minutes, for workers that begin later.

        Whoever has called it keeps a connection from then on.
        """
        parts = self._parts
        parts.topology.words()
        parts.testify(verdicts)

    def examine(self) -> Examination:
        """See `Examined.examine`; the server tells little, and has no clock."""
        from goose.brokers.rabbitmq.examination import examine  # not every program's

        parts = self._parts
        parts.topology.size(parts.names.names)  # which brings the connection about
        connection = parts.publisher.wire.connection
        said = None if connection is None else connection.server_properties
        return examine(self.options, said or {})

    # --- life ----------------------------------------------------------------------------

    def wake(self) -> None:
        """See `Broker.wake`."""
        self._parts.intake.wake()

    def close(self) -> None:
        """See `Broker.close`."""
        parts = self._made.pop(os.getpid(), None)
        if parts is not None:
            parts.close()
