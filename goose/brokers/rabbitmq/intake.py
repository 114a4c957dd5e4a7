"""Takes ready jobs from the server: the freight of a connection that consumes.

Its lanes hold what the server has pushed; `dequeue` hands that on and makes loans of it, and
the verbs that settle turn receipts into what the server wants to hear. It listens to what is
said of dead workers' jobs before it takes any, and asks nobody for longer than a second.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from goose._interrupts import may_strike
from goose.brokers.base import Delivery, Session, Share, order
from goose.brokers.rabbitmq.driving import Bell
from goose.brokers.rabbitmq.faults import translated
from goose.brokers.rabbitmq.lane import Lane
from goose.brokers.rabbitmq.loans import Ended, Hearing, Loan
from goose.brokers.rabbitmq.names import Names
from goose.brokers.rabbitmq.options import Options
from goose.brokers.rabbitmq.wire import Wire
from goose.brokers.rabbitmq.words import HEADER, Hearsay
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope

TEND = 0.1
"""Seconds between two looks at what is held here."""
NAP = 0.02
"""Seconds between two looks at lanes of which it is not known whether they are empty."""
UNSURE = 1.0
"""Seconds at most that a dequeue waits to know whether a more urgent queue is empty."""


class Intake:
    """See the module. Everything without another word is for any thread.

    Args:
        options: How long to wait for what.
        names: Of the namespace.
        on_lost: Told of every lost connection.
        announce: Tells others that jobs were given back unstarted; for the wire's thread.
        on_parked: Given every parked message, as tag, properties and body, on the wire's thread.
    """

    def __init__(
        self,
        options: Options,
        names: Names,
        *,
        on_lost: Callable[[BaseException], None],
        announce: Callable[[Sequence[str]], None],
        on_parked: Callable[[Any, int, Any, bytes], None],
    ) -> None:
        self.options = options
        self.names = names
        self.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)
        self._bell = Bell()
        self.loans: dict[int, Loan] = {}
        self.strays: dict[str, Loan] = {}
        """Loans whose message the server has taken back, by job; they may still be running."""
        self.ended = Ended()
        self.hearsay = Hearsay()
        self.connection: Any = None
        """Once the words are listened to; the wire's own."""
        self.wire = Wire(options, "worker", self, on_lost)
        self._announce = announce
        self._on_parked = on_parked
        self._lanes: dict[str, Lane] = {}
        # Receipts of two objects must not meet, so they begin anywhere.
        self._receipts = itertools.count(random.getrandbits(60))
        self._random = random.Random()
        self._woken = False
        self._closed = False
        self._tending = False

    # --- lending -------------------------------------------------------------------------

    def dequeue(
        self, session: Session, queues: Sequence[Share], limit: int, wait: float
    ) -> list[Delivery]:
        """See `Broker.dequeue`."""
        began = now = time.monotonic()
        until, unsure_until = began + wait, began + max(wait, UNSURE)
        with self.lock:
            lanes = [self._lane(queue) for queue in order(queues, self._random)]
            for lane in lanes:
                lane.askers += 1
            try:
                while True:
                    lent, sure = self._lend(lanes, session, limit, now, hurry=now >= unsure_until)
                    if lent:
                        return lent
                    if self._woken or self._closed:
                        self._woken = False
                        return []
                    self._raise_trouble(lanes, now - began)
                    nap = (until if sure else unsure_until) - now
                    if nap <= 0:
                        return []
                    # Short naps: acks on their way elsewhere give a lane credit without a word.
                    self._wait(nap if sure else min(nap, NAP))
                    now = time.monotonic()
            finally:
                for lane in lanes:
                    lane.askers -= 1

    def _wait(self, seconds: float) -> None:
        """Wait for news, if possible by reading them from the connection; the condition is held, but not meanwhile."""
        heard = self._bell.rung
        attended = False
        if not may_strike():
            self.condition.release()
            try:
                attended = self.wire.attend(self._bell, heard, seconds)
            finally:
                self.condition.acquire()
        if not attended and self._bell.rung == heard:
            self.condition.wait(seconds)

    def notify(self) -> None:
        """Have those who wait look again; under the condition."""
        self.condition.notify_all()
        self._bell.ring()

    def _lane(self, queue: str) -> Lane:
        lane = self._lanes.get(queue)
        if lane is None:
            lane = self._lanes[queue] = Lane(self, queue)
        return lane

    def _lend(
        self, lanes: Sequence[Lane], session: Session, limit: int, now: float, *, hurry: bool
    ) -> tuple[list[Delivery], bool]:
        """Return the loans, and whether all that was looked at is known to be empty."""
        lent: list[Delivery] = []
        sure = True
        for lane in lanes:
            lane.asked_mono = now
            while lane.buffer and len(lent) < limit:
                lent.append(self._loan(lane, session))
            if len(lent) >= limit:
                break
            if not lane.known_empty(limit - len(lent), now):
                sure = False
                if not hurry:
                    break  # it may have jobs yet, and it is more urgent than the rest
        return lent, sure

    def _loan(self, lane: Lane, session: Session) -> Delivery:
        arrival = lane.buffer.popleft()
        lane.pace.take()
        receipt = next(self._receipts)
        headers = arrival.headers or {}
        words = arrival.words or headers.get(HEADER)
        self.loans[receipt] = Loan(
            lane, arrival.id, arrival.tag, lane.generation, lane.epoch, words
        )
        lane.lent += 1
        group = headers.get("goose-group")
        envelope = Envelope(arrival.id, lane.queue, arrival.body, None, None, group)
        return Delivery(envelope, receipt, session, verdict=arrival.verdict)

    def _raise_trouble(self, lanes: Sequence[Lane], waited: float) -> None:
        for lane in lanes:
            if lane.error is not None:
                error, lane.error = lane.error, None
                raise error
        lost = self.wire.error
        if lost is not None and waited >= UNSURE:
            raise translated(lost, self.options.where)

    def held(self, queue: str) -> int:
        """Return how many jobs of *queue* are here and not lent."""
        with self.lock:
            lane = self._lanes.get(queue)
            return 0 if lane is None else len(lane.buffer) + len(lane.quarantine)

    def wake(self) -> None:
        """End a dequeue that waits, or the next one."""
        with self.lock:
            self._woken = True
            self.notify()

    # --- settling ------------------------------------------------------------------------

    def good(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        """Return those that are still ours, each once, and those that are not; ends nothing."""
        ours: dict[Any, Delivery] = {}
        lost: list[Delivery] = []
        with self.lock:
            for delivery in deliveries:
                loan = self.loans.get(delivery.receipt)  # type: ignore[call-overload]
                if loan is None:
                    lost.append(delivery)
                elif loan.generation != loan.lane.generation:
                    lost.append(delivery)
                    self._forget(delivery.receipt, loan)
                else:
                    ours[delivery.receipt] = delivery
        return list(ours.values()), lost

    def _forget(self, receipt: Any, loan: Loan) -> None:
        del self.loans[receipt]
        if self.strays.get(loan.id) is loan:
            del self.strays[loan.id]

    def words_of(self, delivery: Delivery) -> str | None:
        """Return the words about the job that were heeded, for its header."""
        loan = self.loans.get(delivery.receipt)  # type: ignore[call-overload]
        return None if loan is None else loan.words

    def settle(self, deliveries: Sequence[Delivery], *, back: bool = False) -> list[Delivery]:
        """End these loans, by an ack or by giving them *back*; return those that were not ours.

        An ack has no answer, so a question is sent behind it, and the answer to that waited for.

        Raises:
            BrokerUnavailable: The server may have heard of it or not.
        """
        lost: list[Delivery] = []
        tags: dict[Lane, list[int]] = {}
        generations: dict[Lane, int] = {}
        with self.lock:
            for delivery in deliveries:
                loan = self.loans.get(delivery.receipt)  # type: ignore[call-overload]
                if loan is None:
                    lost.append(delivery)
                    continue
                self._forget(delivery.receipt, loan)
                lane = loan.lane
                if loan.generation != lane.generation:
                    lost.append(delivery)
                    if not back:
                        self.ended.note(loan.id, delivery.envelope.body)
                    continue
                lane.lent -= loan.epoch == lane.epoch
                tags.setdefault(lane, []).append(loan.tag)
                generations[lane] = lane.generation
                if back:
                    lane.clear = False  # it may come here again
                    self.hearsay.given_back([loan.id])
        if tags:
            hearing = Hearing(len(tags))
            self.wire.call(lambda: self._tell(tags, generations, back, hearing))
            if not hearing.wait(self.options.timeout):
                self._note_ended([] if back else deliveries)
                raise BrokerUnavailable(
                    f"RabbitMQ at {self.options.where} may not have heard that jobs are done; "
                    "then it lends them again"
                )
        return lost

    def _note_ended(self, deliveries: Sequence[Delivery]) -> None:
        with self.lock:
            for delivery in deliveries:
                self.ended.note(delivery.envelope.id, delivery.envelope.body)

    def _tell(
        self,
        tags: dict[Lane, list[int]],
        generations: dict[Lane, int],
        back: bool,
        hearing: Hearing,
    ) -> None:
        for lane, numbers in tags.items():
            if lane.generation == generations[lane]:
                (lane.nack if back else lane.ack)(numbers)
                lane.ask(hearing)
            else:
                hearing.heard(False)

    # --- the wire's thread ---------------------------------------------------------------

    def waiting(self) -> bool:
        """See `Freight.waiting`: a worker always waits for jobs."""
        return True

    def unblocked(self) -> None:
        """See `Freight.unblocked`: nothing is published here."""

    def up(self, connection: Any) -> None:
        """See `Freight.up`; listens first, then takes jobs."""
        if not self._tending:
            self._tending = True
            self._tend()
        connection.channel(on_open_callback=lambda channel: self._listen(connection, channel))
        connection.channel(on_open_callback=self._look_after_parked)

    def _listen(self, connection: Any, channel: Any) -> None:
        words = self.names.words

        def told(_channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
            with self.lock:
                heard = self.hearsay.hear(body)
            if heard:
                for lane in list(self._lanes.values()):
                    lane.examine(time.monotonic())

        def bound(_frame: Any, queue: str) -> None:
            channel.basic_consume(
                queue, told, auto_ack=True, callback=lambda _: self._begin(connection)
            )

        def declared(frame: Any) -> None:
            queue = frame.method.queue
            channel.queue_bind(queue, words, callback=lambda frame: bound(frame, queue))

        channel.exchange_declare(
            words,
            "fanout",
            durable=True,
            callback=lambda _: channel.queue_declare(
                "", exclusive=True, auto_delete=True, callback=declared
            ),
        )

    def _begin(self, connection: Any) -> None:
        self.connection = connection
        for lane in list(self._lanes.values()):
            lane.work()

    def _look_after_parked(self, channel: Any) -> None:
        parked = self.names.parked

        def arrived(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            self._on_parked(channel, method.delivery_tag, properties, body)

        channel.queue_declare(
            parked,
            durable=True,
            arguments=self.names.kept_arguments(),
            callback=lambda _: channel.basic_qos(
                prefetch_count=100, callback=lambda _: channel.basic_consume(parked, arrived)
            ),
        )

    def down(self, error: BaseException) -> None:
        """See `Freight.down`."""
        self.connection = None
        for lane in list(self._lanes.values()):
            lane.lose()

    def announce(self, job_ids: Sequence[str]) -> None:
        """Tell others, and ourselves, that these were given back unstarted."""
        with self.lock:
            self.hearsay.given_back(job_ids)
        self._announce(job_ids)

    def _tend(self) -> None:
        now = time.monotonic()
        for lane in list(self._lanes.values()):
            lane.examine(now)
            lane.sweep(now)
            lane.audit(now)
        self.wire.later(TEND, self._tend)

    # --- the end -------------------------------------------------------------------------

    def close(self, timeout: float) -> None:
        """Let go of the connection; the server lends again what is not settled."""
        with self.lock:
            self._closed = True
            self.notify()
            held = [arrival.id for lane in self._lanes.values() for arrival in lane.buffer]
        if held:
            self._announce(held)
        self.wire.close(timeout)
