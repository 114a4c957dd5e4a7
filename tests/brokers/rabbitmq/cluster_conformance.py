"""The promises of the suite on a cluster of three: ``make cluster``.

Not collected with the others, since three nodes take a minute to come together.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers.rabbitmq.test_rabbitmq_conformance import TestOnQuorumQueues as OnQuorumQueues
from tests.servers.rabbitmq_cluster import RabbitCluster


@pytest.fixture(scope="session")
def rabbit_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitCluster]:
    """Three nodes."""
    with RabbitCluster(tmp_path_factory.mktemp("rabbitmq-cluster")) as cluster:
        yield cluster


@pytest.mark.timeout(240)
class TestOnCluster(OnQuorumQueues):
    """On quorum queues of three members, through whichever node answers."""

    delay = 1.19  # a hop between nodes takes longer

    @pytest.fixture(autouse=True)
    def server(self, rabbit_cluster: RabbitCluster) -> None:
        """The servers of the tests to come."""
        self.url = rabbit_cluster.url
