"""Other people's keys on the same server cost nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from goose.brokers.base import Session, Share, State
from goose.brokers.redis import RedisBroker
from goose.jobs import Envelope
from tests.servers.redis import QUICK, RedisServer

KEYS = 200_000


def test_no_verb_looks_through_the_keyspace(own_folder: Path) -> None:
    """Among many foreign keys each verb is as quick as ever, and none scans."""
    with RedisServer(own_folder, config={**QUICK, "enable-debug-command": "local"}) as server:
        server.client.execute_command("DEBUG", "POPULATE", KEYS, "foreign")
        with closing(RedisBroker(server.url)) as broker:
            mine, other = Session("mine"), Session("other")
            broker.open(mine, ttl=60)
            broker.open(other, ttl=60)
            broker.enqueue([Envelope(f"id{n}", "q", b"{}") for n in range(10)])
            broker.dequeue(other, [Share("q")], limit=5, wait=0)
            server.client.config_resetstat()
            steps: dict[str, Callable[[], object]] = {
                "recover": lambda: broker.recover(mine, limit=100),
                "recover one": lambda: broker.recover(mine, limit=100, dead=other),
                "audit": lambda: broker.audit(mine, limit=100),
                "promote": lambda: broker.promote_due(limit=100),
                "heartbeat": lambda: broker.heartbeat(mine, ttl=60),
                "queues": broker.queues,
                "count": lambda: broker.count(State.READY),
                "page": lambda: broker.page(State.READY),
                "end": lambda: broker.end(mine),
            }
            taken = {}
            for name, step in steps.items():
                began = time.monotonic()
                step()
                taken[name] = time.monotonic() - began
        used = {str(name) for name in server.client.info("commandstats")}
        slowest = max(
            found["usec_per_call"] for found in server.client.info("commandstats").values()
        )

    assert not {"cmdstat_keys", "cmdstat_scan", "cmdstat_randomkey"} & used
    assert slowest < 10_000, "microseconds of the server"
    assert max(taken.values()) < 1.0, taken
