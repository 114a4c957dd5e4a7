"""``goose jobs``: what it shows, what it hides, what it changes and what it leaves alone."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import Share, State
from goose.demo.verdict import Report
from goose.jobs import Failure, decode, seal

SECRET = "canary-4711"
ALWAYS = [
    "id", "state", "queue", "group", "function", "at", "enqueued_at", "attempt", "crashes",
    "session", "failure", "problem",
]  # fmt: skip
FULL = [*ALWAYS, "args", "kwargs", "retry", "timeout", "meta", "body"]


def goose(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the real command."""
    return subprocess.run(
        [sys.executable, "-m", "goose", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_list_shows_every_state(shop: Any, cli: Any) -> None:
    """All stored jobs are listed, as a table with what an operator looks for."""
    ids = {*shop.ready(), shop.scheduled(), shop.running(), *shop.dead()}

    done = cli("jobs", "list")

    assert 0 == done.code
    assert all(id_ in done.out for id_ in ids)
    assert "in 59 m" in done.out
    assert "retries: app:Oops: no" in done.out


def test_list_says_why_a_job_was_left_or_buried(shop: Any, cli: Any) -> None:
    """What is waiting for another worker says so, and a missing part of an error no colon."""
    [one, other] = shop.ready(2)
    for id_, changes in (
        (one, {"deferred_since": 1.0}),
        (other, {"failure": Failure("", "no such user", 1.0, 1.0, "", 1.0, "buried")}),
    ):
        [delivery] = shop.broker.dequeue(shop.session, [Share("default")], limit=1, wait=0)
        assert id_ == delivery.envelope.id
        job = decode(delivery.envelope).evolve(**changes)
        if id_ == one:
            shop.broker.requeue([(delivery, seal(job, delay=60))])
        else:
            shop.broker.bury([(delivery, seal(job))])

    out = cli("jobs", "list").out

    assert "left for other workers: this function was unknown" in out
    assert "buried: no such user" in out


def test_list_as_json_has_the_documented_keys(shop: Any, cli: Any) -> None:
    """Every object has the same keys, null where nothing is known."""
    shop.ready()
    shop.dead()
    shop.garbage()
    shop.running()

    found = cli("jobs", "list", "--json").json

    assert 4 == len(found)
    assert all(list(job) == ALWAYS for job in found)
    [running] = [job for job in found if job["state"] == "running"]
    assert "holder/1" == running["session"]
    [dead] = [job for job in found if job["state"] == "dead"]
    assert "retries" == dead["failure"]["reason"]
    assert "2023-11-14T22:13:20+00:00" == dead["failure"]["died_at"]


def test_every_key_is_documented(root: Path) -> None:
    """The page on the command line names each key of each command."""
    page = (root / "docs/cli.md").read_text()
    demo = {field.name for field in dataclasses.fields(Report)} | {"jobs_per_second", "ok"}

    assert set() == {key for key in {*FULL, *demo} if f"`{key}`" not in page}


def test_arguments_are_shown_only_where_asked_for(shop: Any, cli: Any) -> None:
    """No listing has a job's arguments unless --args is given; showing one job has."""
    [id_] = shop.ready()
    shop.dead()

    for quiet in (["jobs", "list"], ["dead", "list"], ["jobs", "list", "--json"], ["queues"]):
        assert SECRET not in cli(*quiet).out
    assert f'"{SECRET}"' in cli("jobs", "list", "--args").out
    assert [SECRET] == cli("jobs", "list", "--args", "--json").json[0]["args"]
    assert SECRET in cli("jobs", "show", id_).out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--state", "dead"], 2),
        (["--queue", "mail"], 3),
        (["--state", "ready", "--queue", "mail"], 2),
        (["--function", "tests.cli.conftest:count"], 1),
        (["--older-than", "1d"], 1),
        (["--limit", "2"], 2),
        ([], 6),
    ],
)
def test_filters_narrow_a_list(shop: Any, cli: Any, options: list[str], expected: int) -> None:
    """Each filter leaves out what does not fit; scheduled jobs are as old as anybody asks."""
    shop.ready()
    shop.ready(2, queue="mail")
    shop.scheduled()
    shop.dead(queue="mail")
    shop.dead(fn=_count())

    assert expected == len(cli("jobs", "list", "--json", *options).json)


def _count() -> Any:
    from tests.cli.conftest import count

    return count


def test_more_than_the_limit_is_said(shop: Any, cli: Any) -> None:
    """A list that was cut says so, where it does not disturb a program."""
    shop.ready(3)

    assert "there are more than 2" in cli("jobs", "list", "--limit", "2").err
    assert "" == cli("jobs", "list", "--limit", "3").err


def test_an_empty_list_names_the_broker(shop: Any, cli: Any) -> None:
    """Who looks into the wrong file sees which one it was."""
    done = cli("jobs", "list")

    assert (0, "") == (done.code, done.out)
    assert f"no job in {shop.url}" in done.err
    assert [] == cli("jobs", "list", "--json").json


def test_control_characters_do_not_reach_the_terminal(shop: Any, cli: Any) -> None:
    """What a job holds cannot move the cursor or change colours."""
    [id_] = shop.dead()

    for shown in (cli("dead", "list"), cli("jobs", "show", id_)):
        assert "\x1b" not in shown.out
        assert r"\x1b[31mgood" in shown.out


