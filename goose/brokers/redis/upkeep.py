"""Upkeep: makes due jobs ready, and lets old dead ones go."""

from __future__ import annotations

from goose.brokers.base import Promotion
from goose.brokers.redis import scripts
from goose.brokers.redis.access import Access
from goose.brokers.redis.links import Call
from goose.brokers.redis.records import micros


class Upkept(Access):
    """Implements `Upkeep`."""

    def promote_due(self, *, limit: int) -> Promotion:
        """See `Upkeep.promote_due`. `dequeue` promotes for itself what it could lend."""
        promoted = trimmed = 0
        next_due: float | None = None
        ages = (micros(self.options.dead_max_age), self.options.dead_max_count)
        for domain, lines in self._groups(self._lines()):
            keys = [domain.queues]
            for line in lines:
                keys += (line.jobs, line.ready, line.sleepers, line.wake, line.scheduled, line.dead)
            args = (limit - promoted, *ages, *(line.queue for line in lines))
            done, due, dropped = self._ready().run(Call(scripts.PROMOTE_DUE, keys, args))
            promoted += done
            trimmed += dropped
            if due >= 0:
                next_due = due / 1e6 if next_due is None else min(next_due, due / 1e6)
        return Promotion(promoted, next_due, trimmed)
