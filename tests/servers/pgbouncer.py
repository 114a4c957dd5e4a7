"""A real pgbouncer in transaction mode, in front of a PostgreSQL server of the tests."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.servers import postgres, programs
from tests.servers.ports import free_port


class Pgbouncer:
    """One pooler: each transaction may run on another of few connections."""

    def __init__(self, server: postgres.PostgresServer, *, size: int = 4) -> None:
        self._server = server
        self._size = size
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._home = Path(tempfile.mkdtemp(prefix="goose-bouncer-"))
        self._log = self._home / "pgbouncer.log"

    @property
    def url(self) -> str:
        """Its address, as a broker's URL."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?notify=off"

    def __enter__(self) -> Self:
        program = programs.find("pgbouncer")
        (self._home / "users.txt").write_text('"postgres" ""\n')
        config = self._home / "pgbouncer.ini"
        config.write_text(
            "[databases]\n"
            f"* = host=127.0.0.1 port={self._server.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            "pool_mode = transaction\nauth_type = trust\n"
            f"auth_file = {self._home}/users.txt\n"
            f"default_pool_size = {self._size}\nmax_client_conn = 500\n"
        )
        who: dict[str, Any] = self._server._as_user()
        for path in (self._home, *self._home.iterdir()):
            if who:
                os.chown(path, who["user"], who["group"])
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(config)], cwd=self._home, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, **who,
            )  # fmt: skip
        atexit.register(self._end)
        deadline = time.monotonic() + postgres.PATIENCE
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url.partition("?")[0], connect_timeout=2).close()
                return self
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self._end()
        shutil.rmtree(self._home, ignore_errors=True)

    def _end(self) -> None:
        atexit.unregister(self._end)
        if self._process is not None:
            self._process.terminate()
            self._process.wait(postgres.PATIENCE)
            self._process = None
