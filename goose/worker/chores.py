"""What a worker does beside its jobs, as its settings say."""

from __future__ import annotations

from typing import Protocol

from goose.brokers.base import Broker
from goose.calls import Offer
from goose.metrics.base import Metrics
from goose.settings import Settings
from goose.worker import crons


class Chore(Protocol):
    """Something to do now and then; for one thread at a time."""

    def step(self, now: float) -> float:
        """Do what there is to do at *now* (monotonic); return the seconds until the next time."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


def chores(
    broker: Broker,
    offer: Offer,
    chosen: Settings,
    broker_url: object,
    metrics: Metrics,
    *,
    relays: bool = True,
) -> dict[str, Chore]:
    """Return the chores of a worker process, by name.

    Args:
        broker: Where jobs are.
        offer: What this worker may run; loaded.
        chosen: Says which chores there are.
        broker_url: How *broker* was named, if by a URL.
        metrics: What they count into.
        relays: Whether this is the process of its worker that moves jobs from an outbox.

    Raises:
        ConfigError: A setting is wrong.
        Unsupported: Cron entries are configured, and there is no store.
    """
    found: dict[str, Chore] = {}
    firing = crons.firing(broker, offer, chosen, broker_url)
    if firing is not None:
        found["cron"] = firing
    if chosen.outbox is not None and relays:
        from goose.features.outbox import Database, Relay, Table, table_for  # not every worker's

        # The broker may be named in code; then it is its own namespace that counts.
        table = Table(Database(chosen.outbox), table_for(chosen.outbox_table, broker_url))
        found["outbox"] = Relay(broker, table, metrics=metrics, lease=chosen.ttl)
    return found
