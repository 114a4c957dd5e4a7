"""How new jobs become members: the number each gets, and the word that it is stored.

Whoever opens a batch numbers its members himself, from 0 on, in the order of his calls, and a
member's id is made of the batch's and the number. So a client that died half way can do the same
again: members that are known are passed over, and one that was stored and not noted is the same
job again. Everybody else gets numbers from a counter in the store.

That a member waits is noted once the broker has it: at once for those from elsewhere, whose batch
may be about to end, and some at a time for the opener's, without whom it cannot end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from goose.calls import Call
from goose.errors import BrokerError
from goose.features.asking import Sealed
from goose.features.batches.book import Batches
from goose.features.batches.members import DONE, SHARD, UNKNOWN, WAITING
from goose.features.batches.records import ADDED, NAME
from goose.jobs import JSON, Job, seal

TRAIT = 500
"""Bytes by which a job may grow when it becomes a member."""
NOTED = 500
"""Members that the opener notes at a time."""
NOTED_SECONDS = 1.0
"""And not later than so many seconds, if there is another one then."""


class Membership:
    """Makes jobs members of one batch. Thread-safe.

    Args:
        id: Of the batch.
        batches: Where it is.
        opener: Whether its numbers are given out here.
        resumed: Whether somebody gave out the same numbers before.
        mono: Monotonic seconds.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the field's own name
        batches: Batches,
        *,
        opener: bool,
        resumed: bool = False,
        mono: Callable[[], float],
    ) -> None:
        self.id = id
        self.count = 0
        """Numbers that were given out here."""
        self._batches = batches
        self.opener = opener
        self._resumed = resumed
        self._mono = mono
        self._lock = threading.RLock()
        self._unnoted: list[int] = []
        self._noted_mono = mono()
        self._seen: tuple[int, bytes] = (-1, b"")

    def join(self, job: Job[Any], _call: Call[Any]) -> Job[Any]:
        """Return a new *job* as a member, if its number is given out here; else as it is.

        See `goose.features.asking.Prepare`.
        """
        if not self.opener:
            return job
        with self._lock:
            number = self.count
            self.count += 1
        return self._member(job, number)

    def joined(self, sealed: Sequence[Sealed]) -> list[Sealed]:
        """Return all of *sealed* as members, but for those that were before this client came.

        Raises:
            BatchError: The batch does not exist any more.
            BrokerError: The store failed.
        """
        if self.opener:
            return [each for each in sealed if not (self._resumed and self._is_known(each[0]))]
        new = [job for job, _ in sealed if self._number(job) is None]
        numbers: Iterator[int] = iter(())
        if new:
            first = self._batches.reserve(self.id, len(new))
            numbers = iter(range(first, first + len(new)))
        made: list[Sealed] = []
        for job, envelope in sealed:
            if self._number(job) is None:
                member = self._member(job, next(numbers))
                # It was within its limit, and a few bytes more are ours.
                room = len(envelope.body) + TRAIT
                due = seal(member, delay=envelope.delay, due_at=envelope.due_at, max_bytes=room)
                made.append((member, due))
            else:
                made.append((job, envelope))
        return made

    def _member(self, job: Job[Any], number: int) -> Job[Any]:
        place = f"{number}" if number < ADDED else f"+{number - ADDED}"
        member: dict[str, JSON] = {"id": self.id, "n": number}
        if self._resumed and self.opener:
            member["again"] = True
        return job.evolve(id=f"{self.id}:{place}", traits={**job.traits, NAME: member})

    def stored(self, jobs: Iterable[Job[Any]]) -> None:
        """Note that *jobs*, as far as they are members, wait; now or soon.

        Raises:
            BrokerError: The store failed. Not raised for the opener's, who notes them later.
        """
        with self._lock:
            self._unnoted += [number for job in jobs if (number := self._number(job)) is not None]
            if not self.opener:
                self.note()
            late = self._mono() - self._noted_mono > NOTED_SECONDS
            if late or len(self._unnoted) >= NOTED:
                with suppress(BrokerError):
                    self.note()

    def ran(self, jobs: Iterable[Job[Any]]) -> None:
        """Note that *jobs* are done: in a test that runs them at once.

        Raises:
            BrokerError: The store failed.
        """
        numbers = [number for job in jobs if (number := self._number(job)) is not None]
        self._batches.report(self.id, dict.fromkeys(numbers, DONE))

    def note(self) -> None:
        """Note all that wait and are not noted.

        Raises:
            BrokerError: The store failed.
        """
        with self._lock:
            if self._unnoted:
                self._batches.report(self.id, dict.fromkeys(self._unnoted, WAITING))
                self._unnoted = []
            self._noted_mono = self._mono()

    def passed_over(self) -> bool:
        """Pass over the next number if it is a member's already; say whether."""
        if not (self._resumed and self.opener and self._is_used(self.count)):
            return False
        self.count += 1
        return True

    def _is_known(self, job: Job[Any]) -> bool:
        number = self._number(job)
        return number is not None and self._is_used(number)

    def _is_used(self, number: int) -> bool:
        shard, place = divmod(number, SHARD)
        if self._seen[0] != shard:
            self._seen = (shard, self._batches.kinds(self.id, shard * SHARD, SHARD))
        return self._seen[1][place] != UNKNOWN

    def _number(self, job: Job[Any]) -> int | None:
        member = job.traits.get(NAME)
        if not isinstance(member, dict) or member.get("id") != self.id:
            return None
        number = member.get("n")
        return number if isinstance(number, int) else None
