"""Sums up what queues did over a period."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from goose.features.activity.numbers import SLOT, Numbers, key_of, load
from goose.stores.base import Store

_PAGE = 500
_PREFIX = "activity:{"


@dataclass(frozen=True, slots=True)
class QueueActivity:
    """What one queue's jobs did over a period."""

    queue: str
    period: float
    """Seconds, up to now."""
    processed: int
    """Runs that ended, however they ended."""
    succeeded: int
    retried: int
    dead: int
    p50: float | None
    """Seconds in which half of the runs ended; None without any."""
    p95: float | None
    p99: float | None

    @property
    def retried_percent(self) -> float | None:
        """How many of a hundred runs ended in a retry; None without any."""
        return 100.0 * self.retried / self.processed if self.processed else None


def read(store: Store, *, period: float = 3600.0) -> Sequence[QueueActivity]:
    """Return what every queue did in the last *period* seconds, by name.

    To five minutes: the first of them are counted whole, and what workers have not stored yet
    (the last ten seconds) is missing. Empty where no worker records (``activity://``).

    Raises:
        BrokerError: The store cannot be read.
    """
    first = int((store.now() - period) // SLOT)
    return [_summed(store, queue, first, period) for queue in _queues(store)]


def _queues(store: Store) -> Iterator[str]:
    after = ""
    while page := store.scan(_PREFIX, limit=1, after=after):
        queue = page[0][0].removeprefix(_PREFIX).partition("}")[0]
        yield queue
        # Behind all slots of this one, as no digit is.
        after = f"{_PREFIX}{queue}}}:~"


def _summed(store: Store, queue: str, first: int, period: float) -> QueueActivity:
    prefix, after = f"{_PREFIX}{queue}}}:", key_of(queue, max(0, first - 1))
    sums = Numbers()
    while page := store.scan(prefix, limit=_PAGE, after=after):
        for _, value in page:
            sums.add(load(value))
        if len(page) < _PAGE:
            break
        after = page[-1][0]
    counts = sums.counts
    return QueueActivity(
        queue,
        period,
        counts["processed"],
        counts["succeeded"],
        counts["retried"],
        counts["dead"],
        sums.percentile(0.50),
        sums.percentile(0.95),
        sums.percentile(0.99),
    )
