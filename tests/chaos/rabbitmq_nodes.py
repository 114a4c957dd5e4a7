"""A cluster of three nodes: each is killed, and each is cut off from the others, under load.

``make chaos BROKER=nodes``; ``--rounds`` says how often each fault meets each node.

Producers and takers each prefer another node, and go to the next when theirs is lost. While a
fault lasts, somebody must go on: two of three nodes are a majority. In the end every
confirmed job was taken, and what was taken and acked twice met a fault.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from goose.brokers.base import Session, Share
from goose.brokers.rabbitmq import RabbitMQBroker
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope
from tests.servers.rabbitmq import RabbitServer
from tests.servers.rabbitmq_cluster import RabbitCluster

HOLD = 10.0
"""Seconds for which a node is cut off."""
CALM = 8.0
"""Seconds between faults."""
AFTERWARDS = 8.0
"""Seconds after a fault in which what it met may still come again."""
PATIENCE = 120.0
PAUSE = 0.01
"""Seconds between two enqueues of a producer."""


@dataclass(slots=True)
class Log:
    """What happened, by job; instants are monotonic."""

    stored: dict[str, float] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    acked: dict[str, list[float]] = field(default_factory=dict)
    faults: list[tuple[str, float, float]] = field(default_factory=list)
    gaps: dict[str, float] = field(default_factory=dict)
    """Longest time without an ack during each fault, by kind."""

    def met(self, instants: list[float]) -> bool:
        """Say whether a fault explains that a job was acked at all these *instants*."""
        first = min(instants)
        return any(began - 1.0 <= first <= until + AFTERWARDS for _, began, until in self.faults)


class Load:
    """Producers and takers, three of each."""

    def __init__(self, cluster: RabbitCluster, log: Log) -> None:
        self._log = log
        self._stop = threading.Event()
        self._full = threading.Event()
        hosts = [f"127.0.0.1:{node.port}" for node in cluster.nodes]
        options = "heartbeat=2&silence=1&timeout=4&connect_timeout=3&quarantine=1"
        urls = [f"amqp://guest:guest@{','.join(hosts[n:] + hosts[:n])}?{options}" for n in range(3)]
        self._brokers = [RabbitMQBroker(url) for url in urls * 2]
        self._threads = [
            *(threading.Thread(target=self._produce, args=(n,)) for n in range(3)),
            *(threading.Thread(target=self._take, args=(n,)) for n in range(3, 6)),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Enqueue no more, wait until all is taken, and end."""
        self._full.set()
        deadline = time.monotonic() + PATIENCE
        while not self._log.stored.keys() <= self._log.acked.keys():
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        time.sleep(2.0)
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for broker in self._brokers:
            broker.close()

    def _produce(self, n: int) -> None:
        number = 0
        while not self._full.is_set():
            number += 1
            name = f"{n}-{number}"
            try:
                self._brokers[n].enqueue([Envelope(name, "mail", b"{}")])
                self._log.stored[name] = time.monotonic()
            except BrokerError:
                self._log.unsure.add(name)
            time.sleep(PAUSE)

    def _take(self, n: int) -> None:
        broker, session = self._brokers[n], Session(str(n))
        while not self._stop.is_set():
            with contextlib.suppress(BrokerUnavailable):
                lent = broker.dequeue(session, [Share("mail")], limit=20, wait=0.5)
                lost = broker.ack(lent)
                now = time.monotonic()
                for delivery in lent:
                    if delivery not in lost:
                        self._log.acked.setdefault(delivery.envelope.id, []).append(now)


def kill(cluster: RabbitCluster, node: RabbitServer) -> None:
    """SIGKILL of a node, and a start a moment later."""
    node.kill()
    time.sleep(1.0)
    node.start()


def part(cluster: RabbitCluster, node: RabbitServer) -> None:
    """C16: a node is cut off from the others."""
    cluster.part(node)
    time.sleep(HOLD)
    cluster.join(node)


FAULTS: tuple[Callable[[RabbitCluster, RabbitServer], None], ...] = (kill, part)


def run(folder: Path, rounds: int, say: Callable[[str], object], seed: int = 1) -> list[str]:
    """Return what was wrong, after each fault has met each node *rounds* times."""
    chance = random.Random(seed)
    log = Log()
    with RabbitCluster(folder) as cluster:
        load = Load(cluster, log)
        load.start()
        time.sleep(CALM)
        plan = [(fault, node) for fault in FAULTS for node in cluster.nodes] * rounds
        chance.shuffle(plan)
        for fault, node in plan:
            began = time.monotonic()
            fault(cluster, node)
            until = time.monotonic()
            log.faults.append((fault.__name__, began, until))
            time.sleep(CALM)
            gap = longest_gap(log, began, until + CALM)
            log.gaps[fault.__name__] = max(gap, log.gaps.get(fault.__name__, 0.0))
            say(f"{fault.__name__}: {until - began:.1f} s, longest without an ack {gap:.1f} s")
        load.finish()
    return judge(log, say)


def longest_gap(log: Log, began: float, until: float) -> float:
    """Return the longest time between two acks, in seconds."""
    instants = sorted(at for acked in list(log.acked.values()) for at in list(acked))
    inside = [began, *(at for at in instants if began <= at <= until), until]
    return max(after - before for before, after in itertools.pairwise(inside))


def judge(log: Log, say: Callable[[str], object]) -> list[str]:
    """Return what was wrong."""
    lost = sorted(log.stored.keys() - log.acked.keys())
    twice = {name: acked for name, acked in log.acked.items() if len(acked) > 1}
    strange = [n for n, acked in twice.items() if n not in log.unsure and not log.met(acked)]
    say(
        f"{len(log.faults)} faults, {len(log.stored)} jobs confirmed, {len(log.unsure)} unsure, "
        f"{len(lost)} lost, {len(twice)} acked twice, {len(strange)} of them without a reason"
    )
    problems = []
    if lost:
        problems.append(f"lost: {lost[:10]}")
    if strange:
        problems.append(f"twice without a reason: {strange[:10]}")
    return problems
