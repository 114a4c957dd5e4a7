"""The RabbitMQ broker keeps the promises of the suite, on quorum and on classic queues."""

from __future__ import annotations

import time
import uuid
from typing import Any, ClassVar

import pytest

from goose.brokers.base import Broker
from goose.brokers.rabbitmq import RabbitMQBroker
from goose.testing import BrokerSuite
from goose.testing.suite import Hooks, Inspecting
from tests.servers.rabbitmq import RabbitServer


@pytest.mark.timeout(240)  # the first of them waits for a node that starts on a crowded machine
class OnRabbitMQ(Hooks):
    """On rabbitmq-server as Debian has it, each test in a namespace of its own."""

    lull = 0.05
    delay = 0.59  # which is 6 steps of the ladder, once it is rounded up
    patience = 20.0
    tells_ages = False
    options: ClassVar[dict[str, Any]] = {"quarantine": 0.3, "hold": 0.2}

    @pytest.fixture(autouse=True)
    def server(self, rabbit_server: RabbitServer) -> None:
        """The server of the tests to come."""
        self.url = rabbit_server.url

    def connect(self, namespace: str, **options: Any) -> RabbitMQBroker:
        """Return a broker of that namespace."""
        return RabbitMQBroker(self.url, namespace=namespace, **self.options, **options)

    def make_broker(self) -> RabbitMQBroker:
        return self.connect(uuid.uuid4().hex)

    def reopen(self, broker: Broker) -> RabbitMQBroker:
        return self.connect(self.namespace(broker))

    def other_namespace(self, broker: Broker) -> RabbitMQBroker:
        return self.connect(f"not-{self.namespace(broker)}")

    def rest(self, broker: Broker) -> None:
        time.sleep(0.5)  # more than `hold`, and a look every tenth of a second

    def namespace(self, broker: Broker) -> str:
        """Return where *broker* keeps its jobs."""
        assert isinstance(broker, RabbitMQBroker)
        return broker.options.namespace


class TestOnQuorumQueues(OnRabbitMQ, BrokerSuite):
    """On queues that are replicated where there is more than one node."""


class TestOnClassicQueues(OnRabbitMQ, BrokerSuite):
    """On classic queues; what is for dead jobs, or by AMQP impossible, is the same as above."""

    options: ClassVar[dict[str, Any]] = {
        "quarantine": 0.3,
        "hold": 0.2,
        "queue_type": "classic",
    }


for _name in dir(Inspecting):
    if _name.startswith("test_"):
        setattr(TestOnClassicQueues, _name, None)
