"""Shares round trips to the broker between callers, without making a lone one wait.

A caller that finds nobody sending becomes the *leader*: it sends at once. Those who arrive
while it does leave their parcels in a line. When the leader's call ends it hands the lead
to the first in the line, which sends its own parcel together with those behind it, up to
`BATCH` envelopes. So a lone caller pays one lock, and a hundred callers pay a few round
trips instead of a hundred; nobody ever waits for company.

Where the broker says that calls of several threads do not wait for each other (the capability
`CONCURRENT`), up to `CALLS` callers send at once, each its own parcel, before any waits in line.

Callers without a thread to wait on (asyncio tasks) leave a parcel with a callback; when one
of those is first in the line a single *courier* thread leads for it. A broker that can take parcels
without a thread that waits (`Posting`) is given them at once.

An error reaches each caller for its own envelopes only. If the broker refuses a batch of
several callers, nothing of it was stored, and each parcel is sent again alone, so that one
that cannot be stored does not take others with it. If the broker cannot be reached, what
was stored is unknown for every one of them.

After ``fork`` the child starts with an empty line: what waited belongs to threads of the
parent, which sends it.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from goose.brokers.base import Notify
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

BATCH = 500
"""Envelopes sent in one call, unless a single parcel has more."""
CALLS = 32
"""Calls under way at once, where the broker wants several."""
SHARE = 8
"""Calls of one turn of an event loop that a broker is given before the turn ends, if it takes them without a
thread that waits. Measured with 16 tasks: a RabbitMQ that need not wait for its disk stores 30 % more on quorum
queues, 8 % on classic ones. Where it takes a change of threads this costs what it gains."""
LIMIT = 100_000
"""Envelopes that may wait in one line; further ones are refused."""

Send = Callable[[Sequence[Envelope]], None]
Post = Callable[[Sequence[tuple[Sequence[Envelope], Notify]]], bool]


class _Parcel:
    """Envelopes of one caller, and how to tell it what became of them."""

    __slots__ = ("envelopes", "error", "gate", "leads", "notify")

    def __init__(self, envelopes: Sequence[Envelope], notify: Notify | None) -> None:
        self.envelopes = envelopes
        self.notify = notify
        self.error: BaseException | None = None
        self.leads = False
        self.gate = threading.Lock()
        self.gate.acquire()

    def finish(self, error: BaseException | None) -> None:
        self.error = error
        if self.notify is None:
            self.gate.release()
        else:
            self.notify(error)


class Combiner:
    """One line of parcels in front of one verb of one broker. Thread-safe.

    Args:
        send: Stores all it is given, or raises.
        limit: Envelopes that may wait.
        calls: How many callers may send at once.
        post: The broker's own way to store what nobody waits for, if it has one.

    Attributes:
        share: So many calls of one turn of an event loop are worth being posted before it ends.
    """

    def __init__(
        self, send: Send, *, limit: int = LIMIT, calls: int = 1, post: Post | None = None
    ) -> None:
        self._send = send
        self._post = post
        self._limit = limit
        self._calls = calls
        self.share = math.inf if post is None else SHARE
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._line: deque[_Parcel] = deque()
        self._waiting = 0
        self._busy = False
        """Whether somebody leads, and so will look at the line."""
        self._beside = 0
        """Callers that send and do not lead."""
        self._courier: ThreadPoolExecutor | None = None

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Store *envelopes*, together; return when they are stored.

        Raises:
            BrokerUnavailable: What was stored is unknown.
            BrokerError: Nothing was stored: refused, or too many envelopes wait already.
            Exception: Whatever else the broker raised; what was stored is unknown.
        """
        parcel: _Parcel | None = None
        leads = beside = False
        # An interrupt may come as soon as the lock is let go, so all that follows is inside.
        try:
            with self._lock:
                if not self._busy:
                    leads = self._busy = True
                elif self._beside < self._calls - 1:
                    self._beside += 1
                    beside = True
                else:
                    parcel = self._join(envelopes, None)
            if parcel is None:
                self._send(envelopes)
                return
            parcel.gate.acquire()
            if parcel.leads:
                self._lead()
        except BaseException:
            if parcel is not None:
                self._leave(parcel)
            raise
        finally:
            if leads:
                self._hand_on()
            elif beside:
                with self._lock:
                    self._beside -= 1
        if parcel.error is not None:
            raise parcel.error

    def post(self, parcels: Sequence[tuple[Sequence[Envelope], Notify]]) -> None:
        """Store *parcels*, each as `send` does, but return at once.

        Args:
            parcels: What to store, and whom to tell, once and mostly on another thread.
        """
        if self._post is not None and self._post(parcels):
            return
        refused: list[tuple[Notify, BrokerError]] = []
        leads = False
        try:
            with self._lock:
                for envelopes, notify in parcels:
                    try:
                        self._join(envelopes, notify)
                    except BrokerError as error:
                        refused.append((notify, error))
                if self._line and not self._busy:
                    leads = self._busy = True
        finally:
            if leads:
                self._hand_on()
        for notify, reason in refused:
            notify(reason)

    def close(self) -> None:
        """Let the courier thread end, once it has sent what was posted."""
        with self._lock:
            courier, self._courier = self._courier, None
        if courier is not None:
            courier.shutdown(wait=False)

    def _join(self, envelopes: Sequence[Envelope], notify: Notify | None) -> _Parcel:
        if self._waiting + len(envelopes) > self._limit:
            raise BrokerError(
                f"{self._waiting:,} jobs wait for the broker already, and at most "
                f"{self._limit:,} may; it is too slow or cannot be reached"
            )
        self._waiting += len(envelopes)
        parcel = _Parcel(envelopes, notify)
        self._line.append(parcel)
        return parcel

    def _leave(self, parcel: _Parcel) -> None:
        """Take back the parcel of a caller that was interrupted, and its lead if it had it."""
        with self._lock:
            if parcel not in self._line:
                return  # it is being sent, or was
            self._line.remove(parcel)
            self._waiting -= len(parcel.envelopes)
        if parcel.leads:
            self._hand_on()

    def _hand_on(self) -> None:
        """Give the lead to the first in the line, or to nobody."""
        with self._lock:
            if not self._line:
                self._busy = False
                return
            head = self._line[0]
            head.leads = True
            if head.notify is None:
                head.gate.release()
                return
            if self._courier is None:
                from concurrent.futures import ThreadPoolExecutor  # only asyncio callers need it

                self._courier = ThreadPoolExecutor(1, "goose-courier")
            try:
                self._courier.submit(self._lead)
                return
            except RuntimeError as error:  # the interpreter is ending
                refused, self._line, self._waiting = self._line, deque(), 0
                self._busy = False
                reason = BrokerError(f"not sent: {error}")
        for parcel in refused:
            parcel.finish(reason)

    def _lead(self) -> None:
        """Send the first in the line, with those behind it, and hand on."""
        with self._lock:
            batch = [self._line.popleft()]
            size = len(batch[0].envelopes)
            while self._line and size + len(self._line[0].envelopes) <= BATCH:
                batch.append(self._line.popleft())
                size += len(batch[-1].envelopes)
            self._waiting -= size
        outcomes: list[BaseException | None] = [_INTERRUPTED] * len(batch)
        try:
            outcomes = self._outcomes(batch)
        finally:
            self._hand_on()
            for parcel, outcome in zip(batch, outcomes, strict=True):
                parcel.finish(outcome)

    def _outcomes(self, batch: list[_Parcel]) -> list[BaseException | None]:
        """Send *batch* and return the error, or None, of each parcel."""
        try:
            self._send([envelope for parcel in batch for envelope in parcel.envelopes])
        except BrokerUnavailable as error:
            return [error] * len(batch)
        except BrokerError as error:
            return [error] if len(batch) == 1 else self._one_by_one(batch, error)
        except Exception as error:  # noqa: BLE001 - each caller is told
            return [error] * len(batch)
        return [None] * len(batch)

    def _one_by_one(self, batch: list[_Parcel], refusal: BrokerError) -> list[BaseException | None]:
        outcomes: list[BaseException | None] = []
        for parcel in batch:
            try:
                self._send(parcel.envelopes)
            except BrokerUnavailable as error:
                # Those not tried yet are known not to be stored, and the broker is gone.
                left = len(batch) - len(outcomes) - 1
                return [*outcomes, error, *[refusal] * left]
            except Exception as error:  # noqa: BLE001 - each caller is told
                outcomes.append(error)
            else:
                outcomes.append(None)
        return outcomes


_INTERRUPTED = BrokerUnavailable("the thread that sent this was interrupted")
_all: weakref.WeakSet[Combiner] = weakref.WeakSet()


def _start_afresh() -> None:
    for combiner in list(_all):
        combiner._reset()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_start_afresh)
