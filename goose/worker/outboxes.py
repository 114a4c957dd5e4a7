"""What a worker needs to move jobs from an outbox: the database, the table, and how often to look."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from goose.brokers.base import Broker
from goose.metrics.base import Metrics
from goose.settings import Settings

if TYPE_CHECKING:
    from goose.features.outbox import Relay


def relay_of(
    broker: Broker, chosen: Settings, broker_url: object
) -> Callable[[Metrics], Relay] | None:
    """Return what makes the relay of a worker process, given what it counts into; None without an outbox.

    Args:
        broker: Where jobs go.
        chosen: Says which outbox, if any.
        broker_url: How *broker* was named, whose namespace decides about the table.

    Raises:
        ConfigError: The outbox is at no URL of a database, or a driver is missing.
    """
    if chosen.outbox is None:
        return None
    from goose.features.outbox import Database, Relay, Table, table_for  # not every worker's

    table = Table(Database(chosen.outbox), table_for(chosen.outbox_table, broker_url))
    return lambda metrics: Relay(broker, table, metrics=metrics, lease=chosen.ttl)
