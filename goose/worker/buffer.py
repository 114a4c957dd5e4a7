"""What a worker process holds: prepared jobs waiting for a slot, and those in slots.

The buffer decides how much to take from the broker (`room`) and what runs next (`take`).

* **Prefetch adapts.** Beyond the free slots it takes as many jobs as make about
  `WINDOW_SECONDS` of work, at most `WINDOW_JOBS`: many tiny jobs per round trip, and not one
  slow job more than can start now, so that no job waits here while another worker is idle.
  Sync and async functions have slots of their own; which one a job needs is known only once
  it is here, so there is room only while every kind that has been seen has room.
* **Suspects run alone.** A job that was in a process that died starts only when this process
  holds nothing else: then its own death names it beyond doubt, even to an orphan checker that
  knows nothing but how many loans the dead session had. It may hold the process to itself for
  a *probation* that grows with every suspicion; after that others join it.

All state is behind one lock; nothing here blocks or calls a broker.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from goose.jobs import Job
from goose.worker.recovery import isolated
from goose.worker.work import Work

WINDOW_SECONDS = 0.1
"""Work to hold ahead, in seconds of all slots: a few round trips' worth."""
SHARED_WINDOW_SECONDS = 0.01
"""The same where jobs have groups: whoever comes next waits for all that is held here already."""
WINDOW_JOBS = 100
"""Jobs to hold ahead at most. Source: beyond it, batches no longer make round trips cheaper."""
MAX_UNSETTLED = 1000
"""Ended but unsettled jobs beyond which nothing more is taken: the broker is not answering."""
HELD_LIMIT = 2.0
"""Seconds a job may wait here for a slot before it is given back to others."""
PATIENCE_LIMIT = 3600.0
"""Seconds a suspect may keep a process from taking other jobs while those that run end."""
PROBATION = 30.0
"""Seconds a job suspected once has its process to itself; four times as long each time more."""


@dataclass(slots=True)
class _Lane:
    """The slots of one kind, sync or async, and what waits for them."""

    slots: int
    held: deque[Work]
    running: int = 0
    mean: float | None = None
    """Seconds a job takes, lately; None before the first has ended."""
    last_start: float = 0.0
    ahead: float = WINDOW_SECONDS
    """Seconds of work to hold ahead."""

    @property
    def seen(self) -> bool:
        """Whether a job of this kind was ever here."""
        return self.mean is not None or self.running > 0 or bool(self.held)

    @property
    def may_have_room(self) -> bool:
        """Whether `room` can reach what is held; asked for every job, so it is cheap."""
        return 2 * len(self.held) <= WINDOW_JOBS + self.slots

    def room(self, now: float) -> int:
        free = self.slots - self.running
        return free + self.window(free, now) - len(self.held)

    def window(self, free: int, now: float) -> int:
        if self.mean is None:
            return 0
        # All slots taken, and none lately: those that run are slow, whatever the mean says.
        if free == 0 and now - self.last_start > WINDOW_SECONDS:
            return 0
        ahead = int(self.ahead * self.slots / self.mean) if self.mean > 1e-6 else WINDOW_JOBS
        return min(ahead, WINDOW_JOBS)

    def ended(self, seconds: float) -> None:
        self.running -= 1
        self.mean = seconds if self.mean is None else 0.8 * self.mean + 0.2 * seconds


def patience(job: Job[Any], wall: float) -> float:
    """Return the seconds a suspect may wait for its process to become empty.

    The longer it has been sent away for want of an empty process, the longer the next one is
    kept from taking other jobs: however long the jobs around it run, its turn comes.
    """
    age = 0.0 if job.deferred_since is None else wall - job.deferred_since
    return min(max(PROBATION, age / 2), PATIENCE_LIMIT)


