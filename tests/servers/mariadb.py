"""Real MariaDB servers, each on a port and in a folder of its own.

::

    with MariaServer(tmp_path) as server:
        engine = sqlalchemy.create_engine(server.url)

Processes are children of the tests, stopped by their own pid.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

import pymysql

from tests.servers import programs
from tests.servers.ports import free_port

PATIENCE = 60.0
"""Seconds a server may take to start or to stop."""


class MariaServer:
    """One server, which asks for no password.

    Args:
        folder: For its data and its log.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its address, as SQLAlchemy and an outbox take it."""
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/shop"

    def start(self) -> None:
        """Start the process, with a database, and wait until it accepts connections."""
        assert self.process is None, "it runs already"
        server = programs.find("mariadbd")
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    server, "--no-defaults", f"--datadir={data}", f"--port={self.port}",
                    "--bind-address=127.0.0.1", f"--socket={self.folder}/socket",
                    f"--pid-file={self.folder}/pid", "--innodb-buffer-pool-size=64M",
                    "--innodb-flush-log-at-trx-commit=0", "--skip-grant-tables", "--skip-networking=0",
                    "--skip-name-resolve", *_as_user(),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        atexit.register(self.kill)
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            with contextlib.suppress(pymysql.OperationalError), self.connect(None) as connection:
                connection.cursor().execute("CREATE DATABASE IF NOT EXISTS shop")
                return
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.05)

    def connect(self, database: str | None = "shop") -> pymysql.Connection:
        """Return a connection of the test's own."""
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database=database, autocommit=True
        )

    def stop(self) -> None:
        """Let it end, if it runs; it may be started again."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would; it may be started again."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        atexit.unregister(self.kill)
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        self.process = None


def _as_user() -> list[str]:
    """Say that it may be root, where the tests are."""
    return ["--user=root"] if os.geteuid() == 0 else []
