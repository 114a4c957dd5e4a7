"""Takes deliveries from the broker into the buffer, as many as there is room for.

When the broker did not answer, it may all the same have lent something, which only it knows
of: nobody would run that job while this process lives. So the fetcher knows its loans by their
receipts, and after such a call gives back what the broker has lent to this process and the
process never saw. That is safe at any moment, since what it never saw does not run here.
Source: docs/adr/0004-replies-that-never-came.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence

from goose._words import several
from goose.brokers.base import Broker, Delivery, Session, Sessions, Share
from goose.errors import SessionLost
from goose.worker.buffer import MAX_UNSETTLED, Buffer
from goose.worker.circuits import Circuits
from goose.worker.clock import Clock
from goose.worker.outcomes import Outcome
from goose.worker.prepare import Preparer
from goose.worker.stops import Stops, given_back
from goose.worker.work import Work

logger = logging.getLogger("goose.worker")

OUT_OF_TOUCH = 0.2
"""Seconds until a process that has to beat first looks again whether it has."""
ASK_AGAIN = 0.25
"""Seconds until a full buffer is asked again, should nobody have said that it has room."""


COMPARE_AGAIN = (3.0, 60.0)
"""Seconds until loans are compared once more, and the last time: a call that got no answer may
arrive late, most likely when the network has just come back."""


class Fetcher:
    """Fetches. `step` is called by one thread; `forget` and `doubt` may be by others.

    Args:
        session: Returns the session to take jobs for.
        in_touch: Says whether that session is certain to live, by the monotonic time.
        settle: Takes outcomes of deliveries that cannot be run here.
        on_work: Told that jobs wait for a slot.
        admit: Returns which works may start, and the outcomes of the others; asked where one
            of them bears traits.
        dropped: Told of works that were admitted, and are others' by now.
        wait: Seconds to block in the broker when there is nothing to do.
        stops: The orders that hold in this process.
        circuits: Say which queues are left alone for a while.
    """

    def __init__(
        self,
        broker: Broker,
        buffer: Buffer,
        preparer: Preparer,
        queues: Sequence[Share],
        *,
        session: Callable[[], Session],
        in_touch: Callable[[float], bool],
        settle: Callable[[Sequence[Outcome]], None],
        on_work: Callable[[], None],
        admit: Callable[[Sequence[Work]], tuple[list[Work], list[Outcome]]],
        dropped: Callable[[Sequence[Work]], None] = lambda _: None,
        clock: Clock,
        wait: float = 1.0,
        stops: Stops | None = None,
        circuits: Circuits | None = None,
    ) -> None:
        self._broker = broker
        self._buffer = buffer
        self._preparer = preparer
        self.queues = tuple(queues)
        """What it takes from now; see `serve`."""
        # Not by its truth, which says whether anything is ordered at the moment.
        self._stops = Stops() if stops is None else stops
        self._session = session
        self._in_touch = in_touch
        self._settle = settle
        self._on_work = on_work
        self._admit = admit
        self._dropped = dropped
        self._clock = clock
        self._wait = wait
        self._circuits = circuits
        self.found_nothing = False
        """Whether the last look at the broker found no ready job."""
        self.contact_mono = -math.inf
        """When the broker last answered, or was left alone because there is no room."""
        self._known: set[object] = set()
        self._doubts = 0
        self._compare_at = 0.0

    def step(self, now: float) -> float:
        """Take what there is room for.

        Returns:
            Seconds until it wants to be called again.

        Raises:
            SessionLost: The session is dead; nothing was taken.
            BrokerError: Nothing was taken, as far as is known.
        """
        if not self._in_touch(now):
            return OUT_OF_TOUCH
        if self._doubts and now >= self._compare_at:
            self._compare(now)
            now = self._clock.mono()
            if not self._in_touch(now):  # that took long, or this process was paused meanwhile
                return OUT_OF_TOUCH
        room = self._buffer.room(now)
        if not room:
            if self._buffer.unsettled <= MAX_UNSETTLED:  # else it is the broker that holds up all
                self.contact_mono = now
            return ASK_AGAIN
        session = self._session()
        queues, probing = self._queues_now(now)
        if not queues:  # whoever gives one back kicks
            self.contact_mono = now
            return ASK_AGAIN
        limit, wait = (1, 0.0) if probing else (room, self._wait)
        try:
            deliveries = self._broker.dequeue(session, queues, limit=limit, wait=wait)
        except SessionLost:
            raise  # it took nothing
        except Exception:  # also a defect of the broker, which may have struck after it lent
            self.doubt()
            raise
        self.found_nothing = not deliveries and not probing
        self.contact_mono = self._clock.mono()
        if not deliveries:
            return 0.0
        works, outcomes = self._prepared(deliveries)
        if session is not self._session():
            self._dropped(works)
            return 0.0  # lost while we waited: others have these jobs by now
        self._known.update([delivery.receipt for delivery in deliveries])
        outcomes += [given_back(work) for work in self._put(works, probing)]
        if outcomes:
            self._settle(outcomes)
        if works:
            self._on_work()
        return 0.0

    def _queues_now(self, now: float) -> tuple[Sequence[Share], bool]:
        """Return what to take from, and whether that is one job, to try whether a queue works again."""
        return (
            (self.queues, False)
            if self._circuits is None
            else self._circuits.look(self.queues, now)
        )

    def _put(self, works: Sequence[Work], probing: bool) -> list[Work]:
        """Hold *works*; return those to give back."""
        circuits = self._circuits
        if circuits is None:
            return self._buffer.put(works)
        if probing:
            circuits.tried([work.delivery for work in works])
        back = self._buffer.put(works)
        # After they are held, so that none slips through between a look and a circuit that opens.
        return back + self._buffer.take_back(lambda work: circuits.holds_up(work.delivery))

    def _prepared(self, deliveries: Sequence[Delivery]) -> tuple[list[Work], list[Outcome]]:
        """Return what of *deliveries* may start, and the outcomes of the rest."""
        works: list[Work] = []
        outcomes: list[Outcome] = []
        traits = False
        for delivery in deliveries:
            prepared = self._preparer.prepare(delivery)
            if isinstance(prepared, Work):
                works.append(prepared)
                if prepared.job.traits:
                    traits = True
            else:
                outcomes.append(prepared)
        if self._stops:
            works, held_up = self._stops.sift(works)
            outcomes += held_up
        if traits:
            works, refused = self._admit(works)
            outcomes += refused
        return works, outcomes

    def serve(self, queues: Sequence[Share]) -> None:
        """Take from *queues* from now on; a look at the others that is under way ends."""
        self.queues = tuple(queues)
        self._broker.wake()

    def forget(self, deliveries: Iterable[Delivery]) -> None:
        """Note that these loans are over."""
        self._known.difference_update([delivery.receipt for delivery in deliveries])

    def doubt(self) -> None:
        """Note that the broker may have lent something to this process that it never saw."""
        self._compare_at = 0.0
        self._doubts = 1 + len(COMPARE_AGAIN)

    def _compare(self, now: float) -> None:
        """Give back what the broker has lent to this session and the process never saw."""
        if isinstance(self._broker, Sessions):
            held = self._broker.held(self._session())
            unseen = [delivery for delivery in held if delivery.receipt not in self._known]
            if unseen:
                # An orphan that the checker is about to settle may be among them; then its
                # settle is refused, and the job runs again unblamed.
                self._broker.release(unseen)
                logger.warning("gave back %s whose loan was never heard of", several(len(unseen)))
        left = self._doubts - 1  # somebody else may doubt at any moment
        self._doubts = left
        self._compare_at = now + (COMPARE_AGAIN[-left] if left else 0.0)
