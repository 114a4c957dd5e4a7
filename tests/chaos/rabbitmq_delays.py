"""Many delayed jobs while a node dies and comes back: none early, none lost, and how late they are.

Usage: python -m tests.chaos.rabbitmq_delays [JOBS]

Everything is scheduled and taken by this process, so all instants are of one clock. A job counts
as met by the outage if it was due from the kill until `SETTLING` seconds after the node was
back; the others' lateness is what the ladder costs.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from goose.brokers.base import Session, Share
from goose.brokers.rabbitmq import RabbitMQBroker
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope
from tests.servers.rabbitmq import RabbitServer

SETTLING = 10.0
"""Seconds after a restart in which what had waited for it goes first."""
SHORTEST, LONGEST = 0.1, 30.0
PATIENCE = 300.0
"""Seconds until those missing count as lost. What a step hands on while the next queue has no leader is handed on
again after the server's `dead_letter_worker_publisher_confirm_timeout`, 180 s."""


def run(folder: Path, jobs: int, *, kill: bool = True, seed: int = 1) -> dict[str, float]:
    """Return what came of it, in numbers; durations are seconds."""
    chance = random.Random(seed)
    arrived: dict[str, float] = {}
    due: dict[str, tuple[float, float]] = {}
    with RabbitServer(folder / "server") as server:
        client, worker = RabbitMQBroker(server.url), RabbitMQBroker(server.url)
        warm = [Envelope(f"warm-{n}", "mail", b"", delay=n / 10) for n in range(1, 300)]
        client.schedule(warm)  # every step of the ladder exists before anything is killed
        done = threading.Event()
        thread = threading.Thread(target=_take, args=(worker, arrived, done))
        thread.start()
        time.sleep(4.0)
        down = back = float("inf")
        began = time.monotonic()
        for number in range(0, jobs, 100):
            batch = [
                Envelope(f"job-{n}", "mail", b"", delay=chance.uniform(SHORTEST, LONGEST))
                for n in range(number, min(number + 100, jobs))
            ]
            before = time.monotonic()
            with contextlib.suppress(BrokerError):
                client.schedule(batch)
                after = time.monotonic()
                for envelope in batch:
                    delay = envelope.delay or 0.0
                    due[envelope.id] = (before + delay, after + delay)
        scheduled = time.monotonic() - began
        if kill:
            time.sleep(3.0)
            down = time.monotonic()
            server.kill()
            server.start()
            back = time.monotonic()
        deadline = time.monotonic() + PATIENCE
        while not due.keys() <= arrived.keys() and time.monotonic() < deadline:
            time.sleep(0.1)
        done.set()
        thread.join()
        client.close()
        worker.close()
    early = sum(arrived[name] < due[name][0] for name in due if name in arrived)
    late = sorted(
        arrived[name] - due[name][1]
        for name in due
        if name in arrived and not down - 1.0 <= due[name][1] <= back + SETTLING
    )
    return {
        "jobs": len(due),
        "lost": len(due.keys() - arrived.keys()),
        "early": early,
        "seconds to schedule": scheduled,
        "outage": back - down if kill else 0.0,
        "outside of it": len(late),
        "late p50": late[len(late) // 2],
        "late p99": late[len(late) * 99 // 100],
        "latest": late[-1],
    }


def _take(worker: RabbitMQBroker, arrived: dict[str, float], done: threading.Event) -> None:
    session = Session("worker")
    while not done.is_set():
        with contextlib.suppress(BrokerUnavailable):
            lent = worker.dequeue(session, [Share("mail")], limit=100, wait=0.5)
            now = time.monotonic()
            for delivery in lent:
                arrived.setdefault(delivery.envelope.id, now)
            worker.ack(lent)


def main() -> int:
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="goose-delays-") as name:
        found = run(Path(name), jobs)
    for what, value in found.items():
        print(f"{what:20} {value:10.3f}")
    return 0 if not found["lost"] + found["early"] and found["late p99"] <= 1.0 else 1


if __name__ == "__main__":
    sys.exit(main())
