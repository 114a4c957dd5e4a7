"""``goose dead``: finding, replaying and removing jobs that were given up."""

from __future__ import annotations

from typing import Any

import pytest

from goose.brokers.base import State
from goose.jobs import decode
from tests.cli.conftest import count


def left(shop: Any) -> int:
    return int(shop.broker.count(State.DEAD))


def test_list_has_only_dead_jobs(shop: Any, cli: Any) -> None:
    """Other jobs are not in it."""
    dead = shop.dead(2)
    shop.ready()

    assert dead == [job["id"] for job in cli("dead", "list", "--json").json]


def test_show_refuses_what_is_not_dead(shop: Any, cli: Any) -> None:
    """A dead job is shown whole; a ready one named beside it is not, with exit code 1."""
    [dead], [ready] = shop.dead(), shop.ready()

    done = cli("dead", "show", dead, ready)

    assert 1 == done.code
    assert "a trace" in done.out
    assert f"job {ready} is ready, not dead" in done.err


def test_pop_removes_and_prints_the_oldest(shop: Any, cli: Any) -> None:
    """One job unless more are asked for, with all that was stored, so that nothing is lost."""
    ids = shop.dead(3)

    [popped] = cli("dead", "pop", "--yes", "--json").json
    assert (ids[0], 2) == (popped["id"], left(shop))
    assert popped["body"]
    assert ids[1:] == [job["id"] for job in cli("dead", "pop", "--limit", "9", "-y", "--json").json]
    assert 0 == left(shop)


def test_pop_by_id(shop: Any, cli: Any) -> None:
    """Exactly that job; one that is not dead stays, with exit code 1."""
    ids, [ready] = shop.dead(2), shop.ready()

    done = cli("dead", "pop", "--yes", ids[1], ready)

    assert 1 == done.code
    assert ids[1] in done.out
    assert (State.DEAD, None, State.READY) == tuple(map(shop.state, [*ids, ready]))


def test_pop_of_nothing_says_so(shop: Any, cli: Any) -> None:
    """With no dead job there is nothing to ask, nothing to print, and no failure."""
    done = cli("dead", "pop")

    assert (0, "") == (done.code, done.out)
    assert "no such dead job" in done.err


def test_replay_makes_ready_again(shop: Any, cli: Any) -> None:
    """Its counts start again and its history stays."""
    [id_] = shop.dead()

    assert [{"id": id_, "result": "replayed"}] == cli("dead", "replay", id_, "--json").json
    job = decode(shop.broker.find(id_).envelope)
    assert (State.READY, 0) == (shop.state(id_), job.attempt)
    assert job.failure is not None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--all"], 6),
        (["--limit", "4"], 4),
        (["--queue", "mail"], 3),
        (["--function", "tests.cli.conftest:count"], 1),
        (["--queue", "mail", "--limit", "1"], 1),
        (["--older-than", "0s", "--all"], 6),
        (["--older-than", "1d"], 0),
    ],
)
@pytest.mark.parametrize("verb", [["replay"], ["purge", "--yes"]])
def test_filters_choose_what_is_changed(
    shop: Any, cli: Any, verb: list[str], options: list[str], expected: int
) -> None:
    """Replay and purge take what fits, and nothing else."""
    shop.dead(2)
    shop.dead(3, queue="mail")
    shop.dead(fn=count)

    done = cli("dead", *verb, *options)

    assert 0 == done.code
    assert (6 - expected, f"{expected} dead job") == (left(shop), done.out.split("ed ", 1)[1][:10])


@pytest.mark.parametrize("verb", ["replay", "purge"])
def test_all_of_them_has_to_be_said(shop: Any, cli: Any, verb: str) -> None:
    """Without ids, filters or --all nothing is changed."""
    shop.dead()

    done = cli("dead", verb)

    assert (2, 1) == (done.code, left(shop))
    assert "or --all" in done.err


@pytest.mark.parametrize(
    "arguments",
    [["replay", "x", "--all"], ["purge", "x", "--limit", "1"], ["pop", "x", "--queue", "q"]],
)
def test_ids_and_filters_do_not_mix(shop: Any, cli: Any, arguments: list[str]) -> None:
    """What would be meant is not guessed."""
    done = cli("dead", *arguments)

    assert 2 == done.code
    assert "not both" in done.err


@pytest.mark.parametrize("verb", [["purge", "--all"], ["pop", "--limit", "2"]])
def test_what_destroys_asks_with_the_number(shop: Any, cli: Any, verb: list[str]) -> None:
    """The question says how many jobs of which broker; no leaves all, nobody to ask is exit code 2."""
    shop.dead(2)

    no = cli("dead", *verb, types="n\n")
    nobody = cli("dead", *verb)

    assert (1, 2, 2) == (no.code, nobody.code, left(shop))
    assert f"2 dead jobs from {shop.url}?" in no.err
    assert "--yes" in nobody.err
    assert 0 == cli("dead", *verb, types="y\n").code
    assert 0 == left(shop)


def test_many_are_changed_in_pages(shop: Any, cli: Any) -> None:
    """More jobs than one call to the broker takes are all changed."""
    ids = shop.dead(450)

    assert 450 == len(cli("dead", "replay", "--all", "--json").json)
    assert {State.READY} == {shop.state(id_) for id_ in ids}


def test_a_job_that_moved_while_it_was_asked_stays(
    shop: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question and the answer somebody replays a job: it is not deleted."""
    ids = shop.dead(2)

    def answer(*_: Any, **__: Any) -> None:
        shop.client.inspector.replay([ids[0]])

    monkeypatch.setattr("goose.cli.dead.confirm", answer)
    done = cli("dead", "purge", "--all")

    assert (0, "deleted 1 dead job\n") == (done.code, done.out)
    assert (State.READY, None) == (shop.state(ids[0]), shop.state(ids[1]))
