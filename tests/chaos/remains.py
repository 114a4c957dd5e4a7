"""What is still stored when a campaign ends, seen in one look.

A count of one state after another misses a job that moves meanwhile: one that is running while
the scheduled ones are counted, and is scheduled for its next attempt before the running ones
are, is in none of the sums. So what is left is never put together from several counts.
"""

from __future__ import annotations

from collections import defaultdict

from goose.brokers.base import Inspector, State
from goose.jobs import Job, decode

WAITING = (State.SCHEDULED, State.READY, State.RUNNING)
"""The states in which a job has not come to its end."""


def left(broker: Inspector) -> int:
    """Return how many jobs are neither done nor dead, by one look at all queues."""
    return sum(stats.counts[state] for stats in broker.queues() for state in WAITING)


def stored(broker: Inspector) -> dict[State, list[Job]]:
    """Return every job that is stored, by its state; nobody may move any meanwhile."""
    found: defaultdict[State, list[Job]] = defaultdict(list)
    for state in State:
        after = None
        while True:
            page = broker.page(state, limit=500, after=after)
            found[state] += [decode(item.envelope) for item in page.items]
            after = page.next
            if after is None:
                break
    return dict(found)
