"""A cluster of three in which a node dies or is cut off from the others: ``make cluster``."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Self

import pytest

from goose.brokers.base import Session, Share
from goose.brokers.rabbitmq import RabbitMQBroker
from goose.errors import BrokerError
from goose.jobs import Envelope
from tests.servers.rabbitmq import RabbitServer
from tests.servers.rabbitmq_cluster import RabbitCluster

BATCH = 20
PATIENCE = 120.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitCluster]:
    """Three nodes."""
    with RabbitCluster(tmp_path_factory.mktemp("rabbitmq-cluster")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _whole(cluster: RabbitCluster) -> None:
    """Whatever the test before has done to it."""
    cluster.gather()


class Producer:
    """Enqueues batches until it is told to stop; knows what was confirmed."""

    def __init__(self, broker: RabbitMQBroker) -> None:
        self.confirmed: set[str] = set()
        self.failed = 0
        self._broker = broker
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        number = 0
        while not self._stopped.is_set():
            ids = [f"job-{number + n}" for n in range(BATCH)]
            number += BATCH
            try:
                self._broker.enqueue([Envelope(id_, "mail", b"") for id_ in ids])
            except BrokerError:  # no answer, or the queue has no leader just now: not confirmed
                self.failed += 1
            else:
                self.confirmed.update(ids)

    def grows(self, by: int) -> None:
        """Wait until *by* jobs more are confirmed."""
        wanted, deadline = len(self.confirmed) + by, time.monotonic() + PATIENCE
        while len(self.confirmed) < wanted:
            assert time.monotonic() < deadline, "nothing is confirmed any more"
            time.sleep(0.01)


def drained(broker: RabbitMQBroker, wanted: set[str]) -> set[str]:
    """Take and ack until all of *wanted* came; return what came."""
    session, came = Session(uuid.uuid4().hex), set[str]()
    deadline = time.monotonic() + PATIENCE
    while not wanted <= came:
        assert time.monotonic() < deadline, f"{len(wanted - came)} of {len(wanted)} are missing"
        with contextlib.suppress(BrokerError):
            lent = broker.dequeue(session, [Share("mail")], limit=100, wait=0.5)
            came.update(delivery.envelope.id for delivery in lent)
            broker.ack(lent)
    return came


def brokers(cluster: RabbitCluster, first: RabbitServer) -> tuple[RabbitMQBroker, RabbitMQBroker]:
    """Return one that knows only the node *first*, and one that knows all."""
    options = f"?namespace={uuid.uuid4().hex}&quarantine=0.3&silence=1&timeout=8"
    return RabbitMQBroker(first.url + options), RabbitMQBroker(cluster.url + options)


def cut_off(cluster: RabbitCluster, node: RabbitServer) -> None:
    """Let *node* and the others have no more to do with each other, until `heal`."""
    for other in cluster.nodes:
        if other is not node:
            node.eval(
                f"erlang:set_cookie('{other.node}', cut), erlang:disconnect_node('{other.node}')."
            )


def heal(cluster: RabbitCluster, node: RabbitServer) -> None:
    """Let them meet again, and restart all but one, as an operator has to who did not choose a way.

    Erlang lets go of the other two for a moment, too, so each may believe something else of queues.
    """
    for other in cluster.nodes:
        if other is not node:
            node.eval(
                f"erlang:set_cookie('{other.node}', erlang:get_cookie()), "
                f"net_kernel:connect_node('{other.node}')."
            )
    trusted = next(other for other in cluster.nodes if other is not node)
    others = [other for other in cluster.nodes if other is not trusted]
    for word in ("stop_app", "start_app"):
        for other in others:
            other.control(word)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("place", [0, 1])
def test_a_minority_confirms_nothing_and_loses_nothing(cluster: RabbitCluster, place: int) -> None:
    """C16: who is cut off with one node of three gets no confirms there, and what had them is there."""
    node = cluster.nodes[place]
    here, everywhere = brokers(cluster, node)
    with contextlib.closing(here), contextlib.closing(everywhere):
        with Producer(here) as producer:
            producer.grows(10 * BATCH)
            cut_off(cluster, node)
            failed, deadline = producer.failed, time.monotonic() + PATIENCE
            while producer.failed < failed + 2:
                assert time.monotonic() < deadline, "the minority goes on confirming"
                time.sleep(0.05)
            before = len(producer.confirmed)
            time.sleep(2.0)
            assert len(producer.confirmed) <= before + BATCH, "the minority confirms"
            heal(cluster, node)
            producer.grows(10 * BATCH)
        drained(everywhere, producer.confirmed)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_dead_node_stops_nobody(cluster: RabbitCluster, place: int) -> None:
    """With one of three nodes killed, enqueues go on through the others, and nothing is lost."""
    node = cluster.nodes[place]
    _, everywhere = brokers(cluster, node)
    with contextlib.closing(everywhere):
        with Producer(everywhere) as producer:
            producer.grows(10 * BATCH)
            node.kill()
            producer.grows(10 * BATCH)
            node.start()
            producer.grows(10 * BATCH)
        drained(everywhere, producer.confirmed)
