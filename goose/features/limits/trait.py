"""The worker's side: who may not start yet goes back, and costs no attempt."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from goose.brokers.base import Inspector, State
from goose.errors import BrokerError, Unsupported
from goose.features.controls.book import read
from goose.features.controls.orders import parse
from goose.features.limits.leases import Leases, changed
from goose.features.limits.pacing import keep, paced
from goose.features.limits.values import Bounds, bounds_of
from goose.features.traits import AGAIN, Admission, Defer, Ended, Tools
from goose.jobs import Job
from goose.stores.base import Store

logger = logging.getLogger("goose.features")

LOOK = 0.5
"""Seconds between two looks at the orders, while there are limited jobs."""
KEEP = 10.0
"""Seconds between two times that leases are kept alive, at most."""


class Limits:
    """See `goose.features.traits.Trait`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._owner = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._held: dict[str, set[str]] = {}
        """By place: the jobs with leases of this process."""
        self._sure: set[tuple[str, str]] = set()
        """Place and job where the lease was had for certain, and nobody has begun to give it back."""
        self._ordered: Mapping[str, Mapping[str, Any]] = {}
        self._look_at = 0.0
        self._keep_at = 0.0

    def admit(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Admission]:
        """Let those start whose turn it is."""
        with self._lock:
            here = {id_ for ids in self._held.values() for id_ in ids}
        # The end of that run would give back the place of this one.
        answers: dict[str, Admission] = {
            job.id: Defer(AGAIN, "limit: it still runs here") for job in jobs if job.id in here
        }
        asking = [job for job in jobs if job.id not in here]
        try:
            return answers | self._admitted(self._tools.store(), asking)
        except BaseException:
            self._forget([job.id for job in asking])
            raise

    def _admitted(self, store: Store, jobs: Sequence[Job[Any]]) -> dict[str, Admission]:
        ordered = self._orders(store)
        answers: dict[str, Admission] = {}
        by_bounds: dict[Bounds, list[str]] = {}
        for job in jobs:
            for bounds in bounds_of(job, ordered):
                by_bounds.setdefault(bounds, []).append(job.id)
        # Places first: an instant, once given out, would be lost on a job that finds no place.
        for bounds, ids in by_bounds.items():
            if bounds.concurrency is not None:
                self._leased(store, bounds, [id_ for id_ in ids if id_ not in answers], answers)
        self._pace(store, by_bounds, answers)
        for bounds, ids in by_bounds.items():
            with self._lock:
                held = self._held.get(bounds.place, set())
                refused = [id_ for id_ in ids if id_ in answers and id_ in held]
            if refused:
                self._give_back(bounds.place, refused, ran=False)
        return answers

    def _pace(
        self,
        store: Store,
        by_bounds: Mapping[Bounds, Sequence[str]],
        answers: dict[str, Admission],
    ) -> None:
        """Give out instants; put the waits of those for whom one is not now into *answers*."""
        passed: list[tuple[Bounds, float, dict[str, float]]] = []
        waits: dict[str, float] = {}
        # The slowest first, so that fewer wait for it with an instant of what more can have.
        for bounds, ids in sorted(by_bounds.items(), key=lambda each: each[0].rate or 0.0):
            asking = [id_ for id_ in ids if id_ not in answers]
            if bounds.rate is not None and asking:
                draws = self._tools.random
                late, starts = paced(store, bounds.place, bounds.rate, asking, draws)
                passed.append((bounds, bounds.rate, starts))
                waits |= late
                for id_, wait in late.items():
                    answers[id_] = Defer(wait, f"limit {bounds.name}: its rate")
        for bounds, rate, starts in passed:
            held_up = {id_: at for id_, at in starts.items() if id_ in waits}
            if held_up:
                keep(store, bounds.place, rate, held_up, waits)

    def _leased(
        self, store: Store, bounds: Bounds, ids: Sequence[str], answers: dict[str, Admission]
    ) -> None:
        """Take leases for *ids*; put the waits of those that find no place into *answers*."""
        most = bounds.concurrency
        if most is None or not ids:
            return
        with self._lock:
            self._held.setdefault(bounds.place, set()).update(ids)
        waits = changed(
            store,
            bounds.place,
            lambda leases, now: leases.take(ids, self._owner, most, now, self._tools.ttl),
        )
        with self._lock:
            self._held.get(bounds.place, set()).difference_update(waits)
            self._sure.update((bounds.place, id_) for id_ in ids if id_ not in waits)
        for id_, wait in waits.items():
            answers[id_] = Defer(wait, f"limit {bounds.name}: {most} run")

    def ended(self, endings: Sequence[Ended]) -> None:
        """Give their leases back."""
        self._leave([end.job.id for end in endings])

    def left(self, jobs: Sequence[Job[Any]]) -> None:
        """Give the leases of jobs back that are no longer here."""
        left = [job.id for job in jobs]
        try:
            self._leave(left)
        finally:  # not told again: what could not be given back is not kept alive either
            self._forget(left)

    def _leave(self, left: Sequence[str]) -> None:
        with self._lock:
            gone = {place: [id_ for id_ in left if id_ in ids] for place, ids in self._held.items()}
        for place, ids in gone.items():
            if ids:
                self._give_back(place, ids)

    def _forget(self, ids: Sequence[str]) -> None:
        with self._lock:
            for place, held in self._held.items():
                held.difference_update(ids)
                self._sure.difference_update((place, id_) for id_ in ids)

    def _give_back(self, place: str, ids: Sequence[str], *, ran: bool = True) -> None:
        with self._lock:  # before the swap: what is gone after it is not lost
            self._sure.difference_update((place, id_) for id_ in ids)
        following = changed(
            self._tools.store(),
            place,
            lambda leases, now: leases.give_back(ids, self._owner, now, ran=ran),
        )
        with self._lock:
            self._held.get(place, set()).difference_update(ids)
        self._call(place, following)

    def _call(self, place: str, ids: Sequence[str]) -> None:
        """Have the next in line come at once, if the broker can; else they come by their time."""
        broker = self._tools.broker
        try:
            while ids and isinstance(broker, Inspector):
                absent = _absent(broker, ids)
                ids = self._next(place, absent) if absent else ()
        except (BrokerError, Unsupported) as error:
            logger.debug("%d jobs in line come by their time: %s", len(ids), error)

    def _next(self, place: str, number: int) -> Sequence[str]:
        """Take so many out of the line."""
        return changed(self._tools.store(), place, lambda leases, _: leases.call(number))

    def tick(self) -> None:
        """Keep the leases of this process alive, now and then."""
        now = self._tools.mono()
        if now >= self._keep_at:
            self._keep()
            self._keep_at = now + min(KEEP, self._tools.ttl / 3)

    def _keep(self) -> None:
        with self._lock:
            held = {place: list(ids) for place, ids in self._held.items() if ids}
            self._held = {place: set(ids) for place, ids in held.items()}
        failed: BrokerError | None = None
        for place, ids in held.items():

            def change(
                leases: Leases, now: float, place: str = place, ids: Sequence[str] = ids
            ) -> tuple[Leases, None]:
                with self._lock:
                    sure = [id_ for id_ in ids if (place, id_) in self._sure]
                return leases.keep(ids, self._owner, now, self._tools.ttl, lost=sure), None

            try:
                changed(self._tools.store(), place, change)
            except BrokerError as error:  # another place may be on a shard that is well
                failed = failed or error
        if failed is not None:
            raise failed

    def _orders(self, store: Store) -> Mapping[str, Mapping[str, Any]]:
        now = self._tools.mono()
        if now >= self._look_at:
            self._ordered = parse(read(store)).limits
            self._look_at = now + LOOK
        return self._ordered


def _absent(broker: Inspector, ids: Sequence[str]) -> int:
    """Make these jobs ready; return how many do not come: gone, or not back in their queue yet."""
    came = set(broker.promote(ids))
    found = [broker.find(id_) for id_ in ids if id_ not in came]
    return sum(stored is None or stored.state is not State.READY for stored in found)
