"""From a URL, or from a broker, to the store it names.

The scheme of a URL is the name of an entry point in the group ``goose.stores``; the entry point
loads a callable that takes the whole URL and returns a `Store`. Without a URL it is the
broker's own store: the one it opens itself, or the one registered for the scheme of its URL.
"""

from __future__ import annotations

import threading

from goose import plugins
from goose.brokers import name_of, redact
from goose.brokers.base import Broker
from goose.errors import ConfigError, Unsupported
from goose.stores.base import Keeper, Store

GROUP = "goose.stores"
"""The entry-point group in which packages register store schemes."""


def connect(url: str) -> Store:
    """Return the store that *url* names. It connects when it is first used.

    Raises:
        MissingDriver: The package it needs is not installed.
        ConfigError: The scheme is unknown, or the URL or one of its options is wrong.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ConfigError(f"store {redact(url)!r} is not a URL; write for example redis://host/0")
    store = plugins.find(GROUP, scheme.lower(), kind="store")(url)
    if not isinstance(store, Store):
        raise ConfigError(
            f"what is registered for {scheme}:// stores made a {type(store).__name__}, which lacks "
            "methods of a store"
        )
    return store


def beside(broker: Broker, url: str | None = None, *, broker_url: object = None) -> Store:
    """Return the store at *url*, or else the one of *broker*.

    Args:
        broker: Where the jobs are.
        url: The setting ``store``.
        broker_url: How *broker* was named, if by a URL.

    Raises:
        Unsupported: *broker* has no store, and none is configured.
        ConfigError: As `connect`.
    """
    if url is not None:
        return connect(url)
    if isinstance(broker, Keeper):
        return broker.open_store()
    if isinstance(broker_url, str) and _is_known(broker_url.partition("://")[0]):
        return connect(broker_url)
    raise Unsupported(
        f"{name_of(broker)} has no store of its own for what is not a job; name one, for example "
        'goose.configure(store="redis://localhost:6379/0") or store="sqlite:///goose.db"'
    )


class OnDemand:
    """The store of one process, made when it is first asked for. Thread-safe.

    Args:
        broker: As for `beside`, like what follows.
        url: The setting ``store``.
        broker_url: How *broker* was named, if by a URL.
    """

    def __init__(
        self, broker: Broker, url: str | None = None, *, broker_url: object = None
    ) -> None:
        self._broker = broker
        self._url = url
        self._broker_url = broker_url
        self._store: Store | None = None
        self._lock = threading.Lock()

    def open(self) -> Store:
        """Return it, always the same one.

        Raises:
            Unsupported: As `beside`, like the rest.
        """
        store = self._store
        if store is None:
            with self._lock:
                store = self._store or beside(self._broker, self._url, broker_url=self._broker_url)
                self._store = store
        return store

    def close(self) -> None:
        """Close it, if it was made; may be called twice."""
        if self._store is not None:
            self._store.close()


def _is_known(scheme: str) -> bool:
    from importlib.metadata import entry_points

    return scheme.lower() in entry_points(group=GROUP).names


__all__ = ["GROUP", "Keeper", "OnDemand", "Store", "beside", "connect"]
