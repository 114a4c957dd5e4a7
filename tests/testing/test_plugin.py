"""The fixture that gives users Redis without a server."""

from __future__ import annotations

import sys

import pytest

import goose
from goose.brokers.base import State
from goose.brokers.redis import RedisBroker
from goose.testing import assert_enqueued, drain
from goose.testing.plugin import goose_redis_broker as fixture


def double(number: int) -> int:
    """Do something."""
    return 2 * number


@pytest.mark.parametrize("time", ["first", "second"])
def test_a_redis_broker_without_a_server(goose_redis_broker: RedisBroker, time: str) -> None:
    """Enqueues go to it by default, jobs run from it, and the next test finds it empty."""
    assert 0 == sum(goose_redis_broker.count(state) for state in State)

    goose.enqueue(double, 21)
    goose.enqueue_in(3600, double, 4)

    assert_enqueued(double, 21)
    assert 1 == goose_redis_broker.count(State.READY)
    assert [42] == [run.result for run in drain().runs]
    assert 1 == goose_redis_broker.count(State.SCHEDULED)


@pytest.mark.parametrize("missing", ["fakeredis", "lupa"])
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Without fakeredis, or without its Lua, the error has the line that installs both."""
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(goose.MissingDriver, match=rf"'{missing}'.*'fakeredis\[lua\]'$"):
        next(fixture.__wrapped__())
