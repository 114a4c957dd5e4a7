"""Makes due jobs ready, and measures the queues: small duties done now and then."""

from __future__ import annotations

from collections.abc import Sequence

from goose.brokers.base import Broker, Inspector, Share, State, Upkeep
from goose.metrics.base import QUEUE_OLDEST, QUEUE_SIZE, Metrics

BATCH = 500
"""Jobs made due in one call; bounds the broker's work."""
LONGEST = 1.0
"""Seconds between rounds at most, since somebody may schedule a job for sooner than the next."""
SHORTEST = 0.02
"""Seconds between rounds at least, when nothing more is due already."""
MEASURE_EVERY = 10.0
"""Seconds between two measurements of the queues."""


class Promoter:
    """Promotes. `step` is called by one thread; any number of workers may promote at once."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def step(self, _now: float) -> float:
        """Promote one batch; return the seconds until the next is due.

        Raises:
            BrokerError: It is not known what was promoted; nothing is lost by that.
        """
        if not isinstance(self._broker, Upkeep):
            return 3600.0
        done = self._broker.promote_due(limit=BATCH)
        if done.next_due_in is None:
            return LONGEST
        if done.next_due_in <= 0:
            return 0.0
        return min(max(done.next_due_in, SHORTEST), LONGEST)


class Gauge:
    """Reports how full this worker's queues are. `step` is called by one thread."""

    def __init__(self, broker: Broker, queues: Sequence[Share], metrics: Metrics) -> None:
        self._broker = broker
        self._queues = {share.queue for share in queues}
        self._metrics = metrics

    def step(self, _now: float) -> float:
        """Measure once; return the seconds until the next measurement.

        Raises:
            BrokerError: The broker could not say.
        """
        if not isinstance(self._broker, Inspector):
            return 3600.0
        seen = {stats.queue: stats for stats in self._broker.queues()}
        for queue in self._queues:
            stats = seen.get(queue)
            for state in State:
                size = stats.counts.get(state) if stats else 0
                if size is not None:
                    self._metrics.gauge(QUEUE_SIZE, size, {"queue": queue, "state": state.value})
            oldest = (stats.oldest if stats else None) or 0.0
            self._metrics.gauge(QUEUE_OLDEST, oldest, {"queue": queue})
        return MEASURE_EVERY
