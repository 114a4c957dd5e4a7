"""Three RabbitMQ nodes that make one cluster, on three ports of this machine."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Self

from tests.servers.rabbitmq import NameServer, RabbitServer


class RabbitCluster:
    """A cluster; a context manager.

    Args:
        folder: For the nodes' folders.
        size: How many nodes.
    """

    def __init__(self, folder: Path, size: int = 3) -> None:
        self._names = NameServer()
        self._cookie = secrets.token_hex(16)
        self.nodes = [
            RabbitServer(folder / f"node{n}", names=self._names, cookie=self._cookie)
            for n in range(size)
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
        return self

    def part(self, node: RabbitServer) -> None:
        """Cut *node* off from the others: they hang up, and do not talk to each other again.

        Clients reach all of them, as across networks that see the clients and not each other.
        """
        others = [other for other in self.nodes if other is not node]
        node.eval(_strangers([other.node for other in others]))
        for other in others:
            if other.process is not None:
                other.eval(_strangers([node.node]))

    def join(self, node: RabbitServer) -> None:
        """Let *node* and the others talk to each other again."""
        for one in self.nodes:
            if one.process is not None:
                known = [other.node for other in self.nodes if other is not one]
                one.eval(_friends(known, self._cookie))

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
        self._names.stop()


def _strangers(nodes: list[str]) -> str:
    """Return the Erlang that hangs up on *nodes*, with a secret that none of them knows."""
    listed = ", ".join(f"'{node}'" for node in nodes)
    return (
        f"[begin erlang:set_cookie(N, 'parted'), erlang:disconnect_node(N) end || N <- [{listed}]]."
    )


def _friends(nodes: list[str], cookie: str) -> str:
    """Return the Erlang that calls *nodes* again, with the secret they share."""
    listed = ", ".join(f"'{node}'" for node in nodes)
    return f"[begin erlang:set_cookie(N, '{cookie}'), net_adm:ping(N) end || N <- [{listed}]]."
