"""Puts messages on the server and waits until they are stored there.

Callers of any thread hand over batches of parcels; the wire's thread, or the caller while that
has nothing to do, writes them to its outlets in the order they came, at most a window of them
unconfirmed at once, and the server's confirms come back many at a time: so concurrent callers
share them, and a lone one waits for nobody. A caller waits for its own batch, never beyond its
deadline, whatever the server does.

Every message is *mandatory*: one that no queue took is returned before it is confirmed, and its
batch fails. When the connection is lost, what was not confirmed is published again under the
same id on the next one, while somebody waits for it: that may leave one copy too many, and
nothing too few. What nobody waits for any more is not published again.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from goose._words import several
from goose.brokers.base import Notify
from goose.brokers.dangers import tell_again
from goose.brokers.rabbitmq.batch import Batch, Posted
from goose.brokers.rabbitmq.confirms import Item, Outlet, Parcel, in_doubt
from goose.brokers.rabbitmq.desk import Desk
from goose.brokers.rabbitmq.faults import Remedy, judge, translated
from goose.brokers.rabbitmq.options import Options
from goose.brokers.rabbitmq.wire import Wire
from goose.errors import BrokerUnavailable

logger = logging.getLogger("goose.brokers.rabbitmq")


UNDER_WAY = 20_000
"""Jobs on their way beyond which none are posted: more are left to callers who wait in line."""


class Publisher:
    """The freight of a connection that publishes. `send` and `whisper` are thread-safe.

    Args:
        options: Deadlines and the window.
        on_return: Told the key and id of every message that no queue took.
        on_lost: Told of every lost connection.

    Attributes:
        desk: Asks and declares, on a channel of its own.
        kept: Says whether the connection is needed though nothing is on its way.
        on_ready: Called on the wire's thread when there is a channel, also after a loss.
    """

    def __init__(
        self,
        options: Options,
        role: str,
        *,
        on_return: Callable[[str, str], None],
        on_lost: Callable[[BaseException], None],
    ) -> None:
        self._options = options
        self.wire = Wire(options, role, self, on_lost)
        self.desk = Desk(options, self.wire)
        self.kept: Callable[[], bool] = lambda: False
        self.on_ready: Callable[[], None] = lambda: None
        self._inbox: deque[Batch] = deque()
        """What callers of any thread have left and nobody has looked at yet."""
        self._posted = Posted(self.wire, self._late)
        self._queue: deque[Item] = deque()
        self._suspects = 0
        """How many at the head of the queue go out one at a time, as the server chokes on one of them."""
        self._ended = False
        self._outlets = [
            Outlet(
                options.where,
                on_ready=self._ready,
                on_room=self._pump,
                on_closed=self._closed,
                on_return=on_return,
            )
            for _ in range(options.channels)
        ]
        self._turn = itertools.cycle(self._outlets)
        self._connection: Any = None
        self._torn = False
        """Whether somebody was stopped while he wrote: what is counted and what is sent may differ, and
        then the server's confirms are not those of our numbers."""
        self._body_limit = 1 << 16

    # --- any thread ----------------------------------------------------------------------

    def send(self, parcels: Sequence[Parcel], deadline: float | None = None) -> None:
        """Return once all *parcels* are stored.

        Raises:
            BrokerUnavailable: Not before the deadline; what was stored is unknown.
            BrokerError: Refused, or no queue took them; nothing was stored.
        """
        if not parcels:
            return
        deadline = deadline or time.monotonic() + self._options.timeout
        batch = Batch(parcels, deadline)
        try:
            self._inbox.append(batch)
            self.wire.do(self._pump)
            confirmed = batch.gate.acquire(timeout=max(0.0, deadline - time.monotonic()))
        except BaseException:
            batch.deadline = 0.0  # nobody waits any more
            raise
        if not confirmed:
            batch.deadline = 0.0
            raise self._late(batch)
        error = batch.error()
        if error is not None:
            raise error

    def post(self, calls: Sequence[tuple[Sequence[Parcel], Notify]]) -> bool:
        """Do as `send` for each of *calls* and return at once; False, and nothing, if too much is under way."""
        ahead = len(self._inbox) + len(self._queue) + self._unconfirmed
        if ahead + sum([len(parcels) for parcels, _ in calls]) > UNDER_WAY:
            return False
        deadline = time.monotonic() + self._options.timeout
        batches = [Batch(parcels, deadline, notify) for parcels, notify in calls if parcels]
        try:
            self._posted.add(batches)
            self._inbox.extend(batches)
            self.wire.do(self._pump)
        except BaseException as error:
            for batch in batches:
                batch.deadline = 0.0
                if isinstance(error, Exception):
                    batch.notify = None  # they hear it from whoever called
            raise
        if self._ended:  # meanwhile, or before: it may have looked before these came
            self._posted.end()
        for parcels, notify in calls:
            if not parcels:
                notify(None)
        return True

    def close(self, timeout: float) -> None:
        """End the connection in good order; what was posted and is not confirmed by then is in doubt."""
        self.wire.close(timeout)
        self._ended = True
        self._posted.end()

    def _late(self, batch: Batch) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"RabbitMQ at {self._options.where} did not confirm {several(batch.left)} within "
            f"{self._options.timeout:g} s{self._reason()}"
        )

    def _reason(self) -> str:
        if self.wire.blocked:
            return ": it is short of memory or disk space, and takes nothing for now"
        return f" ({self.wire.error})" if self.wire.error is not None else ""

    def whisper(self, parcel: Parcel) -> None:
        """Publish *parcel* to whoever listens, if there is a connection; nobody waits for it."""
        self.wire.call(lambda: self._whisper(parcel))

    # --- the wire's thread ---------------------------------------------------------------

    def waiting(self) -> bool:
        """See `Freight.waiting`."""
        return (
            bool(self._inbox or self._queue or self._unconfirmed)
            or self.desk.waiting()
            or self.kept()
        )

    @property
    def _unconfirmed(self) -> int:
        return sum([outlet.unconfirmed for outlet in self._outlets])

    def up(self, connection: Any) -> None:
        """See `Freight.up`."""
        self._connection = connection
        # What is negotiated, less the frame around it.
        self._body_limit = (connection.params.frame_max or (1 << 17)) - 8
        for outlet in self._outlets:
            outlet.open(connection)
        self.desk.up(connection)

    def _ready(self) -> None:
        self.on_ready()
        self._pump()

    def _closed(self, outlet: Outlet, error: BaseException) -> None:
        """Go on over another channel; a message that the server chokes on fails alone."""
        refused = judge(error).remedy is Remedy.REFUSED
        if refused and outlet.unconfirmed == 1:
            [(batch, _)] = outlet.take_back()
            told = translated(error, self._options.where)
            batch.settle(in_doubt(told) if batch.copied else told)
        # Of several, nobody says which it was: that shows when they go out one by one.
        self._take_back(outlet, suspects=refused)
        if self._connection is not None and self._connection.is_open:
            outlet.open(self._connection)
            self._pump()

    def down(self, error: BaseException) -> None:
        """See `Freight.down`."""
        self._connection = None
        self._torn = False
        for outlet in self._outlets:
            outlet.lose()
            self._take_back(outlet)
        # A server that is away may be back before anybody's deadline; not one that refuses.
        patience = self._options.connect_timeout
        if judge(error).remedy is Remedy.REFUSED:
            patience = 0.0
        now = time.monotonic()
        kept = deque(item for item in self._queue if now - item[0].began < patience)
        for batch in {id(b): b for b, _ in self._queue if now - b.began >= patience}.values():
            unsent = not (batch.doubtful or batch.stored or batch.errors)
            told = translated(error, self._options.where, unsent=unsent)
            if not (unsent or isinstance(told, BrokerUnavailable)):
                # "Refused" would mean that nothing was stored.
                told = BrokerUnavailable(f"jobs were on their way when this came: {told}")
            batch.fail(told)
        self._queue = kept
        self._suspects = min(self._suspects, len(kept))
        self.desk.down(error, patience)

    def unblocked(self) -> None:
        """See `Freight.unblocked`."""
        self._pump()

    def _take_back(self, outlet: Outlet, *, suspects: bool = False) -> None:
        """Put what was not confirmed at the head of the line again, in its order."""
        back = outlet.take_back()
        if back and self._queue and self._queue[0] is back[-1]:
            self._queue.popleft()  # somebody was stopped as he took it from there
        if suspects or self._suspects:
            self._suspects += len(back)
        for batch, parcel in back:
            batch.doubtful = True
            # What closes the channel alone, after it did so in company, was not taken before either.
            batch.copied |= not suspects
            if not batch.done:
                tell_again(logger, [parcel.id])
        self._queue.extendleft(reversed(back))

    def _pump(self) -> None:
        """Write what there is, of all callers at once, as far as the window goes."""
        queue, inbox = self._queue, self._inbox
        self._posted.forget_done()
        while inbox:
            batch = inbox[0]
            # Whoever is stopped in here, or below, leaves things so that the next one can go on.
            if not queue or queue[-1][0] is not batch:
                queue.extend([(batch, parcel) for parcel in batch.parcels])
            inbox.popleft()
        now = time.monotonic()
        item = self._next(now)
        # Nothing is written that the server would not read: so it can still be taken back.
        if self._connection is None or self.wire.blocked:
            return
        if self._torn:
            self.wire.call(
                lambda: self.wire.abandon(ConnectionAbortedError("a write was cut short"))
            )
            return
        if item is None:
            return
        self._torn = True
        room = (1 if self._suspects else self._options.window) - self._unconfirmed
        out: list[bytes] = []
        while item is not None and room > 0:
            batch, _ = item
            outlet = batch.outlet
            if outlet is None or not outlet.ready:
                outlet = batch.outlet = self._next_outlet()
                if outlet is None:
                    break
            out.append(outlet.carry(item, self._body_limit))
            self._advance()
            room -= 1
            item = self._next(now)
        if out:
            self._write(out)
        self._torn = False

    def _next(self, now: float) -> Item | None:
        """Return the first item that somebody still waits for; forget those before it."""
        queue = self._queue
        while queue:
            item: Item = queue[0]
            batch = item[0]
            if not batch.done and batch.deadline >= now:
                return item
            if not batch.done:
                batch.fail(self._late(batch))
            self._advance()
        return None

    def _advance(self) -> None:
        self._queue.popleft()
        if self._suspects:
            self._suspects -= 1

    def _next_outlet(self) -> Outlet | None:
        """Return the outlet whose turn it is; None if none can be used now."""
        for _ in self._outlets:
            outlet = next(self._turn)
            if outlet.ready:
                return outlet
        return None

    def _write(self, frames: list[bytes]) -> None:
        # The one way to hand the driver bytes; confirms are counted here, not there.
        self._connection._output_marshaled_frames([b"".join(frames)])  # noqa: SLF001

    def _whisper(self, parcel: Parcel) -> None:
        outlet = self._next_outlet()
        if outlet is not None and not self.wire.blocked:
            self._write([outlet.whisper(parcel, self._body_limit)])
