"""The conformance suite fails for brokers that break a promise, and only for them."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import pytest

from goose.brokers.base import Broker
from goose.brokers.sqlite import SQLiteBroker
from goose.testing import BrokerSuite
from tests.testing import broken_brokers, broken_details, broken_sessions
from tests.testing.broken_brokers import Good
from tests.testing.broken_details import WITHIN

CAUGHT_BY = {
    **broken_brokers.CAUGHT_BY,
    **broken_sessions.CAUGHT_BY,
    **broken_details.CAUGHT_BY,
}

MISTAKES = (pytest.skip.Exception, AttributeError, TypeError, NameError)
"""What would tell of a mistake in the broken broker, or of a test that did not run."""

_numbers = itertools.count()


class Suite(BrokerSuite):
    """Points at any of the broken brokers, under a clock that the tests turn."""

    lull = 0.02

    def __init__(self, kind: type[Good]) -> None:
        self.kind = kind
        # The broken ones let the suite wait for what never comes.
        self.patience = 5.0 if kind is Good else 0.25
        self.prompt = self.patience
        self.now = 1_000_000.0
        self.url = f"memory://broken-{next(_numbers)}"

    def make_broker(self) -> Broker:
        return self.kind(self.url, clock=self.clock)

    def reopen(self, broker: Broker) -> Broker:
        return self.kind(self.url, clock=self.clock)

    def other_namespace(self, broker: Broker) -> Broker:
        return self.kind(self.url, clock=self.clock, namespace="other")

    def make_keeping(self, *, dead_max_age: float, dead_max_count: int) -> Broker:
        return self.kind(clock=self.clock, dead_max_age=dead_max_age, dead_max_count=dead_max_count)

    def advance(self, broker: Broker, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now


def run(kind: type[Good], promise: str) -> None:
    """Run one test of the suite on a broker of *kind*."""
    suite = Suite(kind)
    getattr(suite, f"test_{promise}")(suite.make_broker())


@pytest.mark.parametrize("promise", sorted(set(CAUGHT_BY.values())))
def test_a_good_broker_passes(promise: str) -> None:
    """The tests that catch the broken brokers pass for the one they are made from."""
    run(Good, promise)


@pytest.mark.parametrize("kind", CAUGHT_BY, ids=lambda kind: kind.__name__)
def test_a_broken_broker_fails(kind: type[Good]) -> None:
    """The suite fails for a broker that breaks one promise, in the test of that promise."""
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        run(kind, CAUGHT_BY[kind])

    assert not isinstance(caught.value, MISTAKES)


class SuiteWithin(BrokerSuite):
    """Points at a broker on a file, whose transactions callers may join."""

    lull = 0.02
    delay = 0.05

    def __init__(self, kind: type[SQLiteBroker]) -> None:
        # The broken ones let the suite wait for what never comes.
        self.patience = 5.0 if kind is SQLiteBroker else 0.5
        self.opened: list[sqlite3.Connection] = []

    def connection(self, broker: Broker) -> sqlite3.Connection:
        assert isinstance(broker, SQLiteBroker)
        self.opened.append(sqlite3.connect(broker.options.path))
        return self.opened[-1]


def run_within(kind: type[SQLiteBroker], promise: str, folder: Path) -> None:
    """Run one test of the suite on a broker of *kind* with a file in *folder*."""
    suite, broker = SuiteWithin(kind), kind(folder / "jobs.db")
    try:
        getattr(suite, f"test_{promise}")(broker)
    finally:
        for connection in suite.opened:
            connection.close()
        broker.close()


@pytest.mark.parametrize("promise", sorted(set(WITHIN.values())))
def test_a_good_broker_joins_a_transaction(promise: str, own_folder: Path) -> None:
    """The tests that catch those that do not join it pass for the one they are made from."""
    run_within(SQLiteBroker, promise, own_folder)


@pytest.mark.parametrize("kind", WITHIN, ids=lambda kind: kind.__name__)
def test_a_broker_beside_the_transaction_fails(kind: type[SQLiteBroker], own_folder: Path) -> None:
    """The suite fails for a broker whose jobs do not share the fate of the caller's transaction."""
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        run_within(kind, WITHIN[kind], own_folder)

    assert not isinstance(caught.value, MISTAKES)
