"""Three RabbitMQ nodes that make one cluster, on three ports of this machine."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Self

from tests.servers.rabbitmq import PATIENCE, NameServer, RabbitServer


class RabbitCluster:
    """A cluster; a context manager.

    Args:
        folder: For the nodes' folders.
        size: How many nodes.
    """

    def __init__(self, folder: Path, size: int = 3) -> None:
        self._names = NameServer()
        cookie = secrets.token_hex(16)
        self.nodes = [
            RabbitServer(folder / f"node{n}", names=self._names, cookie=cookie) for n in range(size)
        ]

    @property
    def url(self) -> str:
        """Its nodes, as a broker's URL."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"amqp://guest:guest@{hosts}"

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.start(wait=False)
        first, *others = self.nodes
        first.wait()
        for node in others:
            node.wait()
            node.control("stop_app")
            node.control("join_cluster", first.node)
            node.control("start_app")
        self.gather()
        return self

    def gather(self) -> None:
        """Wait until each node knows that all of them run.

        A replicated queue has replicas on those alone that run when it is declared.
        """
        deadline = time.monotonic() + PATIENCE
        every = f"{len(self.nodes)}"
        while any(
            node.eval("length(rabbit_nodes:all_running()).").strip() != every for node in self.nodes
        ):
            assert time.monotonic() < deadline, "the nodes do not come together"
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
        self._names.stop()
