"""From a URL or a broker to its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from goose.brokers import connect as connect_broker
from goose.errors import BrokerError, ConfigError, Unsupported
from goose.stores import beside, connect
from goose.stores.base import Store, group_of
from goose.stores.memory import MemoryStore
from goose.stores.sqlite import SQLiteStore


class Storeless:
    """A broker that has no store."""


@pytest.mark.parametrize("url", ["memory://meeting", "sqlite:///{}/kept.db"])
def test_a_brokers_store_is_the_one_of_its_url(url: str, tmp_path: Path) -> None:
    """The store a broker opens and the one its URL names hold the same values."""
    url = url.format(tmp_path)
    broker = connect_broker(url)
    own, named = beside(broker), connect(url)
    assert isinstance(own, MemoryStore | SQLiteStore)
    own.put("k", b"1")

    assert [("k", b"1")] == list(named.scan("k"))
    assert isinstance(named, Store)
    for each in (own, named, broker):
        each.close()


def test_a_broker_without_a_store_names_the_way_out(tmp_path: Path) -> None:
    """Without a store there is an error that says what to set; with one set it is used."""
    with pytest.raises(Unsupported, match=r"Storeless has no store .* goose\.configure\(store="):
        beside(Storeless())  # type: ignore[arg-type]

    chosen = beside(Storeless(), f"sqlite:///{tmp_path}/kept.db")  # type: ignore[arg-type]
    assert isinstance(chosen, SQLiteStore)
    chosen.close()


def test_a_scheme_of_its_own_is_enough() -> None:
    """A broker named by a URL has the store that is registered for that scheme."""
    assert isinstance(
        beside(Storeless(), broker_url="memory://third-party"),  # type: ignore[arg-type]
        MemoryStore,
    )


@pytest.mark.parametrize(("url", "told"), [("redi://x", "did you mean 'redis'"), ("x", "URL")])
def test_a_wrong_url_says_what_is_wrong(url: str, told: str) -> None:
    """An unknown scheme and a text that is no URL are told apart."""
    with pytest.raises(ConfigError, match=told):
        connect(url)


def test_a_closed_store_refuses() -> None:
    """After `close` the object cannot be used, and closing twice is no harm."""
    store = MemoryStore("memory://closing-store")
    store.close()
    store.close()

    with pytest.raises(BrokerError, match="closed"):
        store.get("k")


@pytest.mark.parametrize(
    ("key", "group"),
    [("a", "a"), ("a{b}c", "b"), ("{b}{c}", "b"), ("a{}c", "a{}c"), ("a{b", "a{b"), ("}a{b}", "b")],
)
def test_the_group_of_a_key(key: str, group: str) -> None:
    """It is what stands in the first braces, if anything does, else the whole key."""
    assert group == group_of(key)
