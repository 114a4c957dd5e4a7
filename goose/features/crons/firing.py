"""Fires what is due: a step of every worker, in place of a scheduler process.

How several workers and crashes make one job of each instant is told in `entries`. Time is the
store's clock, so workers whose clocks differ agree on what is due; their own only says when
to look again. The job itself is scheduled for its instant, so that it is not lent before it
by the broker's clock either.

The job of an entry may be unique. Then an instant at which another has its key makes no job; if
that is not known yet, the instant stays claimed and is looked at again a moment later.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence

from goose.brokers.base import Broker
from goose.errors import BrokerUnavailable, ConfigError
from goose.features.asking import Claimed, claimed
from goose.features.crons.book import stored
from goose.features.crons.entries import CLAIM, LATE, Cron, dump, parse
from goose.features.uniques.claims import sleeping
from goose.jobs import MAX_BYTES, seal
from goose.metrics.base import CRON_FIRED, CRON_LATENESS, CRON_MISSED, EXISTING
from goose.metrics.fanout import Fanout
from goose.stores.base import Get, Store, Swap

_NO_METRICS = Fanout()
logger = logging.getLogger("goose.worker.cron")

LOOK = 2.0
"""Seconds between looks at the entries at most, while there are some."""
IDLE = 10.0
"""Seconds between looks while there are none."""


UNDECIDED = 1.0
"""Seconds until the next look at a key that a client has claimed, and whose job is not stored yet."""


class _Undecided(Exception):
    """Whether another job has the key cannot be told now; waiting for it would hold up the worker."""


def _refuse_to_wait(_seconds: float) -> None:
    raise _Undecided


class Firing:
    """Fires. `step` is called by one thread; any number of workers may fire at once.

    Args:
        broker: Where the jobs go.
        store: Where the entries are.
        prepare: Called once, before the first look: registers what is configured.
        mono: Monotonic seconds.
        max_bytes: Size limit of an encoded job.
        metrics: Counts what is fired and what is left out.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store,
        *,
        prepare: Callable[[Store], object] = lambda _: None,
        mono: Callable[[], float] = time.monotonic,
        max_bytes: int = MAX_BYTES,
        metrics: Fanout = _NO_METRICS,
    ) -> None:
        self.metrics = metrics
        self._broker = broker
        self._store = store
        self._prepare: Callable[[Store], object] | None = prepare
        self._mono = mono
        self._max_bytes = max_bytes
        self._name = uuid.uuid4().hex
        self._told: set[tuple[str, str]] = set()
        """What was wrong with which entry, each of which is logged once."""

    def step(self, _now: float) -> float:
        """Fire what is due; return the seconds until the next look.

        Raises:
            BrokerUnavailable: Store or broker cannot be reached; what was claimed stays pending, so nothing
                is lost.
        """
        if self._prepare is not None:
            self._prepare(self._store)
            self._prepare = None
        entries = list(stored(self._store))
        if not entries:
            return IDLE
        now = self._store.now()
        wanted = [now + LOOK]
        for key, value in entries:
            try:
                wanted.append(self._look(key, value, now))
            except BrokerUnavailable:
                raise  # it is so for all
            except Exception as error:  # noqa: BLE001 - one entry must not hold up the others
                self._tell(key, "%s cannot fire: %s", error)
        return min(max(min(wanted) - now, 0.0), LOOK)

    def _tell(self, key: str, message: str, error: Exception) -> None:
        if (key, str(error)) not in self._told:
            self._told.add((key, str(error)))
            logger.error(message, key, error, exc_info=not isinstance(error, ConfigError))

    def _look(self, key: str, value: bytes, now: float) -> float:
        """Fire the entry in *value* if it is due; return when it wants to be looked at again."""
        try:
            cron = parse(value)
            claimed = cron.claim(now, self._name)
        except ConfigError as error:
            # Other workers may have the time zone, or the version, that is missing here.
            self._tell(key, "%s cannot fire here: %s", error)
            return now + LOOK
        if claimed is None:
            return cron.wants(now)
        changed, instants = claimed
        begun_mono = self._mono()
        if not self._swap(key, value, changed):
            return now + LOOK  # another worker's, or it was just changed
        if self.metrics and (missed := cron.left_out(changed, instants)):
            self.metrics.increment(CRON_MISSED, missed, {"cron": cron.name})
        if instants:
            try:
                jobs = self._claimed(changed, instants, now)
            except _Undecided:
                return now + UNDECIDED
            if self._mono() - begun_mono > CLAIM / 2:
                # The answers took so long that the claim may be somebody else's by now.
                return now
            self._enqueue(changed, instants, jobs, now)
            self._settle(key, changed, instants)
        return changed.settled(self._name, instants).wants(now)

    def _claimed(self, cron: Cron, instants: Sequence[float], now: float) -> Claimed:
        """Return the jobs of these instants, once those that are unique have their keys.

        Raises:
            _Undecided: A key may be another's.
        """
        jobs = [(at, cron.fire(at, now)) for at in instants]
        sealed = [(job, seal(job, due_at=at, max_bytes=self._max_bytes)) for at, job in jobs]
        if not cron.job.traits:
            return Claimed(sealed)
        token = sleeping.set(_refuse_to_wait)
        try:
            return claimed(sealed, self._broker, self._store)
        finally:
            sleeping.reset(token)

    def _enqueue(self, cron: Cron, instants: Sequence[float], jobs: Claimed, now: float) -> None:
        if jobs.sealed:
            self._broker.schedule([envelope for _, envelope in jobs.sealed])
            jobs.sent()
        fired = [envelope.due_at or now for job, envelope in jobs.sealed if jobs.answer(job) is job]
        for id_, holder in jobs.answers.items():
            logger.info("%s is not made, or skipped: %s has its key", id_, holder.id)
        if self.metrics:
            self._count(cron, fired, len(instants) - len(fired), now)
        if fired:
            late = now - fired[0]
            level = logging.INFO if late > LATE or len(fired) > 1 else logging.DEBUG
            logger.log(
                level, "cron %s: %d fired, the first %.1f s late", cron.name, len(fired), late
            )

    def _count(self, cron: Cron, fired: Sequence[float], answered: int, now: float) -> None:
        tags = {"cron": cron.name}
        if fired:
            self.metrics.increment(CRON_FIRED, len(fired), tags)
        if answered:
            of = {"queue": cron.job.queue, "function": cron.job.fn}
            self.metrics.increment(EXISTING, answered, of)
        for due_at in fired:
            self.metrics.timing(CRON_LATENESS, max(0.0, now - due_at), tags)

    def _settle(self, key: str, cron: Cron, instants: Sequence[float]) -> None:
        """Note that the jobs are enqueued, whatever others made of the entry meanwhile."""
        value: bytes | None = dump(cron)
        while value is not None:
            if self._swap(key, value, parse(value).settled(self._name, instants)):
                return
            [value] = self._store.apply([Get(key)])

    def _swap(self, key: str, value: bytes, changed: Cron) -> bool:
        [done] = self._store.apply([Swap(key, value, dump(changed))])
        return bool(done)