def test_show_has_everything(shop: Any, cli: Any) -> None:
    """The traceback, arguments and stored bytes are there, also of a body that is no job."""
    [id_] = shop.dead()
    garbage = shop.garbage()

    dead, broken = cli("jobs", "show", id_, garbage, "--json").json

    assert FULL == list(dead) == list(broken)
    assert "a trace" == dead["failure"]["traceback"]
    assert ([SECRET], {}) == (dead["args"], dead["kwargs"])
    assert "ACBub3QgYSBqb2I=" == broken["body"]
    assert broken["problem"]
    assert "a trace" in cli("jobs", "show", id_).out
    assert "ACBub3QgYSBqb2I=" in cli("jobs", "show", garbage).out


def test_retry_makes_due_now(shop: Any, cli: Any) -> None:
    """A scheduled job is promoted and a dead one replayed; one that is ready already is fine."""
    scheduled, [dead], [ready] = shop.scheduled(), shop.dead(), shop.ready()

    results = cli("jobs", "retry", scheduled, dead, ready, "--json").json

    assert ["promoted", "replayed", "ready"] == [item["result"] for item in results]
    assert {State.READY} == {shop.state(id_) for id_ in (scheduled, dead, ready)}


def test_a_running_job_is_left_alone(shop: Any, cli: Any) -> None:
    """No verb touches a job that a worker has; the others named beside it are done."""
    running, [ready] = shop.running(), shop.ready()

    for verb in (["retry"], ["delete", "--yes"], ["prioritise"]):
        done = cli("jobs", *verb, running)
        assert 1 == done.code
        assert f"job {running} is running" in done.err
    done = cli("jobs", "delete", "--yes", running, ready)

    assert (1, State.RUNNING, None) == (done.code, shop.state(running), shop.state(ready))
    assert f"{ready}  deleted" in done.out


@pytest.mark.parametrize("verb", [["show"], ["retry"], ["delete", "--yes"], ["prioritise"]])
def test_an_unknown_id_is_a_failure(shop: Any, cli: Any, verb: list[str]) -> None:
    """Exit code 1, and the id is named with the likely reason."""
    done = cli("jobs", *verb, "no-such-id")

    assert 1 == done.code
    assert "job no-such-id is not stored here; those that are done are not kept" in done.err


def test_prioritise_moves_to_the_front(shop: Any, cli: Any) -> None:
    """The named jobs come next, in that order."""
    ids = shop.ready(4)

    assert 0 == cli("jobs", "prioritise", ids[3], ids[2]).code
    assert ids[3] == shop.first()


def test_prioritise_says_what_to_do_first(shop: Any, cli: Any) -> None:
    """A job that is not ready cannot be next; the message has the way there."""
    done = cli("jobs", "prioritise", shop.scheduled())

    assert 1 == done.code
    assert "goose jobs retry" in done.err


def test_delete_asks(shop: Any, cli: Any) -> None:
    """A no changes nothing; a yes deletes."""
    [id_] = shop.ready()

    no = cli("jobs", "delete", id_, types="n\n")
    assert (1, State.READY) == (no.code, shop.state(id_))
    assert "nothing was changed" in no.err
    yes = cli("jobs", "delete", id_, types="y\n")
    assert (0, None) == (yes.code, shop.state(id_))


def test_delete_without_somebody_to_ask_needs_yes(shop: Any, cli: Any) -> None:
    """A script has to say it; nothing is deleted and nothing hangs."""
    [id_] = shop.ready()

    done = cli("jobs", "delete", id_)

    assert (2, State.READY) == (done.code, shop.state(id_))
    assert "pass --yes" in done.err
    assert shop.url in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jobs", "list", "--older-than", "soon"], "'soon': give seconds, or a text such as"),
        (["jobs", "list", "--queue", "a b"], "cannot name a queue"),
        (["jobs", "list", "--limit", "0"], "--limit"),
        (["jobs", "list", "--state", "done"], "'scheduled', 'ready'"),
        (["jobs", "show"], "ID..."),
        (["jobs", "list", "--broker", "goose.db"], "give a URL"),
        (["jobs", "list", "--broker", "sqlit:///x.db"], "did you mean sqlite://"),
        (["queues", "--broker", "memory://"], "inside the process that uses it"),
        (["jbos"], "did you mean 'jobs'"),
    ],
)
def test_mistakes_are_usage_errors(
    own_folder: Path, cli: Any, arguments: list[str], message: str
) -> None:
    """Exit code 2, with what was wrong and what would be right."""
    done = cli(*arguments)

    assert 2 == done.code
    assert message in done.err


def test_exit_codes_of_the_real_command(own_folder: Path) -> None:
    """A shell sees 0 for done, 1 for a job that is not there, 2 for usage, 4 for a broker that refuses."""
    (own_folder / "text.db").write_text("no database at all\n" * 100)

    assert 0 == goose("jobs", "list", folder=own_folder).returncode
    assert 1 == goose("jobs", "show", "x", folder=own_folder).returncode
    assert 2 == goose("jobs", "delete", "x", folder=own_folder).returncode
    refused = goose("queues", "--broker", "sqlite:///text.db", folder=own_folder)
    assert 4 == refused.returncode
    assert "text.db" in refused.stderr
    assert "Traceback" not in refused.stderr
