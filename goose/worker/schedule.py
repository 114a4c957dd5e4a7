"""Makes due jobs ready, and measures the queues: small duties done now and then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from goose.brokers.base import Broker, Inspector, QueueStats, Share, State, Upkeep
from goose.metrics.base import QUEUE_OLDEST, QUEUE_SIZE, Metrics

BATCH = 500
"""Jobs made due in one call; bounds the broker's work."""
LONGEST = 1.0
"""Seconds between rounds at most, since somebody may schedule a job for sooner than the next."""
SHORTEST = 0.02
"""Seconds between rounds at least, when nothing more is due already."""
MEASURE_EVERY = 10.0
"""Seconds between two measurements of the queues."""
MAX_QUEUES = 200
"""Queues that nobody here takes jobs from and that are shown all the same, the first by name."""


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
    """Reports how full the queues are. `step` is called by one thread."""

    def __init__(self, broker: Broker, queues: Sequence[Share], metrics: Metrics) -> None:
        self._broker = broker
        self._queues = queues
        self._metrics = metrics

    def step(self, _now: float) -> float:
        """Measure once; return the seconds until the next measurement.

        Raises:
            BrokerError: The broker could not say.
        """
        if not isinstance(self._broker, Inspector):
            return 3600.0
        for name, value, tags in measured(self._broker.queues(), self._queues):
            self._metrics.gauge(name, value, tags)
        return MEASURE_EVERY


def measured(
    found: Iterable[QueueStats], queues: Sequence[Share]
) -> Iterator[tuple[str, float, dict[str, str]]]:
    """Yield the gauges of *queues*, whether they hold jobs or not, and of all others that do.

    The others because a queue that no worker names is the one to be told about.
    """
    seen = {stats.queue: stats for stats in found}
    ours = [share.queue for share in queues]
    others = sorted(seen.keys() - set(ours))[:MAX_QUEUES]
    for queue in [*ours, *others]:
        stats = seen.get(queue)
        for state in State:
            size = stats.counts.get(state) if stats else 0
            if size is not None:
                yield QUEUE_SIZE, size, {"queue": queue, "state": state.value}
        yield QUEUE_OLDEST, (stats.oldest if stats else None) or 0.0, {"queue": queue}
