"""A master, a replica and three sentinels on loopback, quick to fail over.

::

    with RedisSentinel(tmp_path) as group:
        broker = RedisBroker(group.url)
        group.fail_over()       # the master is killed; returns once another one is master
        group.mend()            # the dead one is back, as a replica in step
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import redis

from tests.servers import programs
from tests.servers.redis import DURABLE, RedisServer

NAME = "goose"
"""What the sentinels call the master."""
DOWN_AFTER = 1.5
"""Seconds of silence after which a sentinel holds a server for down; it asks once a second."""
FAILOVER_TIMEOUT = 1.5
"""Seconds; twice as long must pass between two failovers."""
PATIENCE = 45.0
"""Seconds until roles must be settled."""


class RedisSentinel:
    """Two servers, one the other's replica, and sentinels that see to it that one is master.

    Args:
        folder: Each process gets a folder in it.
        config: Settings of both servers.
        sentinels: How many; a majority must agree.
    """

    def __init__(
        self, folder: Path, *, config: Mapping[str, str] = DURABLE, sentinels: int = 3
    ) -> None:
        quick = {**config, "repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
        self.servers = [
            RedisServer(folder / name, config={**quick, "replica-read-only": "yes"})
            for name in ("one", "two")
        ]
        program = programs.find("redis-sentinel")
        self.sentinels = [
            _Sentinel(folder / f"sentinel{number}", program, self.servers[0].port, sentinels)
            for number in range(sentinels)
        ]

    @property
    def url(self) -> str:
        """Its address, as a broker's URL."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}/0"

    def start(self) -> None:
        """Start all and wait until each knows of each."""
        one, two = self.servers
        one.start()
        two.start()
        two.client.execute_command("REPLICAOF", "127.0.0.1", one.port)
        self._wait(self._in_step, "the replica is in step")
        for sentinel in self.sentinels:
            sentinel.aim(one.port)
            sentinel.start()
        self._wait(lambda: all(map(self._knows, self.sentinels)), "the sentinels know each other")

    @property
    def master(self) -> RedisServer:
        """The server that the sentinels name as master and that holds itself for one.

        Raises:
            LookupError: There is none at this moment.
        """
        for sentinel in self.sentinels:
            with contextlib.suppress(redis.RedisError, LookupError):
                _, port = sentinel.client.sentinel_get_master_addr_by_name(NAME)
                named = next(server for server in self.servers if server.port == int(port))
                if _replication(named).get("role") == "master":
                    return named
        raise LookupError("no server is master")

    @property
    def replica(self) -> RedisServer:
        """The other one, which may be dead."""
        master = self.master
        return next(server for server in self.servers if server is not master)

    def fail_over(self) -> float:
        """Kill the master; return the seconds until the other server is one."""
        old = self.master
        began = time.monotonic()
        old.kill()
        self._wait(lambda: self._found_other_than(old), "another master")
        return time.monotonic() - began

    def mend(self) -> None:
        """Start what is dead, and wait until it is a replica in step."""
        for server in self.servers:
            if server.process is None:
                server.start()
                # The sentinels would do it, too, after ten seconds.
                server.client.execute_command("REPLICAOF", "127.0.0.1", self.master.port)
        self._wait(self._in_step, "the replica is in step again")
        self._wait(lambda: all(map(self._knows, self.sentinels)), "the sentinels agree")

    def _found_other_than(self, old: RedisServer) -> bool:
        try:
            return self.master is not old
        except LookupError:
            return False

    def _in_step(self) -> bool:
        """Say whether one server is master and has the other for an online replica."""
        roles = {_replication(server).get("role"): server for server in self.servers}
        if set(roles) != {"master", "slave"}:
            return False
        followed = _replication(roles["master"]).get("slave0", {})
        return (
            _replication(roles["slave"]).get("master_link_status") == "up"
            and isinstance(followed, dict)
            and followed.get("state") == "online"
        )

    def _knows(self, sentinel: _Sentinel) -> bool:
        with contextlib.suppress(redis.RedisError, LookupError):
            state: Any = sentinel.client.sentinel_master(NAME)
            replicas: Any = sentinel.client.sentinel_slaves(NAME)
            return (
                state["num-other-sentinels"] == len(self.sentinels) - 1
                and state["flags"] == "master"
                and [replica["flags"] for replica in replicas] == ["slave"]
            )
        return False

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {PATIENCE:g} s: {what}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End all processes."""
        for process in (*self.sentinels, *self.servers):
            process.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Sentinel(RedisServer):
    """One sentinel; it keeps what it knows in its own configuration file."""

    def __init__(self, folder: Path, program: str, watched: int, sentinels: int) -> None:
        super().__init__(folder, program=program, config={})
        self._file = folder / "sentinel.conf"
        self._quorum = sentinels // 2 + 1
        self.aim(watched)

    def aim(self, port: int) -> None:
        """Watch the master at *port*; before the start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        milliseconds = int(DOWN_AFTER * 1000)
        self._file.write_text(
            f"sentinel monitor {NAME} 127.0.0.1 {port} {self._quorum}\n"
            f"sentinel down-after-milliseconds {NAME} {milliseconds}\n"
            f"sentinel failover-timeout {NAME} {int(FAILOVER_TIMEOUT * 1000)}\n"
            f"sentinel parallel-syncs {NAME} 1\n"
        )

    def _command(self) -> list[str]:
        program, *settings = super()._command()
        return [program, str(self._file), *settings]


def _replication(server: RedisServer) -> Mapping[str, Any]:
    """Return what *server* says of its role; nothing if it is down."""
    if server.process is None:
        return {}
    with contextlib.suppress(redis.RedisError):
        found: Any = server.client.info("replication")
        return dict(found)
    return {}
