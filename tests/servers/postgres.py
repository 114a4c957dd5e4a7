"""Real PostgreSQL servers, each on a port and in a folder of its own.

::

    with PostgresServer(tmp_path) as server:
        broker = PostgresBroker(server.url)
        server.kill()           # as a crash would end it
        server.start()          # the same port and folder: what was committed is there again

PostgreSQL does not run as root: where the tests do, its programs run as the user ``postgres``
that Debian's package makes, or as ``nobody``. Processes are ended by their own pid.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.servers import programs
from tests.servers.ports import free_port

PATIENCE = 30.0
"""Seconds a server may take to start or to stop."""
USUAL: Mapping[str, str] = {"shared_buffers": "64MB", "max_connections": "200"}
QUICK: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}
"""Settings of a server that is quick, and need not survive a power cut."""


def program(name: str) -> str:
    """Return the path of one of the server's programs."""
    with contextlib.suppress(RuntimeError, OSError):
        for folder in sorted(Path("/usr/lib/postgresql").iterdir(), reverse=True):
            if (folder / "bin" / name).exists():
                return str(folder / "bin" / name)
    found = shutil.which(name)
    if found:
        return found
    programs.find("pg_ctlcluster")
    return str(Path("/usr/lib/postgresql/15/bin") / name)


def _user() -> pwd.struct_passwd | None:
    """Return whom to be instead of root; None where the tests are nobody special."""
    if os.geteuid() != 0:
        return None
    program("initdb")  # whose package makes the user
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody")


class PostgresServer:
    """One server.

    Args:
        folder: For its log; the data go to a folder beside the system's temporary ones, which the
            server's user can reach.
        port: Where it listens; a free port by default.
        config: Settings as in postgresql.conf.
    """

    def __init__(
        self, folder: Path, *, port: int | None = None, config: Mapping[str, str] = {}
    ) -> None:
        self.port = port or free_port()
        self.config = {**USUAL, **config}
        self.process: subprocess.Popen[bytes] | None = None
        self._user = _user()
        self.home = Path(tempfile.mkdtemp(prefix="goose-pg-"))
        self.data = self.home / "data"
        self.log = self.home / "server.log"
        if self._user is not None:
            os.chown(self.home, self._user.pw_uid, self._user.pw_gid)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def url(self) -> str:
        """Its address, as a broker's URL."""
        return self.url_of("postgres")

    def url_of(self, user: str, database: str = "postgres") -> str:
        """The same for a user and a database."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def run(self, *command: str) -> str:
        """Run a program of the server's as its user."""
        done = subprocess.run(
            [program(command[0]), *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            cwd=self.home,
            **self._as_user(),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def make(self) -> None:
        """Make the data folder, if it is not there."""
        if not self.data.exists():
            self.run(
                "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-N",
                "-E", "UTF8", "--locale=C",
            )  # fmt: skip

    def start(self, *, wait: bool = True) -> None:
        """Start the process; unless told otherwise, wait until it accepts connections."""
        assert self.process is None, "it runs already"
        self.make()
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "logging_collector": "off",
            **self.config,
        }
        command = [program("postgres"), "-D", str(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home,
                **self._as_user(),
            )  # fmt: skip
        atexit.register(self.kill)
        if wait:
            self.wait_until_up()

    def wait_until_up(self) -> None:
        """Wait until it accepts connections."""
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.02)

    def connect(self, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection of the test's own."""
        return psycopg.connect(self.url, **{"autocommit": True, **options})

    def execute(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own; return its rows, if it has any."""
        with self.connect() as connection:
            cursor = connection.execute(query, values)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def end_backends(self, like: str = "%") -> int:
        """Terminate the other backends whose last statement is like that; return how many."""
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> "
            "pg_backend_pid() AND backend_type = 'client backend' AND query LIKE %s"
        )
        return int(self.execute(query, [like])[0][0])

    def stop(self) -> None:
        """Let it end in good order, if it runs; it may be started again."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, as a crash would, if it runs; it may be started again."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        atexit.unregister(self.kill)
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.send_signal(how)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        self.process = None
