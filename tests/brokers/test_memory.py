"""The memory broker keeps every promise, and a few of its own."""

from __future__ import annotations

from goose.brokers.base import Broker
from goose.brokers.memory import MemoryBroker
from goose.testing import BrokerSuite


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class TestMemoryBroker(BrokerSuite):
    """Under a clock that the tests turn, so that nothing is waited for."""

    lull = 0.01
    patience = 5.0

    made = 0

    def make_broker(self) -> MemoryBroker:
        type(self).made += 1
        self.time = Clock()
        self.url = f"memory://suite-{type(self).__name__}-{self.made}"
        return MemoryBroker(self.url, clock=self.time)

    def reopen(self, broker: Broker) -> MemoryBroker:
        return MemoryBroker(self.url, clock=self.time)

    def other_namespace(self, broker: Broker) -> MemoryBroker:
        return MemoryBroker(self.url, clock=self.time, namespace="other")

    def make_keeping(self, *, dead_max_age: float, dead_max_count: int) -> MemoryBroker:
        return MemoryBroker(
            clock=self.time, dead_max_age=dead_max_age, dead_max_count=dead_max_count
        )

    def advance(self, broker: Broker, seconds: float) -> None:
        self.time.now += seconds

    def clock(self) -> float:
        return self.time.now


class TestInRealTime(BrokerSuite):
    """By its URL, with the clocks of the machine."""

    lull = 0.01
    ttl = 0.05
    delay = 0.2
    patience = 5.0
    made = 0

    def make_broker(self) -> MemoryBroker:
        type(self).made += 1
        self.url = f"memory://suite-{type(self).__name__}-{self.made}"
        return MemoryBroker(self.url)

    def reopen(self, broker: Broker) -> MemoryBroker:
        return MemoryBroker(self.url)

    def other_namespace(self, broker: Broker) -> MemoryBroker:
        return MemoryBroker(f"{self.url}?namespace=other")

    def make_keeping(self, *, dead_max_age: float, dead_max_count: int) -> MemoryBroker:
        return MemoryBroker(
            f"memory://?namespace=keeping-{self.made}&dead_max_age={dead_max_age}&dead_max_count={dead_max_count}"
        )
