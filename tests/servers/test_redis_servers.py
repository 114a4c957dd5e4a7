"""The servers that other tests start do what those tests rely on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from redis.sentinel import Sentinel

from tests.servers.redis import DURABLE, RedisServer
from tests.servers.redis_cluster import RedisCluster
from tests.servers.redis_sentinel import NAME, RedisSentinel


def test_a_killed_server_comes_back_with_its_data(own_folder: Path) -> None:
    """A durable server keeps what it acknowledged, at the same port."""
    with RedisServer(own_folder, config=DURABLE) as server:
        port = server.port
        server.client.set("kept", "yes")
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        server.start()
        assert (b"yes", port) == (server.client.get("kept"), server.port)


def test_a_cluster_serves_every_slot(own_folder: Path) -> None:
    """Keys of all three nodes are written and read through one client."""
    with RedisCluster(own_folder) as cluster:
        client = cluster.new_client()
        for number in range(60):
            client.set(f"k{number}", number)
        found = [int(client.get(f"k{number}")) for number in range(60)]
        sizes = [server.client.dbsize() for server in cluster.servers]
        client.close()

    assert list(range(60)) == found
    assert all(sizes)
    assert 60 == sum(sizes)


@pytest.mark.timeout(120)
def test_sentinels_make_the_replica_master(own_folder: Path) -> None:
    """After the master's death the other server takes over with what was replicated, twice."""
    with RedisSentinel(own_folder) as group:
        ports = [("127.0.0.1", sentinel.port) for sentinel in group.sentinels]
        watch = Sentinel(ports, socket_timeout=2)
        for turn in (1, 2):
            client = watch.master_for(NAME, socket_timeout=2)
            client.set("turn", turn)
            assert 1 == client.wait(1, 5_000)
            old = group.master
            group.fail_over()
            assert str(turn).encode() == group.master.client.get("turn")
            assert old is not group.master
            group.mend()
            client.close()
        for sentinel in watch.sentinels:
            sentinel.close()
