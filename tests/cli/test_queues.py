"""``goose queues``: counts and ages at one glance, on any width of terminal."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from goose.cli.showing import lasting, print_table
from goose.clients import Client
from tests.cli.conftest import send


def test_counts_by_state(shop: Any, cli: Any) -> None:
    """A line for each queue, with how many jobs are in each state."""
    shop.ready(3, queue="mail")
    shop.scheduled()
    shop.running()
    shop.dead(2)

    lines = cli("queues").out.splitlines()

    assert ["queue", "ready", "running", "scheduled", "dead", "oldest"] == lines[0].split()
    assert ["busy", "0", "1", "0", "0"] == lines[1].split()
    assert ["default", "0", "0", "1", "2"] == lines[2].split()
    assert ["mail", "3", "0", "0", "0", "0", "s"] == lines[3].split()


def test_groups_are_listed(shop: Any, cli: Any) -> None:
    """Those with ready jobs, each once; a queue without any is no failure."""
    shop.client.using(group="acme").enqueue_many(send, [("a",), ("b",)])
    shop.client.using(group="globex").enqueue(send, "c")

    assert ["acme", "globex"] == cli("queues", "groups", "default").out.split()
    [first] = cli("queues", "groups", "default", "--limit", "1", "--json").json
    assert "group" in first
    done = cli("queues", "groups", "mail")
    assert (0, "") == (done.code, done.out)
    assert "no job with a group" in done.err


def test_json_has_the_documented_keys(shop: Any, cli: Any) -> None:
    """Numbers are numbers; the age is null where nothing is ready."""
    shop.ready()
    shop.running()

    busy, default = cli("queues", "--json").json

    keys = ["queue", "ready", "running", "scheduled", "dead", "oldest_seconds", "circuit"]
    assert keys == list(busy) == list(default)
    assert (1, None, 1) == (busy["running"], busy["oldest_seconds"], default["ready"])
    assert 0 <= default["oldest_seconds"] < 60


def test_no_queue_names_the_broker(shop: Any, cli: Any) -> None:
    """Nothing to show is no failure."""
    done = cli("queues")

    assert (0, "") == (done.code, done.out)
    assert shop.url in done.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (59.9, "59 s"),
        (60, "1 m"),
        (3_725, "1 h 2 m"),
        (86_400, "1 d"),
        (90_000_000, "1,041 d 16 h"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    """The two largest units say enough."""
    assert text == lasting(seconds)


class Screen(io.StringIO):
    """An output somebody looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("columns", "drawn"), [("120", True), ("40", False)])
def test_a_table_is_drawn_only_where_it_fits(
    monkeypatch: pytest.MonkeyPatch, columns: str, drawn: bool
) -> None:
    """On a terminal rich draws it; where that would cut an id, it is written out in full."""
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")

    print_table([{"id": "0" * 36, "what": "[bold]no markup"}])

    assert drawn is ("─" in screen.getvalue())
    assert "0" * 36 in screen.getvalue()
    assert "[bold]no markup" in screen.getvalue()


def test_without_rich_it_is_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets the aligned lines when rich is not installed."""
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr("goose.cli.showing.find_spec", lambda _: None)

    print_table([{"queue": "a", "ready": "10"}, {"queue": "longer", "ready": "2"}])

    assert ["queue   ready", "a          10", "longer      2"] == screen.getvalue().splitlines()


def test_looking_makes_no_database(cli: Any, own_folder: Path) -> None:
    """A database that is not there is told about and not made, and nothing is in it."""
    with Client("memory://") as client:
        client.enqueue(lasting, 1.0)  # what this process has elsewhere is not shown instead
    done = cli("queues", "--json", "--broker", f"sqlite:///{own_folder}/typo.db")

    assert [] == done.json
    assert "typo.db does not exist" in done.err
    assert not (own_folder / "typo.db").exists()


def test_a_quoted_name_is_the_file_it_means(cli: Any, own_folder: Path) -> None:
    """A blank in the name of a database is written %20 in its URL, for looking as for enqueueing."""
    url = f"sqlite:///{own_folder}/two%20words.db"
    with Client(url) as client:
        client.enqueue(lasting, 1.0)
    done = cli("queues", "--json", "--broker", url)

    assert ["default"] == [found["queue"] for found in done.json]
    assert "" == done.err


def test_a_wrong_url_is_told_though_no_file_is_there(cli: Any) -> None:
    """A misspelt option is not passed over because there is no database yet."""
    done = cli("queues", "--broker", "sqlite:///none.db?synchronos=full")

    assert 2 == done.code
    assert "did you mean 'synchronous'?" in done.err


def test_how_circuits_stand(shop: Any, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that has a circuit shows it, as the workers have written it into the store."""
    monkeypatch.setenv("GOOSE_CIRCUIT", '{"default": 3, "busy": 3}')
    shop.ready()
    shop.running()
    store = shop.client.store
    until = store.now() + 100
    store.put("circuit:{busy}", json.dumps({"pause": 100.0, "until": until}).encode())

    busy, default = cli("queues", "--json").json
    assert "closed" == default["circuit"]
    assert busy["circuit"].startswith("open, tries one in 1 m")
    assert "circuit" in cli("queues").out
    shop.client.close()
