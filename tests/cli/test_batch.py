"""``goose batch``: batches listed, shown, watched and changed from a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from goose.brokers.base import State


def send(to: str, *, subject: str = "") -> None: ...


@pytest.fixture
def batch(shop: Any) -> Any:
    """A batch of the shop's client, with two members that wait."""
    client = shop.client.using(name="letters", on_complete=send_report, linger=60)
    return client.enqueue_batch(send, [("ada",), ("alan",)])


def send_report() -> None: ...


def test_list_shows_how_far_each_is(batch: Any, shop: Any, cli: Any) -> None:
    """A line for each batch, those that run and those that stay open."""
    with shop.client.batch(stay_open=True) as other:
        other.enqueue(send, "grace")
    head, first, second = cli("batch", "list").out.splitlines()

    columns = "batch total remaining retrying done dead since"
    assert columns.split() == head.split()
    assert ["letters", "2", "2", "0", "0", "0", "runs"] == first.split()[:7]
    assert [other.id, "1", "1", "0", "0", "0", "open"] == second.split()[:7]


def test_json_has_the_documented_keys(batch: Any, cli: Any) -> None:
    """Listing and showing give the same keys."""
    [listed] = cli("batch", "list", "--json").json
    [shown] = cli("batch", "show", "letters", "--json").json

    keys = (
        "id name opened ended cancelled_at linger callbacks total waiting retrying done skipped "
        "dead cancelled deleted is_open remaining status"
    )
    assert keys.split() == list(listed)
    assert listed == shown
    assert (batch.id, "letters", 60.0, ["complete"], 2, None) == (
        shown["id"],
        shown["name"],
        shown["linger"],
        shown["callbacks"],
        shown["total"],
        shown["status"],
    )


def test_show_takes_an_id_and_tells_what_there_is(batch: Any, cli: Any) -> None:
    """A line for each field that says something."""
    lines = [line.split() for line in cli("batch", "show", batch.id).out.splitlines()]

    assert ["remaining", "2"] in lines
    assert ["callbacks", "complete"] in lines
    assert "dead" not in [line[0] for line in lines]


def test_watch_ends_with_the_batch(batch: Any, shop: Any, cli: Any) -> None:
    """The bar is drawn until the end; all done is 0, anything else is 1."""
    waits = cli("batch", "watch", "letters", "--timeout", "0.1")
    assert 1 == waits.code
    assert "[........................................] 0/2, 0%" in waits.out
    shop.client.inspector.purge(State.READY)
    ended = cli("batch", "watch", "letters")
    assert 1 == ended.code
    assert "[########################################] 2/2, 2 deleted, dead" in ended.out
    empty = shop.client.enqueue_batch(send, [])
    [shown] = cli("batch", "watch", empty.id, "--json").json

    assert "success" == shown["status"]


def test_cancel_and_delete_ask(batch: Any, shop: Any, cli: Any) -> None:
    """Both want a yes; a cancelled batch ends, a deleted one is gone."""
    assert 0 != cli("batch", "cancel", "letters").code
    [cancelled] = cli("batch", "cancel", "letters", "--yes", "--json").json
    assert (2, "dead") == (cancelled["cancelled"], cancelled["status"])
    assert "letters is deleted" in cli("batch", "delete", "letters", "--yes").out
    gone = cli("batch", "show", "letters")

    assert 2 == gone.code
    assert "there is no batch 'letters'" in gone.err


def test_nothing_there_is_told(shop: Any, cli: Any) -> None:
    """No batch is no error, and a database that does not exist is not made."""
    assert "there is no batch at" in cli("batch", "list").err
    assert [] == cli("batch", "list", "--json").json
