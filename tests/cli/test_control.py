"""``goose queues pause``, ``jobs cancel``, ``workers`` and ``move`` from a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import State
from goose.brokers.sqlite import SQLiteBroker
from goose.worker.embedded import Worker


def test_pause_and_resume_tell_what_is_paused(shop: Any, cli: Any) -> None:
    """Each verb does what it says, and shows what is paused after it."""
    assert "no queue is paused" in cli("queues", "paused").err
    assert cli("queues", "pause", "mail", "news").out.startswith("mail is paused since 2")
    [mail] = cli("queues", "resume", "news", "--json").json
    assert ["queue", "since"] == list(mail)
    assert ["mail"] == list(shop.client.controls.paused())
    assert 2 == cli("queues", "pause", "no good").code
    assert 2 == cli("queues", "pause").code
    # The command itself still shows the queues.
    shop.ready(queue="mail")
    assert "mail" in cli("queues").out


def test_cancel_by_id_says_what_became_of_each(shop: Any, cli: Any) -> None:
    """Queued, running, dead and unknown: each has its word, and the bad ones are told."""
    [ready], running, [dead] = shop.ready(), shop.running(), shop.dead()

    done = cli("jobs", "cancel", ready, running, dead, "nobody", "--yes", "--json")

    assert 1 == done.code
    assert f'"id": "{ready}",\n    "result": "removed"' in done.out
    assert f'"id": "{running}",\n    "result": "stopping"' in done.out
    assert f"job {dead} is dead" in done.err
    assert "nobody is not stored" in done.err
    assert [running] == list(shop.client.controls.marks())


def test_cancel_by_filter_wants_to_be_sure(shop: Any, cli: Any) -> None:
    """Without ids, options or --all nothing is cancelled, nor without an answer."""
    shop.ready(2, queue="mail")
    [other] = shop.ready()
    assert 2 == cli("jobs", "cancel", "--yes").code
    assert 2 == cli("jobs", "cancel", other, "--all", "--yes").code
    assert 1 == cli("jobs", "cancel", "--queue", "mail", types="n\n").code
    assert 2 == len(cli("jobs", "cancel", "--queue", "mail", "--yes", "--json").json)
    assert State.READY is shop.state(other)
    none = cli("jobs", "cancel", "--queue", "nosuch", "--yes")
    assert (0, "", "no job fits\n") == (none.code, none.out, none.err)
    unasked = cli("jobs", "cancel", other)
    assert 2 == unasked.code
    assert "this needs a yes, and there is no terminal to ask on: pass --yes" in unasked.err
    assert "removed" in cli("jobs", "cancel", "--all", "--yes").out
    assert shop.state(other) is None


def test_workers_are_listed_and_set(shop: Any, cli: Any, wait_until: Any, importable: Path) -> None:
    """A worker at work is shown, is told how to work, and does."""
    (importable / "cli_control_app.py").write_text("def note(): ...\n")
    assert "no worker of sqlite" in cli("workers", "list").err
    assert "nothing is set" in cli("workers", "orders").err
    with Worker(shop.url, allow=["cli_control_app"], concurrency=2):
        [listed] = cli("workers", "list", "--json").json
        keys = "id name pid queues paused concurrency async_concurrency processes log_level running"
        assert [*keys.split(), "started_at", "version"] == list(listed)
        assert (2, {"default": 0}) == (listed["concurrency"], listed["queues"])
        assert listed["processes"] is None
        refused = cli("workers", "set", listed["name"], "--processes", "3")
        assert 2 == refused.code
        assert "has no supervisor that takes such orders" in refused.err
        head, line = cli("workers", "list").out.splitlines()
        assert head.startswith("name")
        assert line.startswith(listed["name"])
        done = cli("workers", "set", listed["name"], "--concurrency", "5", "--queues", "a=2,b=1")
        assert f"{listed['name']}  concurrency = 5, queues = a=2,b=1\n" == done.out
        wait_until(lambda: cli("workers", "list", "--json").json[0]["concurrency"] == 5)
    [told] = cli("workers", "orders", "--json").json
    assert (5, None, None, {"a": 2, "b": 1}) == (
        told["concurrency"], told["async_concurrency"], told["processes"], told["queues"],
    )  # fmt: skip
    assert "nothing is set" in cli("workers", "reset").err


@pytest.mark.parametrize(
    "arguments",
    [("set",), ("set", "nobody:1", "--concurrency", "2"), ("set", "--log-level", "loud"),
     ("set", "--queues", "a=1,b"), ("set", "--concurrency", "0"), ("set", "--processes", "0"),
     ("set", "--processes", "257"), ("set", "--processes", "many")],
)  # fmt: skip
def test_a_wrong_order_is_a_usage_error(shop: Any, cli: Any, arguments: tuple[str, ...]) -> None:
    """What no worker could follow ends with 2 and changes nothing."""
    shop.ready()
    assert 2 == cli("workers", *arguments).code
    assert [] == cli("workers", "orders", "--json").json


def test_processes_are_ordered_for_all_that_have_a_supervisor(shop: Any, cli: Any) -> None:
    """The number is shown among what is set, to people and to programs."""
    shop.ready()
    assert "web-*  processes = 4\n" == cli("workers", "set", "web-*", "--processes", "4").out
    [told] = cli("workers", "orders", "--json").json

    assert {"workers": "web-*", "processes": 4, "concurrency": None, "async_concurrency": None,
            "queues": None, "log_level": None} == told  # fmt: skip


def test_move_tells_how_many(shop: Any, cli: Any, own_folder: Path) -> None:
    """Ready and scheduled jobs are in the other place, and the numbers are told."""
    shop.ready(3)
    shop.scheduled()
    url = f"sqlite:///{own_folder}/other.db"

    assert "moved 4 jobs: 3 ready, 1 scheduled\n" == (
        cli("move", "--queue", "default", "--to", url, "--to-queue", "new").out
    )
    other = SQLiteBroker(url)
    assert (3, 1) == (other.count(State.READY, "new"), other.count(State.SCHEDULED, "new"))
    other.close()
    [none] = cli("move", "--queue", "default", "--to", url, "--json").json
    assert {"ready": 0, "scheduled": 0, "left": 0} == none
    assert 2 == cli("move", "--queue", "default").code


def test_a_broker_in_one_process_is_refused(cli: Any) -> None:
    """Nobody outside can give orders to what lives in another process."""
    for command in (("queues", "paused"), ("workers", "list"), ("jobs", "cancel", "x", "--yes")):
        assert 2 == cli(*command, "--broker", "memory://").code


def test_limits_are_set_and_taken_back(shop: Any, cli: Any) -> None:
    """Rates are told by any time, and what is set is shown."""
    shop.ready()
    assert "nothing is set" in cli("limits", "list").err
    done = cli("limits", "set", "queue:mail", "--rate", "50/m", "--concurrency", "2")
    assert "queue:mail  rate = 50 in 60 s, concurrency = 2\n" == done.out
    [told] = cli("limits", "set", "queue:mail", "--rate", "7/30s", "--json").json
    assert {"name": "queue:mail", "rate": 7.0, "per": 30.0, "concurrency": None} == told
    assert "nothing is set" in cli("limits", "reset", "queue:mail").err
    for wrong in (["--rate", "fast"], ["--rate", "0"], ["--concurrency", "0"], []):
        assert 2 == cli("limits", "set", "queue:mail", *wrong).code


@pytest.mark.parametrize(
    "command",
    [("queues",), ("jobs", "list"), ("dead", "list"), ("migrate",), ("cron", "list"), ("demo",),
     ("workers", "list"), ("batch", "list"), ("worker", "app"), ("doctor",),
     ("move", "--queue", "default", "--to", "sqlite:///other.db")],
)  # fmt: skip
def test_an_empty_broker_is_refused(shop: Any, cli: Any, command: tuple[str, ...]) -> None:
    """A script whose variable is not set is told so, and never gets at the configured broker."""
    [id_] = shop.ready()

    done = cli(*command, "--broker", "")

    assert (1 if command == ("doctor",) else 2) == done.code
    assert "''" in done.out + done.err
    assert id_ not in done.out
    assert State.READY is shop.state(id_)
