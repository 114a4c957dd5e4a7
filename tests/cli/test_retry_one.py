"""``goose dead retry-one``: one dead job runs again, in the command's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import goose
from goose.brokers.base import State
from tests.cli.conftest import Shop, count

ran: list[int] = []


def note(n: int) -> None:
    ran.append(n)


def deeply(n: int) -> None:
    raise ZeroDivisionError(f"no {n}")


def fail(n: int) -> None:
    deeply(n)


def told(*_: object) -> None:
    pytest.fail("a callback was called")


@pytest.fixture(autouse=True)
def clean() -> None:
    """Forget what ran before."""
    ran.clear()


MODULE = ("--module", "tests.cli.test_retry_one")


def test_a_job_that_is_done_now_leaves_the_dead(shop: Shop, cli: Any) -> None:
    """The one that is dead for longest runs; the others stay."""
    first, second = shop.dead(2, fn=note)

    done = cli("dead", "retry-one", *MODULE)
    assert 0 == done.code, done.err
    assert f"job {first} is done" in done.out
    assert [0] == ran
    assert (None, State.DEAD) == (shop.state(first), shop.state(second))


def test_a_job_that_fails_shows_why_and_stays(shop: Shop, cli: Any) -> None:
    """The whole traceback is printed, its policy's callbacks are not called, nothing is stored."""
    policy = goose.Retry(on_error=told, on_death=told, max_retries=0)
    shop.client = shop.client.using(retry=policy)  # type: ignore[assignment]
    first, second = shop.dead(2, fn=fail)
    before = shop.broker.find(second)

    done = cli("dead", "retry-one", second, *MODULE)
    assert 1 == done.code
    assert "in deeply" in done.out
    assert "ZeroDivisionError: no 1" in done.out
    assert "stays dead" in done.err
    assert before == shop.broker.find(second)

    listed = cli("dead", "retry-one", first, *MODULE, "--json")
    assert 1 == listed.code
    assert '"result": "failed"' in listed.out


def test_what_cannot_be_run_is_said(shop: Shop, cli: Any, own_folder: Path) -> None:
    """A job that is not there or not dead, a module that is not named, one that has no such function."""
    [ready], [dead] = shop.ready(), shop.dead(fn=count)

    assert "there is no dead job nobody in " in cli("dead", "retry-one", "nobody").err
    nothing = cli("dead", "retry-one", "--queue", "empty")
    assert (1, True) == (nothing.code, "there is no dead job of queue empty in " in nothing.err)
    assert 1 == cli("dead", "retry-one", ready).code
    assert "--module" in cli("dead", "retry-one", dead).err
    unknown = cli("dead", "retry-one", dead, *MODULE)
    assert (1, State.DEAD) == (unknown.code, shop.state(dead))
    assert 2 == cli("dead", "retry-one", dead, "--queue", "mail").code
