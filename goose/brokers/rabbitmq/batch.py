"""What callers of the publisher wait for, at a gate or without a thread of their own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from goose.brokers.base import Notify
from goose.brokers.rabbitmq.confirms import Outlet, Parcel
from goose.brokers.rabbitmq.wire import Wire
from goose.errors import BrokerError, BrokerUnavailable


class Batch:
    """What one caller waits for.

    Args:
        parcels: At least one.
        deadline: Monotonic instant after which nobody waits any more.
        notify: Told how it ended; without it somebody waits at the gate.
    """

    __slots__ = (
        "began",
        "copied",
        "deadline",
        "done",
        "doubtful",
        "errors",
        "gate",
        "left",
        "notify",
        "outlet",
        "parcels",
        "stored",
    )

    def __init__(
        self, parcels: Sequence[Parcel], deadline: float, notify: Notify | None = None
    ) -> None:
        self.parcels = parcels
        self.notify = notify
        self.deadline = deadline
        self.began = time.monotonic()
        self.left = len(parcels)
        self.stored = 0
        self.errors: list[BrokerError] = []
        self.done = False
        """Whether all is decided."""
        self.doubtful = False
        """Whether some of it was on its way once, over a connection or channel that is lost."""
        self.copied = False
        """Whether some of that may be stored although the server closes a channel over it now."""
        # One lock is what an event has three of, and callers make one for each enqueue.
        self.gate = threading.Lock()
        self.gate.acquire()
        self.outlet: Outlet | None = None
        """Over which its parcels go; for the wire's thread."""

    def settle(self, error: BrokerError | None) -> None:
        """Note the fate of one parcel."""
        if error is None:
            self.stored += 1
        else:
            self.errors.append(error)
        self.left -= 1
        if self.left <= 0 and not self.done:
            self.done = True
            self.parcels = ()  # whoever keeps it a little longer need not keep those
            notify, self.notify = self.notify, None
            if notify is None:
                self.gate.release()
            else:
                notify(self.error())

    def fail(self, error: BrokerError) -> None:
        """Give up whatever is left of it."""
        self.errors.append(error)
        self.left = 1
        self.settle(error)

    def error(self) -> BrokerError | None:
        """Return why not all of it is stored, None if it is."""
        if not self.errors:
            return None
        # "Refused" would mean that nothing was stored.
        doubts = (error for error in self.errors if isinstance(error, BrokerUnavailable))
        error = next(doubts, self.errors[0])
        if self.stored and not isinstance(error, BrokerUnavailable):
            partly = BrokerUnavailable(f"a part of the jobs was refused: {error}")
            partly.__cause__ = error
            return partly
        return error


class Posted:
    """Those that nobody waits at the gate of: told in time all the same. `add` may be called on any thread.

    Args:
        wire: Whose thread looks at them.
        late: Returns what to tell one that is late.
    """

    def __init__(self, wire: Wire, late: Callable[[Batch], BrokerUnavailable]) -> None:
        self._wire = wire
        self._late = late
        self._batches: deque[Batch] = deque()
        """By deadline; some are done."""
        self._watched = False

    def add(self, batches: Iterable[Batch]) -> None:
        """See to it that these are told by their deadline; none before them has a later one."""
        self._batches.extend(batches)
        if not self._watched:
            self._watched = True
            try:
                self._wire.call(self._watch)
            except BaseException:
                self._watched = False
                raise

    def forget_done(self) -> None:
        """Let go of those that are done, as far as they come first. On the wire's thread, as all that follows."""
        batches = self._batches
        while batches and batches[0].done:
            batches.popleft()

    def _watch(self) -> None:
        """Give up those that are late, and look again when the next may be."""
        self._watched = False  # from here on, whoever adds has this called
        now = time.monotonic()
        while self._batches and (self._batches[0].done or self._batches[0].deadline <= now):
            batch = self._batches.popleft()
            if not batch.done:
                batch.fail(self._late(batch))
        if self._batches and not self._watched:
            self._watched = True
            self._wire.later(self._batches[0].deadline - now, self._watch)

    def end(self) -> None:
        """Give up all of them: the wire has ended, and is no more in anybody's way."""
        while self._batches:
            try:
                batch = self._batches.popleft()
            except IndexError:  # somebody else does the same
                return
            if not batch.done:
                batch.fail(BrokerUnavailable("the connection to RabbitMQ was closed meanwhile"))
