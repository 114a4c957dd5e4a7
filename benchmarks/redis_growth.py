"""What Goose's verbs on Redis cost as there is more, and the scenario of its ancestor.

Growth is measured at the broker itself, with namespaces of different size on one server
taking turns, so that what the machine does meanwhile meets all sizes alike.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import redis
import work
from redis_sides import PEERS, SIDES
from redis_trial import Trial

import goose
from goose.brokers.base import Session, Share, State
from goose.brokers.redis import RedisBroker
from goose.jobs import Envelope
from goose.testing.proxy import Proxy
from tests.servers.redis import RedisServer

DEPTHS = (10, 10_000, 1_000_000)
CREWS = (10, 100, 1_000)
BODY = b"x" * 175
"""About what a no-op with one small argument takes."""
TTL = 3600.0
LATENCY = 0.001
"""Seconds the proxy holds back what passes, each way."""
THREADS = 25

Figures = dict[str, float]


def _turns(steps: dict[int, Callable[[], float]], rounds: int) -> dict[int, float]:
    """Call each step *rounds* times in turn; return the median of what each says."""
    taken: dict[int, list[float]] = {size: [] for size in steps}
    for _ in range(rounds):
        for size, step in steps.items():
            taken[size].append(step())
    return {size: statistics.median(values) for size, values in taken.items()}


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - start)


def _envelopes(first: int, count: int) -> list[Envelope]:
    return [Envelope(f"{place:036d}", "default", BODY) for place in range(first, first + count)]


def depth(server: RedisServer, depths: Sequence[int], rounds: int) -> Figures:
    """Dequeue and ack ten jobs, with *depths* of them queued: µs per job."""
    server.client.flushall()
    shares = [Share("default")]
    brokers: list[RedisBroker] = []

    def prepared(size: int) -> Callable[[], float]:
        broker = RedisBroker(server.url, namespace=f"n{size}")
        brokers.append(broker)
        session = Session("bench", 1)
        broker.open(session, ttl=TTL)
        for first in range(0, size, 10_000):
            broker.enqueue(_envelopes(first, min(10_000, size - first)))
        added = size

        def step() -> float:
            nonlocal added
            took = _timed(lambda: broker.ack(broker.dequeue(session, shares, limit=10, wait=0)))
            broker.enqueue(_envelopes(added, 10))
            added += 10
            return took / 10

        return step

    found = _turns({size: prepared(size) for size in depths}, rounds)
    for broker in brokers:
        broker.close()
    return {f"depth_{size}": value for size, value in found.items()}


def inspection(server: RedisServer, jobs: int) -> Figures:
    """Look at a queue of *jobs* and purge it: the longest another client waits meanwhile, in ms.

    The other client is a process of its own, so that this one's interpreter does not hold it up.
    """
    server.client.flushall()
    broker = RedisBroker(server.url)
    for first in range(0, jobs, 10_000):
        broker.enqueue(_envelopes(first, min(10_000, jobs - first)))
    steps: dict[str, Callable[[], object]] = {
        "count": broker.queues,
        "list": lambda: _pages(broker, 100),
        "prioritise": lambda: broker.prioritise([f"{place:036d}" for place in range(5_000)]),
        "purge": lambda: broker.purge(State.READY),
    }
    figures: Figures = {"inspect_jobs": jobs}
    for name, step in steps.items():
        with _neighbour(server) as waits:
            began = time.perf_counter()
            step()
            figures[f"inspect_{name}_s"] = time.perf_counter() - began
        figures[f"pause_{name}"] = max(waits, default=0.0)
    broker.close()
    return figures


def _pages(broker: RedisBroker, count: int) -> None:
    after = None
    for _ in range(count):
        after = broker.page(State.READY, limit=1_000, after=after).next
        if after is None:
            return


@contextlib.contextmanager
def _neighbour(server: RedisServer) -> Iterator[list[float]]:
    """Have another process say PING all the time; in the end its longest wait is in the list."""
    waits: list[float] = []
    command = [sys.executable, str(PEERS.parent / "neighbour.py"), str(server.port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield waits
        process.stdin.close()
        waits.append(float(process.stdout.readline()))


def sessions(server: RedisServer, crews: Sequence[int], rounds: int) -> Figures:
    """A heartbeat, and a look for the dead, with *crews* of sessions open: µs per call."""
    server.client.flushall()
    beats: dict[int, Callable[[], float]] = {}
    looks: dict[int, Callable[[], float]] = {}
    brokers: list[RedisBroker] = []
    for size in crews:
        broker = RedisBroker(server.url, namespace=f"s{size}")
        brokers.append(broker)
        for number in range(size):
            broker.open(Session(f"worker-{number}", 1), ttl=TTL)
        own = Session("worker-0", 1)
        beats[size] = lambda broker=broker, own=own: _timed(  # type: ignore[misc]
            lambda: broker.heartbeat(own, ttl=TTL)
        )
        looks[size] = lambda broker=broker, own=own: _timed(  # type: ignore[misc]
            lambda: broker.recover(own, limit=100)
        )
    figures = {f"heartbeat_{size}": value for size, value in _turns(beats, rounds).items()}
    figures |= {f"recover_{size}": value for size, value in _turns(looks, rounds).items()}
    for broker in brokers:
        broker.close()
    return figures


def slices(server: RedisServer, rounds: int, size: int = 200) -> Figures:
    """Single enqueues and raw LPUSHes in many short turns in this process: µs of each.

    Both wait for the same server over the same kind of connection, so that their ratio is
    steadier than that of two processes at different moments.
    """
    server.client.flushall()
    client = goose.Client(server.url)
    raw = server.new_client()
    body = BODY.decode()

    def ours() -> None:
        for _ in range(size):
            client.enqueue(work.noop)

    def theirs() -> None:
        for _ in range(size):
            raw.lpush("bench", body)

    found = _turns({0: lambda: _timed(ours) / size, 1: lambda: _timed(theirs) / size}, rounds)
    client.close()
    return {"slice_goose": found[0], "slice_raw": found[1]}


def ancestor(server: RedisServer, folder: Path, jobs: int) -> Figures:
    """Enqueue and drain *jobs* on 25 threads, over a network that holds each piece back 1 ms."""
    [side] = [side for side in SIDES if side.name == "goose"]
    with (
        Proxy(("127.0.0.1", server.port)) as proxy,
        Trial(side, server, folder, jobs) as trial,
    ):
        trial.url = f"redis://127.0.0.1:{proxy.port}/0"
        proxy.delay(LATENCY)
        client = redis.Redis(port=proxy.port)
        client.ping()
        trip = statistics.median(_timed(client.ping) for _ in range(50)) / 1000
        client.close()
        stored = jobs / trial.produce("bulk", "noop", jobs)
        with trial.worker(concurrency=THREADS):
            trial.wait_for(lambda: trial.done() > 0, "starting its worker")
            start = time.perf_counter()
            trial.wait_for(lambda: trial.done() == jobs, "draining")
            drained = time.perf_counter() - start
    return {"trip_ms": trip, "stored_s": stored, "drained_s": drained}
