"""The conformance suite fails for brokers that break a promise, and only for them."""

from __future__ import annotations

import itertools

import pytest

from goose.brokers.base import Broker
from goose.testing import BrokerSuite
from tests.testing import broken_brokers, broken_sessions
from tests.testing.broken_brokers import Good

CAUGHT_BY = {**broken_brokers.CAUGHT_BY, **broken_sessions.CAUGHT_BY}

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

    assert not isinstance(
        caught.value, (pytest.skip.Exception, AttributeError, TypeError, NameError)
    )
