"""How jobs get from the tasks of an event loop to a broker, and how the tasks hear of it.

What tasks hand over in one turn of their loop goes on together, and those whose jobs are stored at about the same
time are told in one turn, too. So a loop with many tasks pays for few hand-overs between threads, each of which
costs more than sealing a job does.

A broker that takes jobs without a change of threads may as well begin before the last of many tasks has come. So
it is given a first share of a turn as soon as that is worth a call, the next when it is twice that, and so on;
what is left goes at the turn's end.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from goose.combining import Combiner
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope
from goose.sealing import Sealed
from goose.sending import PASSED_ON, Door, Within, not_stored

if TYPE_CHECKING:
    from goose.metrics.enqueuing import Meter

_Future = asyncio.Future[None]


async def send(door: Door, envelopes: Sequence[Envelope]) -> None:
    """Store *envelopes* as `Door.send` does, without blocking the loop meanwhile.

    A caller's own connection that cannot be awaited blocks it all the same, and so does a door for tests.
    """
    if isinstance(door, Combiner):
        loop = asyncio.get_running_loop()
        await (_tasks.get(loop) or _new_tasks(loop)).send(loop, door, envelopes)
    elif isinstance(door, Within):
        await door.asend(envelopes)  # the connection belongs to this task
    else:
        door.send(envelopes)


async def store_one(
    sealed: Sealed, door: Callable[[bool], Door], meter: Meter | None, *, later: bool
) -> None:
    """Send a single job and wait, as `goose.sending.store_one`.

    Raises:
        EnqueueError: As there, like the rest.
    """
    began = 0.0 if meter is None else time.perf_counter()
    try:
        await send(door(later), [sealed[1]])
    except PASSED_ON:
        raise
    except Exception as error:
        raise not_stored(sealed, error, meter, later=later) from error
    if meter is not None:
        meter.stored([sealed[0]], time.perf_counter() - began)


class _Row:
    """What tasks have handed over in one turn for one door."""

    __slots__ = ("enough", "waiting")

    def __init__(self, enough: float) -> None:
        self.enough = enough
        """Calls that go on before the turn ends."""
        self.waiting: list[tuple[Sequence[Envelope], _Future]] = []


class _Tasks:
    """Those of one loop. What they are told is said on other threads; all else is for the loop.

    It does not keep the loop, which is the key that it is found by.
    """

    def __init__(self) -> None:
        self._out: dict[Combiner, _Row] = {}
        self._told: deque[tuple[_Future, BaseException | None]] = deque()
        self._woken = False

    def send(
        self, loop: asyncio.AbstractEventLoop, door: Combiner, envelopes: Sequence[Envelope]
    ) -> _Future:
        future: _Future = loop.create_future()
        row = self._out.get(door)
        if row is None:
            if not self._out:
                loop.call_soon(self._end_turn, loop)
            row = self._out[door] = _Row(door.share)
        row.waiting.append((envelopes, future))
        if len(row.waiting) >= row.enough:
            row.enough *= 2
            try:
                self._hand_over(door, row)
            except BaseException:
                future.cancel()  # its task hears of it here
                raise
        return future

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._out:
                door, row = next(iter(self._out.items()))
                self._hand_over(door, row)
                del self._out[door]
        finally:
            if self._out:  # somebody was stopped at it; loops go on all the same
                loop.call_soon(self._end_turn, loop)

    def _hand_over(self, door: Combiner, row: _Row) -> None:
        parcels = row.waiting
        try:
            row.waiting = []
            # Whoever was cancelled meanwhile does not ask any more.
            wanted = [(e, partial(self._tell, f)) for e, f in parcels if not f.done()]
            if wanted:
                door.post(wanted)
        except Exception as error:  # noqa: BLE001 - each task is told
            self._tell_all(parcels, error)
        except BaseException as error:  # a job's timeout, which is about one task at most
            reason = f"what handed jobs to the broker was stopped: {error!r}"
            self._tell_all(parcels, BrokerUnavailable(reason))
            raise

    def _tell_all(
        self, parcels: Sequence[tuple[Sequence[Envelope], _Future]], error: Exception
    ) -> None:
        # Of those that the broker tells, too, the first word counts.
        for _, future in parcels:
            self._tell(future, error)

    def _tell(self, future: _Future, error: BaseException | None) -> None:
        self._told.append((future, error))
        if self._woken:
            return  # the loop looks after it has said that it is awake
        self._woken = True
        try:
            future.get_loop().call_soon_threadsafe(self._wake)
        except RuntimeError:
            return  # the loop is closed: nobody is left to be told
        except BaseException:  # a timeout of this thread's own
            self._woken = False
            raise

    def _wake(self) -> None:
        self._woken = False
        while self._told:
            future, error = self._told[0]
            if future.done():
                pass  # cancelled, or told before
            elif error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
            self._told.popleft()


_tasks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Tasks] = WeakKeyDictionary()


def _new_tasks(loop: asyncio.AbstractEventLoop) -> _Tasks:
    # Tasks of a loop that was closed before they were told keep it, until somebody comes after it.
    # A copy that is made in one step: loops of other threads come and go meanwhile.
    for known in _tasks.keyrefs():
        other = known()
        if other is not None and other.is_closed():
            _tasks.pop(other, None)
    return _tasks.setdefault(loop, _Tasks())
