"""Fires what is due: a step of every worker, in place of a scheduler process.

How several workers and crashes make one job of each instant is told in `entries`. Time is the
store's clock, so workers whose clocks differ agree on what is due; their own only says when
to look again. The job itself is scheduled for its instant, so that it is not lent before it
by the broker's clock either.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence

from goose.brokers.base import Broker
from goose.errors import ConfigError
from goose.features.crons.book import stored
from goose.features.crons.entries import CLAIM, LATE, Cron, dump, parse
from goose.jobs import MAX_BYTES, seal
from goose.metrics.base import CRON_FIRED, CRON_OVERDUE, Metrics
from goose.metrics.fanout import Fanout
from goose.stores.base import Get, Store, Swap

logger = logging.getLogger("goose.worker.cron")

LOOK = 2.0
"""Seconds between looks at the entries at most, while there are some."""
IDLE = 10.0
"""Seconds between looks while there are none."""


class Firing:
    """Fires. `step` is called by one thread; any number of workers may fire at once.

    Args:
        broker: Where the jobs go.
        store: Where the entries are.
        prepare: Called once, before the first look: registers what is configured.
        mono: Monotonic seconds.
        max_bytes: Size limit of an encoded job.
    """

    def __init__(
        self,
        broker: Broker,
        store: Store,
        *,
        prepare: Callable[[Store], object] = lambda _: None,
        mono: Callable[[], float] = time.monotonic,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._broker = broker
        self._store = store
        self._prepare: Callable[[Store], object] | None = prepare
        self._mono = mono
        self._max_bytes = max_bytes
        self._name = uuid.uuid4().hex
        self.counts: Metrics = Fanout()
        """Where fires are counted."""
        self.gauges: Metrics = Fanout()
        """Where it is shown how far behind the entries are."""
        self._told: set[bytes] = set()
        """Values that could not be read, each of which is logged once."""

    def step(self, _now: float) -> float:
        """Fire what is due; return the seconds until the next look.

        Raises:
            BrokerError: Store or broker failed; what was claimed stays pending, so nothing is lost.
        """
        if self._prepare is not None:
            self._prepare(self._store)
            self._prepare = None
        entries = list(stored(self._store))
        if not entries:
            self.gauges.gauge(CRON_OVERDUE, 0.0, {})
            return IDLE
        now = self._store.now()
        self.gauges.gauge(CRON_OVERDUE, _overdue([value for _, value in entries], now), {})
        wanted = [self._look(key, value, now) for key, value in entries]
        return min(max(min(wanted) - now, 0.0), LOOK)

    def _look(self, key: str, value: bytes, now: float) -> float:
        """Fire the entry in *value* if it is due; return when it wants to be looked at again."""
        try:
            cron = parse(value)
            claimed = cron.claim(now, self._name)
        except ConfigError as error:
            # Other workers may have the time zone, or the version, that is missing here.
            if value not in self._told:
                self._told.add(value)
                logger.error("%s cannot fire here: %s", key, error)
            return now + LOOK
        if claimed is None:
            return cron.wants(now)
        changed, instants = claimed
        begun_mono = self._mono()
        if not self._swap(key, value, changed):
            return now + LOOK  # another worker's, or it was just changed
        if instants:
            if self._mono() - begun_mono > CLAIM / 2:
                # The answer took so long that the claim may be somebody else's by now.
                return now
            self._enqueue(changed, instants, now)
            self._settle(key, changed, instants)
        return changed.settled(self._name, instants).wants(now)

    def _enqueue(self, cron: Cron, instants: Sequence[float], now: float) -> None:
        envelopes = [
            seal(cron.fire(due_at, now), due_at=due_at, max_bytes=self._max_bytes)
            for due_at in instants
        ]
        self._broker.schedule(envelopes)
        self.counts.increment(CRON_FIRED, len(instants), {"entry": cron.name})
        late = now - instants[0]
        level = logging.INFO if late > LATE or len(instants) > 1 else logging.DEBUG
        logger.log(
            level, "cron %s: %d fired, the first %.1f s late", cron.name, len(instants), late
        )

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


def _overdue(values: Sequence[bytes], now: float) -> float:
    """Return the seconds for which the entry that is most behind has been due and not fired."""
    found = 0.0
    for value in values:
        try:
            cron = parse(value)
        except ConfigError:
            continue  # a later version's, which knows what it means
        if not cron.paused:
            found = max(found, now - min([cron.next_at, *(p.due_at for p in cron.pending)]))
    return found
