"""``goose cron``: entries listed, shown and changed from a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import State


def send(to: str, *, subject: str = "") -> None: ...


@pytest.fixture
def entry(shop: Any) -> Any:
    """The shop's client, with one entry."""
    shop.client.using(timezone="Europe/Berlin", queue="mail").cron(
        "morning", "0 9 * * MON-FRI", send, "a\x1bda", subject="Hi"
    )
    return shop.client


def test_list_shows_what_comes_next(entry: Any, cli: Any) -> None:
    """A line for each entry, its next instant in its time zone, and how far away that is."""
    head, line = cli("cron", "list").out.splitlines()

    assert ["name", "expression", "timezone", "function", "next"] == head.split()
    assert line.startswith("morning  0 9 * * MON-FRI  Europe/Berlin")
    assert " 09:00:00+0" in line
    assert " in " in line


def test_json_has_the_documented_keys(entry: Any, cli: Any) -> None:
    """Listing and showing give the same keys, and as many instants as are asked for."""
    [listed] = cli("cron", "list", "--json").json
    [shown] = cli("cron", "show", "morning", "--next", "3", "--json").json

    keys = "name expression timezone catch_up paused function args kwargs queue last next upcoming"
    assert keys.split() == list(listed) == list(shown)
    assert (["a\x1bda"], {"subject": "Hi"}, "mail") == (
        shown["args"],
        shown["kwargs"],
        shown["queue"],
    )
    assert (1, 3) == (len(listed["upcoming"]), len(shown["upcoming"]))
    assert listed["next"].endswith("+00:00")


def test_show_prints_everything_harmlessly(entry: Any, cli: Any) -> None:
    """A line for each field, five instants, and no control character."""
    out = cli("cron", "show", "morning").out

    assert 5 == out.count("09:00:00+0")
    assert "\x1b" not in out
    assert "one" in out


def test_pause_resume_run_and_delete(entry: Any, cli: Any, shop: Any) -> None:
    """Each verb does what it says and tells it."""
    assert "morning is paused\n" == cli("cron", "pause", "morning").out
    assert "paused" in cli("cron", "list").out
    [paused] = cli("cron", "show", "morning", "--json").json
    assert (True, None) == (paused["paused"], paused["next"])
    assert cli("cron", "resume", "morning").out.startswith("morning fires next 2")
    job_id = cli("cron", "run", "morning").out.strip()
    assert State.READY == shop.state(job_id)
    [other] = cli("cron", "run", "morning", "--json").json
    assert State.READY == shop.state(other["id"])

    assert 2 == cli("cron", "delete", "morning").code
    assert 1 == cli("cron", "delete", "morning", types="n\n").code
    assert "morning is deleted\n" == cli("cron", "delete", "morning", "--yes").out
    assert [] == cli("cron", "list", "--json").json
    assert "no cron entry" in cli("cron", "list").err


def test_an_unknown_entry_is_a_usage_error(entry: Any, cli: Any) -> None:
    """A name that is not there ends with 2 and says which there are."""
    for verb in (("show",), ("pause",), ("resume",), ("run",), ("delete", "--yes")):
        done = cli("cron", verb[0], "evening", *verb[1:])
        assert 2 == done.code
        assert "there is no cron entry 'evening'; there are: morning" in done.err


def test_looking_makes_no_database(cli: Any, own_folder: Path) -> None:
    """A file that is not there is told, and not made."""
    done = cli("cron", "list", "--json", "--broker", f"sqlite:///{own_folder}/typo.db")

    assert ([], True) == (done.json, "typo.db does not exist" in done.err)
    assert [] == list(own_folder.glob("*.db"))


def test_a_broker_in_one_process_is_refused(cli: Any) -> None:
    """What lives in another process cannot be looked at."""
    assert 2 == cli("cron", "list", "--broker", "memory://").code
