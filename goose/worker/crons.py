"""What a worker needs to fire cron entries: its store, and the entries of its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from goose.brokers.base import Broker
from goose.calls import Offer
from goose.errors import ConfigError, GooseError, UnknownFunction, Unsupported
from goose.features.crons.book import Crons
from goose.features.crons.entries import Cron, define
from goose.features.crons.firing import Firing
from goose.options import Options, options, parse_retry
from goose.plugins import nearest
from goose.sealing import BeforeEnqueue, Sealer
from goose.settings import Settings
from goose.stores import OnDemand
from goose.stores.base import Store
from goose.values import limit

FIELDS = (
    "expression",
    "function",
    "args",
    "kwargs",
    "timezone",
    "catch_up",
    "queue",
    "retry",
    "timeout",
    "group",
)
"""What a table ``[cron.NAME]`` may have; the first two it must."""


class _Source:
    """Where a configured entry takes what it does not say."""

    def __init__(self, chosen: Settings) -> None:
        self.own = Options()
        self.before_enqueue: Sequence[str | BeforeEnqueue] | None = None
        self._chosen = chosen

    def settings(self) -> Settings:
        return self._chosen


def firing(broker: Broker, offer: Offer, chosen: Settings, store: OnDemand) -> Firing | None:
    """Return what fires cron entries in a worker; None where there is no store for them.

    Args:
        broker: Where jobs go.
        offer: What this worker may run; loaded. Configured entries of other functions are left
            to workers that offer them.
        chosen: Says which store, and which entries to register.
        store: Where entries are; shared, and closed by whoever made it.

    Raises:
        ConfigError: A configured entry is wrong.
        Unsupported: Entries are configured, and there is no store.
    """
    entries = [entry for item in chosen.cron.items() if (entry := configured(*item, offer, chosen))]
    try:
        opened = store.open()
    except Unsupported:
        if chosen.cron:
            raise
        return None

    def register(where: Store) -> None:
        book = Crons(where, lambda job: job)
        for cron in entries:
            book.register(
                cron.name,
                cron.expression,
                cron.job,
                timezone=cron.timezone,
                catch_up=cron.catch_up,
            )

    return Firing(broker, opened, prepare=register, max_bytes=chosen.max_bytes)


def configured(name: str, table: Mapping[str, Any], offer: Offer, chosen: Settings) -> Cron | None:
    """Return the entry that ``[cron.NAME]`` describes; None if its function is not on offer.

    Raises:
        ConfigError: It is wrong; the message names the entry.
    """
    where = f"{chosen.origin('cron')}.{name}"
    for field in table:
        if field not in FIELDS:
            raise ConfigError(f"{where}: {field!r} is not known{nearest(field, FIELDS)}")
    for field in FIELDS[:2]:
        if field not in table:
            raise ConfigError(f"{where}: {field} is missing")
    function = table["function"]
    try:
        fn = offer.resolve(str(function)).fn
    except UnknownFunction as error:
        module = str(function).partition(":")[0]
        if any(f"{module}.".startswith(f"{offered}.") for offered in offer.modules):
            raise ConfigError(f"{where}: {error}") from error
        return None
    try:
        sealer = Sealer(_Source(chosen), _bound(table))
        job, _ = sealer.seal(fn, tuple(table.get("args", ())), table.get("kwargs", {}))
        return define(
            name,
            table["expression"],
            job,
            timezone=table.get("timezone", "UTC"),
            catch_up=table.get("catch_up", "one"),
            now=0.0,
        )
    except (GooseError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _bound(table: Mapping[str, Any]) -> Options:
    retry, timeout = table.get("retry"), table.get("timeout")
    return options(
        queue=table.get("queue"),
        group=table.get("group"),
        retry=None if retry is None else parse_retry(retry),
        timeout=None if timeout is None else limit(timeout),
    )
