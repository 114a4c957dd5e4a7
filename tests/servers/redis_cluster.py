"""A Redis Cluster of three masters on loopback, without replicas.

::

    with RedisCluster(tmp_path) as cluster:
        broker = RedisBroker(cluster.url)
        cluster.servers[1].kill()
        cluster.servers[1].start()
        cluster.wait()
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import redis
from redis.cluster import ClusterNode

from tests.servers.ports import free_port
from tests.servers.redis import QUICK, RedisServer

SLOTS = 16_384
PATIENCE = 30.0
"""Seconds until the nodes must agree."""


class RedisCluster:
    """Three servers that share the slots between them.

    Args:
        folder: Each server gets a folder in it.
        program: Path of the server program; redis-server by default.
        config: Settings of each server.
        size: Servers.
        front: Returns the port that clients are sent to for the server at a given one, where
            something stands in between.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: str | None = None,
        config: Mapping[str, str] = QUICK,
        size: int = 3,
        front: Callable[[int], int] = lambda port: port,
    ) -> None:
        self.servers: list[RedisServer] = []
        for number in range(size):
            settings = {
                **config,
                "cluster-enabled": "yes",
                "cluster-config-file": "nodes.conf",
                "cluster-node-timeout": "2000",
                # One master that is down must not stop the queues of the others.
                "cluster-require-full-coverage": "no",
                # The usual port of the bus, 10,000 above, may be no port at all.
                "cluster-port": str(free_port()),
            }
            server = RedisServer(
                folder / f"node{number}", program=program, port=free_port(), config=settings
            )
            server.config["cluster-announce-port"] = str(front(server.port))
            self.servers.append(server)

    @property
    def url(self) -> str:
        """Its address, as a broker's URL."""
        ports = [server.config["cluster-announce-port"] for server in self.servers]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"redis+cluster://{hosts}"

    def new_client(self) -> redis.RedisCluster:
        """Return a client of redis-py for the whole cluster; the caller closes it."""
        nodes = [ClusterNode("127.0.0.1", server.port) for server in self.servers]
        return redis.RedisCluster(startup_nodes=nodes)

    def start(self) -> None:
        """Start the servers, give each its slots, and wait until all know of all."""
        for server in self.servers:
            server.start()
        each = -(-SLOTS // len(self.servers))
        for number, server in enumerate(self.servers):
            first, last = number * each, min((number + 1) * each, SLOTS) - 1
            server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            server.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        head = self.servers[0]
        for server in self.servers[1:]:
            bus = server.config["cluster-port"]
            head.client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
        self.wait()

    def wait(self) -> None:
        """Wait until every server says that all slots are served.

        Raises:
            TimeoutError: They do not agree.
        """
        deadline = time.monotonic() + PATIENCE
        while not all(self._agrees(server) for server in self.servers):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cluster did not form: {[s.log for s in self.servers]}")
            time.sleep(0.02)

    def _agrees(self, server: RedisServer) -> bool:
        with contextlib.suppress(redis.RedisError):
            answer: Any = server.client.execute_command("CLUSTER", "INFO")
            info = dict(line.split(":", 1) for line in answer.decode().split())
            wanted = {
                "cluster_state": "ok",
                "cluster_known_nodes": str(len(self.servers)),
                "cluster_slots_ok": str(SLOTS),
            }
            return wanted.items() <= info.items()
        return False

    def stop(self) -> None:
        """End all servers."""
        for server in self.servers:
            server.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
