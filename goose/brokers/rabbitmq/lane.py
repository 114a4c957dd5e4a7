"""One queue's ready jobs, as the server pushes them here.

A lane has a channel, and on it consumers, each with a *prefetch*: so many jobs the server may
have pushed to it that are not settled. Quorum queues know no limit for a whole channel, and that
of a consumer cannot be changed; so a lane that needs more begins one more consumer, and one that
has too much ends them all and gives back what it holds. Both are rare: the prefetch is what was
lent plus what was asked for, or what is taken within moments (`pace`), so jobs pile up here only
when they have become slow. An end has its price: what the server had under way to a consumer
comes back as if a worker had died with it. Loans of consumers that were ended are as good as
others; only they do not count against the prefetch, so with an end a new *epoch* begins.

A lane is *clear* when everything that the server had for it before a certain moment is here:
it has asked the server a question since and had the answer, which came behind the jobs. Only
of a clear lane with credit is it known that it is empty, and that less urgent queues may be
looked at.

A channel that is closed takes all its loans with it, for the server lends them again: that is a
new *generation*, in which earlier receipts are worth nothing. If such a job comes back to the
very process that is still running it, it is not lent a second time: the loan that was lost gets
the new message, and settles it.

What is said here of threads: everything is guarded by the intake's condition, except what is
marked as the wire's own.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from goose._words import several
from goose.brokers.rabbitmq.connection import Pushed
from goose.brokers.rabbitmq.faults import Remedy, is_timeout, judge, said, translated
from goose.brokers.rabbitmq.loans import Arrival, Hearing
from goose.brokers.rabbitmq.opening import make_ready
from goose.brokers.rabbitmq.pace import Pace
from goose.brokers.rabbitmq.parcels import ID
from goose.brokers.rabbitmq.tags import Tags
from goose.brokers.rabbitmq.words import HEADER, SUSPECT, UNEXPLAINED, UNSTARTED, count_of
from goose.errors import BrokerError

if TYPE_CHECKING:
    from goose.brokers.rabbitmq.intake import Intake

logger = logging.getLogger("goose.brokers.rabbitmq")

PATIENCE = 0.02
"""Seconds for which acks may be on their way before a lane without credit asks for more."""
AUDIT = 2.0
"""Seconds between two looks whether a lane to which nothing comes is deaf."""
STRIKES = 2
"""Looks in a row at which the server has jobs and does not push them, before it is."""
RETURN = 0.05
"""Seconds in which a quorum queue has put back what it was given back, one after the other; a
consumer that began meanwhile would be pushed the backlog before the last of that."""
REOPEN = 1.0
"""Seconds before a channel that the server refused is tried again."""


class Lane:
    """See the module."""

    def __init__(self, intake: Intake, queue: str) -> None:
        self.queue = queue
        self.name = intake.names.ready(queue)
        self.buffer: deque[Arrival] = deque()
        self.quarantine: deque[tuple[float, Arrival]] = deque()
        self.lent = 0
        """Loans that take up the prefetch: those of this epoch."""
        self.prefetch = 0
        self.generation = 0
        self.epoch = 0
        """Raised each time a consumer is given up."""
        self.clear = False
        self.asked_mono = 0.0
        self.askers = 0
        """Threads that wait for its jobs at this moment."""
        self.error: BrokerError | None = None
        self.pace = Pace()
        self._poor_since: float | None = None
        self._intake = intake
        # The wire's own:
        self._channel: Any = None
        self._consumers: list[str] = []
        self._busy = False
        self._wanted = 0
        self._retry_mono = 0.0
        self._returned_mono = -math.inf
        self._hearings: list[Hearing] = []
        self._audit_mono = 0.0
        self._strikes = 0
        self._tags = Tags()

    # --- asked under the condition -------------------------------------------------------

    @property
    def credit(self) -> int:
        """How many jobs more the server may push."""
        return self.prefetch - self.lent - len(self.buffer) - len(self.quarantine)

    def known_empty(self, limit: int, now: float) -> bool:
        """Say whether nothing is to be had here now; if that is unsure, see to it that it will be.

        Args:
            limit: How many jobs are asked for.
            now: Monotonic seconds.
        """
        if not self.clear:
            self._want(self.lent + limit)
            return False
        if limit > 1 and (ahead := self.pace.ahead(now)) > self.prefetch:
            self.clear = False
            self._want(ahead)
            return False
        if self.credit > 0:
            self._poor_since = None
            return True
        if self._poor_since is None:
            self._poor_since = now
        wanted = self.lent + len(self.quarantine) + limit
        if wanted >= 2 * self.prefetch + 2 or now - self._poor_since >= PATIENCE:
            self._poor_since = None
            self.clear = False
            self._want(wanted + self.lent // 4)
        return False

    def _want(self, prefetch: int) -> None:
        prefetch = min(prefetch, 0xFFFF)
        self._intake.wire.call(lambda: self._adjust(prefetch))

    # --- the wire's own ------------------------------------------------------------------

    def _adjust(self, prefetch: int) -> None:
        self._wanted = max(self._wanted, prefetch)
        self.work()

    def work(self) -> None:
        """Take the next step towards consuming as much as is wanted."""
        connection = self._intake.connection
        if self._busy or connection is None or not connection.is_open or not self._wanted:
            return
        now = time.monotonic()
        if now < self._retry_mono:
            return
        if self.prefetch < self._wanted and (left := self._returned_mono + RETURN - now) > 0:
            self._intake.wire.later(left, self.work)
            return
        self._busy = True
        if self._channel is None:
            connection.channel(on_open_callback=self._opened)
        elif self.prefetch >= self._wanted:
            self._ask()
        else:
            more = self._wanted - self.prefetch
            self._channel.basic_qos(prefetch_count=more, callback=lambda _: self._consume(more))

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.connection.expect(channel.channel_number, self._arrived)
        channel.add_on_close_callback(self._closed)
        channel.add_on_cancel_callback(self._cancelled)
        make_ready(channel, self._intake.names, self.queue, self._declared)

    def _declared(self) -> None:
        self._busy = False
        self.work()

    def _consume(self, more: int) -> None:
        consumer = self._channel.basic_consume(
            self.name, self._delivered, callback=lambda _: self._consuming(more)
        )
        self._consumers.append(consumer)

    def _consuming(self, more: int) -> None:
        with self._intake.lock:
            self.prefetch += more
        self._ask()

    def _stop_consuming(self) -> None:
        """End all consumers and begin anew; what the server has pushed already still comes."""
        consumers, self._consumers = self._consumers, []
        self._busy = True
        with self._intake.lock:
            self.epoch += 1
            # What comes yet, and what waits here, is the next consumer's business.
            self.prefetch = self.lent = 0
            self.clear = False
        for consumer in consumers:
            # The first answer is enough to go on: whatever is asked next comes behind the rest.
            first = consumer is consumers[0]
            self._channel.basic_cancel(
                consumer, callback=lambda _, first=first: self._declared() if first else None
            )
            # The driver would reject what is on its way, as if something had happened to it.
            self._channel._cancelled.discard(consumer)  # noqa: SLF001 - there is no public way

    def _ask(self) -> None:
        """Ask a question whose answer comes behind everything the server had for this lane."""
        self._channel.queue_declare(self.name, passive=True, callback=self._answered)

    def _answered(self, _frame: Any) -> None:
        self._busy = False
        if self.prefetch < self._wanted:
            self.work()
            return
        self._wanted = 0
        with self._intake.lock:
            self.clear = True
            self.error = None
            self._intake.notify()

    def _delivered(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Take a job that the driver has read."""
        name, headers = properties.message_id or "", properties.headers
        self._arrived([Pushed(method.delivery_tag, method.redelivered, name, headers, body)])

    def _arrived(self, row: Sequence[Pushed]) -> None:
        now = time.monotonic()
        intake = self._intake
        ended: list[int] = []
        with intake.lock:
            for tag, redelivered, name, headers, body in row:
                self._tags.lend(tag)
                whole = str(headers[ID]) if headers and ID in headers else name
                arrival = Arrival(tag, whole, body, headers, now)
                if not redelivered:
                    self.buffer.append(arrival)
                elif intake.ended.knows(whole, body):
                    ended.append(tag)
                elif not self._reattached(arrival):
                    self.quarantine.append((now + intake.options.quarantine, arrival))
            if self.quarantine:
                self._examine(now)
            if self.buffer:
                intake.notify()
        if ended:
            logger.info("%s lent again that had ended here already", several(len(ended)))
            self.ack(ended)

    def _reattached(self, arrival: Arrival) -> bool:
        loan = self._intake.strays.pop(arrival.id, None)
        if loan is None:
            return False
        loan.lane, loan.tag = self, arrival.tag
        loan.generation, loan.epoch = self.generation, self.epoch
        self.lent += 1
        logger.info("job %s, which still runs here, was lent to this process again", arrival.id)
        return True

    def examine(self, now: float) -> None:
        """Release from quarantine what has waited long enough, or of which there is word."""
        if self.quarantine:
            with self._intake.lock:
                self._examine(now)
                if self.buffer:
                    self._intake.notify()

    def _examine(self, now: float) -> None:
        kept: deque[tuple[float, Arrival]] = deque()
        for until, arrival in self.quarantine:
            header = arrival.headers.get(HEADER) if arrival.headers else None
            heeded = self._intake.hearsay.about(arrival.id, header)
            if heeded is None and until > now:
                kept.append((until, arrival))
                continue
            verdict = words = None
            if heeded is not None and heeded.verdict != UNSTARTED:
                verdict, words = heeded
            elif heeded is None and count_of(arrival.headers) >= UNEXPLAINED:
                verdict = SUSPECT
            self.buffer.append(arrival._replace(arrived_mono=now, verdict=verdict, words=words))
        self.quarantine = kept

    def sweep(self, now: float) -> None:
        """Give back what is held here for nothing, and consume no more than is asked for."""
        if self._busy:
            return
        with self._intake.lock:
            hold = self._intake.options.hold
            unasked = not self.askers and now - self.asked_mono > hold
            stale = bool(self.buffer) and now - self.buffer[0].arrived_mono > hold
            hidden = bool(self.buffer) or self.credit > 0
            # Without a consumer, too: what was pushed to the last one may come after its end.
            if not (self.prefetch or self.buffer) or not (stale or (unasked and hidden)):
                return
            held, self.buffer = self.buffer, deque()
        self._wanted = 0
        if self._consumers:
            self._stop_consuming()
        if held:
            logger.debug("gave back %d jobs of %s that nobody asked for", len(held), self.queue)
            self._intake.announce([arrival.id for arrival in held])
            self.nack([arrival.tag for arrival in held])

    def audit(self, now: float) -> None:
        """Make sure that the server still knows whom to push to, when it pushes nothing."""
        with self._intake.lock:
            quiet = self.askers and self.clear and self.credit > 0 and not self.buffer
        if not quiet or self._busy:
            self._strikes = 0
        elif now - self._audit_mono >= AUDIT:
            self._audit_mono = now
            self._channel.queue_declare(self.name, passive=True, callback=self._audited)

    def _audited(self, frame: Any) -> None:
        with self._intake.lock:
            waiting = frame.method.message_count and self.credit > 0 and not self.buffer
        self._strikes = self._strikes + 1 if waiting else 0
        if self._strikes >= STRIKES or not frame.method.consumer_count:
            logger.warning("RabbitMQ pushes nothing of %s here; beginning again", self.name)
            self._strikes = 0
            self._leave()
            self._channel.close()

    # --- settling; the wire's own --------------------------------------------------------

    def ack(self, tags: list[int]) -> None:
        """Tell the server that these are done, many with one word where possible."""
        self._tags.settle(tags, self._channel.basic_ack)

    def nack(self, tags: list[int]) -> None:
        """Give these back, in their order."""
        self._returned_mono = time.monotonic()
        self._tags.settle(tags, self._channel.basic_nack)

    def ask(self, hearing: Hearing) -> None:
        """Have *hearing* told once the server has heard all that was said here."""
        self._hearings.append(hearing)

        def answered(_frame: Any) -> None:
            self._hearings.remove(hearing)
            hearing.heard(True)

        self._channel.queue_declare(self.name, passive=True, callback=answered)

    # --- losing it; the wire's own -------------------------------------------------------

    def _cancelled(self, _frame: Any) -> None:
        """The server ended the consumer: the queue was deleted, or its node went down."""
        logger.warning("RabbitMQ ended the consumer of %s; beginning again", self.name)
        if self._channel is not None and self._channel.is_open:
            self._leave()
            self._channel.close()  # its loans are lost: nobody knows which the server still has

    def _closed(self, channel: Any, error: BaseException) -> None:
        if channel is not self._channel and self._channel is not None:
            return
        if is_timeout(error):
            logger.error(
                "RabbitMQ took the jobs of %s back, because one ran for longer than its "
                "consumer_timeout: raise that on the server (%s)",
                self.queue, said(error),
            )  # fmt: skip
        refused = judge(error).remedy is Remedy.REFUSED
        if refused:
            logger.error("jobs of %s cannot be had: %s", self.queue, said(error))
            self._retry_mono = time.monotonic() + REOPEN
        self.lose(translated(error, self._intake.options.where) if refused else None)
        if not refused:
            self.work()

    def _leave(self) -> None:
        """Take nothing more from this channel; another may soon have its number."""
        if self._channel is not None:
            self._channel.connection.leave(self._channel.channel_number)

    def lose(self, error: BrokerError | None = None) -> None:
        """Begin a new generation: the server lends all of this one's jobs again."""
        self._leave()
        self._channel = None
        self._consumers.clear()
        self._tags.clear()
        self._busy = False
        hearings, self._hearings = self._hearings, []
        for hearing in hearings:
            hearing.heard(False)
        with self._intake.lock:
            self._wanted = max(self._wanted, self.prefetch)
            self.generation += 1
            self.epoch += 1
            self.prefetch = self.lent = 0
            self.buffer.clear()
            self.quarantine.clear()
            self.clear = False
            self.error = error
            if error is not None:
                self._wanted = 0
            for loan in self._intake.loans.values():
                if loan.lane is self:
                    self._intake.strays[loan.id] = loan
            self._intake.notify()