class Buffer:
    """Prepared jobs of one process. Thread-safe.

    Args:
        concurrency: Sync slots.
        async_slots: Async slots.
        on_room: Called, without the lock, when `room` was 0 and may no longer be.
    """

    def __init__(
        self, concurrency: int, async_slots: int, on_room: Callable[[], None] = lambda: None
    ) -> None:
        self._lock = threading.Lock()
        self._sync = _Lane(concurrency, deque())
        self._async = _Lane(async_slots, deque())
        self._suspect: Work | None = None
        self._alone: Work | None = None
        self._alone_until = 0.0
        self._cautious = False
        self._hungry = False
        self._closed = False
        self._unsettled = 0
        self._on_room = on_room

    # --- what the fetcher asks ------------------------------------------------------------

    def room(self, now: float) -> int:
        """Return how many jobs to take now; after a 0, `on_room` says when to ask again."""
        with self._lock:
            room = self._room(now)
            self._hungry = room == 0
            return room

    def _has_room_again(self, now: float) -> bool:
        if self._room(now) <= 0:
            return False
        self._hungry = False
        return True

    def _room(self, now: float) -> int:
        if self._closed or self._suspect is not None or self._unsettled > MAX_UNSETTLED:
            return 0
        if self._alone is not None and now < self._alone_until:
            return 0
        held = len(self._sync.held) + len(self._async.held)
        # A kind of job that was never seen here is no reason to take fewer of the other.
        lanes = [lane for lane in (self._sync, self._async) if lane.seen]
        room = min([lane.room(now) for lane in lanes or (self._sync, self._async)])
        room = min(room, WINDOW_JOBS)
        # Refill when half is gone, so that round trips carry many.
        if room <= 0 or held > room:
            return 0
        return 1 if self._cautious else room

    def put(self, works: Sequence[Work]) -> list[Work]:
        """Hold *works*, in order; return those to give back: a worker holds one suspect at most."""
        back: list[Work] = []
        with self._lock:
            if self._closed:
                return list(works)
            self._cautious = shared = False
            for work in works:
                shared = shared or work.job.group is not None
                if isolated(work.job):
                    # Where one is, others may be: take one at a time until there are no more.
                    self._cautious = True
                    if self._suspect is None:
                        self._suspect = work
                    else:
                        back.append(work)
                else:
                    self._lane(work).held.append(work)
            self._sync.ahead = self._async.ahead = (
                SHARED_WINDOW_SECONDS if shared else WINDOW_SECONDS
            )
        return back

    # --- what the slots ask ---------------------------------------------------------------

    def take(self, now: float, *, is_async: bool) -> Work | None:
        """Return the next job of that kind to run, or None if there is none to run now."""
        lane = self._async if is_async else self._sync
        with self._lock:
            if self._alone is not None and now < self._alone_until:
                return None
            if lane.held and lane.running < lane.slots:
                work = lane.held.popleft()
            elif self._suspect is not None and self._may_isolate(self._suspect, is_async):
                work = self._alone = self._suspect
                self._suspect = None
                times = max(0, work.job.suspicions + work.job.crashes - 1)
                self._alone_until = now + PROBATION * 4.0 ** min(times, 10)
            else:
                return None
            lane.running += 1
            lane.last_start = now
            hungry = self._hungry and lane.may_have_room and self._has_room_again(now)
        if hungry:
            self._on_room()
        return work

    def _may_isolate(self, suspect: Work, is_async: bool) -> bool:
        return (
            suspect.plan.is_async is is_async
            and not (self._sync.held or self._async.held)
            and self._sync.running + self._async.running == 0
            and self._unsettled == 0
        )

    def ended(self, work: Work, seconds: float, now: float) -> None:
        """Note that *work*, which ran for *seconds*, left its slot and is to be settled."""
        lane = self._lane(work)
        with self._lock:
            lane.ended(seconds)
            self._unsettled += 1
            if self._alone is work:
                self._alone = None
            hungry = self._hungry and lane.may_have_room and self._has_room_again(now)
        if hungry:
            self._on_room()

    # --- what the settler says ------------------------------------------------------------

    def settling(self, count: int) -> None:
        """Note *count* outcomes more to settle that never had a slot."""
        with self._lock:
            self._unsettled += count

    def settled(self, count: int, now: float) -> None:
        """Note that *count* outcomes are settled."""
        with self._lock:
            self._unsettled -= count
            hungry = self._hungry and self._has_room_again(now)
        if hungry:
            self._on_room()

    # --- giving back ----------------------------------------------------------------------

    def give_up(self, now: float, wall: float) -> tuple[list[Work], Work | None]:
        """Return, and no longer hold, jobs that waited too long for a slot here.

        Args:
            now: Monotonic seconds.
            wall: Epoch seconds.

        Returns:
            Those any other worker may start at once, and a suspect that did not find this
            process empty: it should come back later, for as long as it waits nothing is taken.
        """
        with self._lock:
            back: list[Work] = []
            for lane in (self._sync, self._async):
                if (
                    lane.held
                    and lane.running >= lane.slots
                    and now - lane.held[0].held_mono > HELD_LIMIT
                    and now - lane.last_start > HELD_LIMIT
                ):
                    back += lane.held
                    lane.held.clear()
            suspect = self._suspect
            if suspect is None or now - suspect.held_mono <= patience(suspect.job, wall):
                return back, None
            self._suspect = None
            return back, suspect

    def take_back(self, unwanted: Callable[[Work], bool]) -> list[Work]:
        """Return, and no longer hold, what was not started and is *unwanted*."""
        with self._lock:
            back: list[Work] = []
            for lane in (self._sync, self._async):
                found = [work for work in lane.held if unwanted(work)]
                if found:
                    back += found
                    lane.held = deque(work for work in lane.held if work not in found)
            if self._suspect is not None and unwanted(self._suspect):
                back.append(self._suspect)
                self._suspect = None
            return back

    def resize(self, concurrency: int, async_slots: int) -> None:
        """Have so many slots from now on; what runs in others goes on."""
        with self._lock:
            self._sync.slots = concurrency
            self._async.slots = async_slots

    def clear(self) -> list[Work]:
        """Return, and no longer hold, everything that was not started."""
        with self._lock:
            back = [*self._sync.held, *self._async.held]
            self._sync.held.clear()
            self._async.held.clear()
            if self._suspect is not None:
                back.append(self._suspect)
                self._suspect = None
            return back

    def close(self) -> list[Work]:
        """Take nothing more; return what was not started."""
        with self._lock:
            self._closed = True
        return self.clear()

    # --- numbers --------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """Jobs in slots."""
        return self._sync.running + self._async.running

    def busy(self, *, is_async: bool) -> int:
        """Jobs in slots of that kind."""
        return (self._async if is_async else self._sync).running

    def window(self, now: float) -> int:
        """Return how many jobs would be held ahead now: what the prefetch has adapted to."""
        with self._lock:
            lanes = [lane for lane in (self._sync, self._async) if lane.seen]
            return sum(lane.window(lane.slots - lane.running, now) for lane in lanes)

    @property
    def held(self) -> int:
        """Jobs waiting for a slot."""
        return len(self._sync.held) + len(self._async.held) + (self._suspect is not None)

    def waiting(self, *, is_async: bool) -> int:
        """Jobs waiting for a slot of that kind, a suspect included."""
        lane = self._async if is_async else self._sync
        suspect = self._suspect
        return len(lane.held) + (suspect is not None and suspect.plan.is_async is is_async)

    @property
    def suspect_waits(self) -> bool:
        """Whether a job waits for this process to be empty."""
        return self._suspect is not None

    @property
    def unsettled(self) -> int:
        """Jobs that ended and are not settled yet."""
        return self._unsettled

    @property
    def idle(self) -> bool:
        """Whether it holds, runs and settles nothing."""
        with self._lock:
            return not (self.held or self.running or self._unsettled)

    def _lane(self, work: Work) -> _Lane:
        return self._async if work.plan.is_async else self._sync
