"""Every measure, in every dialect, to the StatsD server that gave the protocol its name.

Run by ``make statsd``, not by ``make test``: it needs Node.js and installs the npm package
``statsd`` (into the cache of the benchmarks). Over UDP each measure of the catalogue is sent
once; then the server is asked, by its management port, what it has.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import environments  # noqa: E402 - needs the path above

from goose.metrics.catalogue import MEASURES  # noqa: E402
from goose.metrics.statsd import StatsD  # noqa: E402
from tests.servers.ports import free_port  # noqa: E402

PATIENCE = 20.0


class Server:
    """One statsd process."""

    def __init__(self, folder: Path) -> None:
        self.port, self._management = free_port(), free_port()
        program = environments.node("statsd", ("statsd",)) / "node_modules/statsd/stats.js"
        config = folder / "config.js"
        config.write_text(
            f'{{port: {self.port}, address: "127.0.0.1", mgmt_port: {self._management}, '
            'mgmt_address: "127.0.0.1", flushInterval: 600000, backends: []}'
        )
        self.process = subprocess.Popen(
            ["node", str(program), str(config)], stdout=subprocess.DEVNULL
        )

    def ask(self, what: str) -> set[str]:
        """Return the names it has of a kind: ``counters``, ``gauges`` or ``timers``."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self._management), 5) as line:
                    line.sendall(f"{what}\n".encode())
                    text = b""
                    while not text.endswith(b"END\n\n"):
                        text += line.recv(65536)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        object_ = text.decode().removesuffix("END\n\n")
        # It prints what util.inspect makes of an object; the keys are all that is asked for.
        return set(re.findall(r"^\s*'?([^'\s:][^':]*)'?: ", object_, flags=re.MULTILINE))


def expected(dialect: str, name: str, tags: dict[str, str]) -> str:
    """Return the name under which the server keeps a measure."""
    if dialect == "plain":
        return ".".join(["goose", name, *tags.values()])
    if dialect == "datadog":
        return ";".join([f"goose.{name}", *(f"{tag}={value}" for tag, value in tags.items())])
    # The server knows nothing of this one, and takes out what it would not have in a name.
    return f"goose.{name}" + "".join(f"{tag}={value}" for tag, value in tags.items())


def main() -> int:
    """Send, ask, compare; return the exit code."""
    missing: dict[str, list[str]] = {}
    for dialect in ("plain", "datadog", "influx"):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder))
            try:
                server.ask("counters")
                statsd = StatsD(f"statsd://127.0.0.1:{server.port}?dialect={dialect}")
                wanted: dict[str, set[str]] = {"counters": set(), "gauges": set(), "timers": set()}
                for measure in MEASURES.values():
                    tags = {tag: f"{tag}1" for tag in measure.tags}
                    name = expected(dialect, measure.name, tags)
                    if measure.kind == "counter":
                        statsd.increment(measure.name, 3, tags)
                        wanted["counters"].add(name)
                    elif measure.kind == "gauge":
                        statsd.gauge(measure.name, 1.5, tags)
                        wanted["gauges"].add(name)
                    else:
                        statsd.timing(measure.name, 0.25, tags)
                        wanted["timers"].add(name)
                statsd.close()
                deadline = time.monotonic() + PATIENCE
                while True:
                    lost = [
                        f"{n}" for kind, names in wanted.items() for n in names - server.ask(kind)
                    ]
                    if not lost or time.monotonic() > deadline:
                        break
                    time.sleep(0.1)
                missing[dialect] = lost
            finally:
                server.process.kill()
                server.process.wait()
        print(f"{dialect}: {len(MEASURES)} sent, {len(missing[dialect])} missing")
    if any(missing.values()):
        print(json.dumps(missing, indent=2))
    return int(any(missing.values()))


if __name__ == "__main__":
    sys.exit(main())
