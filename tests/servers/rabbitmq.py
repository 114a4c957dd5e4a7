"""Real RabbitMQ nodes, each with ports, a folder, a name and an Erlang cookie of its own.

::

    with RabbitServer(tmp_path) as server:
        broker = RabbitMQBroker(server.url)
        server.kill()
        server.start()          # the same ports and folder: what was stored is there again

Erlang nodes find each other through a name server, epmd. Each group of nodes has its own, so
that nothing meets an Erlang system of the machine. All processes are children of the tests,
stopped by their own pid.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.servers import programs
from tests.servers.ports import free_port

PATIENCE = 150.0
"""Seconds a node may take to start or to stop: ten times what it takes where others work, too."""
_SCRIPTS = "/usr/lib/rabbitmq/bin"
"""Where Debian keeps the programs themselves; those on the path insist on a user of their own."""


def _script(name: str) -> str:
    beside = Path(programs.find("rabbitmqctl"))
    path = Path(_SCRIPTS, name)
    return str(path if path.exists() else beside.with_name(name))


class NameServer:
    """An epmd on a port of its own, for the nodes of one test or cluster."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [_epmd(), "-port", str(self.port), "-address", "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        atexit.register(self.stop)

    def stop(self) -> None:
        """End it."""
        atexit.unregister(self.stop)
        self.process.kill()
        self.process.wait(PATIENCE)


def _epmd() -> str:
    _script("rabbitmq-server")
    return programs.find("epmd")


class RabbitServer:
    """One node.

    Args:
        folder: For its data, its log and its cookie; made if it is missing.
        names: The name server it uses; one of its own by default.
        cookie: The secret that nodes of a cluster share.
        config: Lines of rabbitmq.conf.
    """

    def __init__(
        self,
        folder: Path,
        *,
        names: NameServer | None = None,
        cookie: str = "",
        config: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.dist_port = free_port()
        self.node = f"goose-{secrets.token_hex(4)}@localhost"
        self.log = folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.config = config
        self._cookie = cookie or secrets.token_hex(16)
        self._names = names
        self._own_names: NameServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._own_names is not None:
            self._own_names.stop()

    @property
    def url(self) -> str:
        """Its address, as a broker's URL."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment in which its programs run."""
        assert self._names is not None
        interface = "{127,0,0,1}"
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._names.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "node.pid"),
            # One scheduler thread spins no core of a machine that others share.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"+sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {interface}"
            ),
        }

    def start(self, *, wait: bool = True) -> None:
        """Start the node; unless told otherwise, wait until it accepts connections."""
        assert self.process is None, "it runs already"
        if self._names is None:
            self._names = self._own_names = NameServer()
        for name in ("data", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self._cookie)
            cookie.chmod(0o400)
        (self.folder / "enabled_plugins").write_text("[].\n")
        settings = ("log.console = true", "log.console.level = warning", *self.config)
        (self.folder / "rabbitmq.conf").write_text("\n".join(settings) + "\n")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [_script("rabbitmq-server")],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the script and the Erlang system under it end as one
            )
        atexit.register(self.kill)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it accepts connections."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process and self.process.poll() is None:
            if self.answers():
                return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"rabbitmq-server did not start:\n{self.log.read_text()[-3000:]}")

    def answers(self) -> bool:
        """Say whether it speaks AMQP at this moment."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as probe:
                probe.sendall(b"AMQP\0\0\x09\x01")
                return bool(probe.recv(1))
        except OSError:
            return False

    def control(self, *words: str, program: str = "rabbitmqctl") -> str:
        """Run rabbitmqctl (or another of its programs) with *words*; return what it printed."""
        done = subprocess.run(
            [_script(program), *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{program} {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def eval(self, erlang: str) -> str:
        """Evaluate an Erlang expression in the node, which is quicker than most commands."""
        return self.control("eval", erlang)

    def stop(self) -> None:
        """Let it end in good order, if it runs; it may be started again."""
        if self.process is not None:
            self._signal(signal.SIGCONT)
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would, if it runs; it may be started again."""
        atexit.unregister(self.kill)
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait(PATIENCE)
            self.process = None

    def pause(self) -> None:
        """Stop it in its tracks; connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
