"""Takes deliveries from the broker into the buffer, as many as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from goose.brokers.base import Broker, Session, Share
from goose.worker.buffer import Buffer
from goose.worker.clock import Clock
from goose.worker.outcomes import Ending, Outcome, Verb
from goose.worker.prepare import Preparer
from goose.worker.work import Work

ASK_AGAIN = 0.25
"""Seconds until a full buffer is asked again, should nobody have said that it has room."""


class Fetcher:
    """Fetches. `step` is called by one thread.

    Args:
        session: Returns the session to take jobs for.
        settle: Takes outcomes of deliveries that cannot be run here.
        on_work: Told that jobs wait for a slot.
        wait: Seconds to block in the broker when there is nothing to do.
    """

    def __init__(
        self,
        broker: Broker,
        buffer: Buffer,
        preparer: Preparer,
        queues: Sequence[Share],
        *,
        session: Callable[[], Session],
        settle: Callable[[Sequence[Outcome]], None],
        on_work: Callable[[], None],
        clock: Clock,
        wait: float = 1.0,
    ) -> None:
        self._broker = broker
        self._buffer = buffer
        self._preparer = preparer
        self._queues = tuple(queues)
        self._session = session
        self._settle = settle
        self._on_work = on_work
        self._clock = clock
        self._wait = wait
        self.found_nothing = False
        """Whether the last look at the broker found no ready job."""

    def step(self, now: float) -> float:
        """Take what there is room for.

        Returns:
            Seconds until it wants to be called again.

        Raises:
            SessionLost: The session is dead; nothing was taken.
            BrokerError: Nothing was taken, as far as is known.
        """
        room = self._buffer.room(now)
        if not room:
            return ASK_AGAIN
        session = self._session()
        deliveries = self._broker.dequeue(session, self._queues, limit=room, wait=self._wait)
        self.found_nothing = not deliveries
        if not deliveries:
            return 0.0
        works: list[Work] = []
        outcomes: list[Outcome] = []
        for delivery in deliveries:
            prepared = self._preparer.prepare(delivery)
            if isinstance(prepared, Work):
                works.append(prepared)
            else:
                outcomes.append(prepared)
        if session is not self._session():
            return 0.0  # lost while we waited: others have these jobs by now
        outcomes += [given_back(work) for work in self._buffer.put(works)]
        if outcomes:
            self._settle(outcomes)
        if works:
            self._on_work()
        return 0.0


def given_back(work: Work) -> Outcome:
    """Return the outcome of a job that was held and not started: others may have it at once."""
    return Outcome(Ending.RELEASED, Verb.RELEASE, work.delivery, None, work.job)
