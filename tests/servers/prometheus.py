"""A real Prometheus, and its promtool, from Debian's package."""

from __future__ import annotations

import atexit
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.servers import programs
from tests.servers.ports import free_port

PATIENCE = 30.0
"""Seconds the server may take to start."""


def promtool(*arguments: str | Path, at: Path) -> str:
    """Run promtool; return what it said, or raise with it."""
    program = programs.find("promtool")
    done = subprocess.run(
        [program, *map(str, arguments)], cwd=at, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(f"promtool {arguments}: {done.stdout}{done.stderr}")
    return done.stdout


class Prometheus:
    """A server that scrapes *target*, five times a second, and evaluates *rules*.

    Args:
        folder: For its configuration and data.
        target: ``host:port``.
        rules: Text of a file of rules.
    """

    def __init__(self, folder: Path, target: str, rules: str) -> None:
        self._folder = folder
        self._port = free_port()
        folder.mkdir()
        (folder / "rules.yml").write_text(rules)
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 200ms, evaluation_interval: 200ms}\n"
            "rule_files: [rules.yml]\n"
            "scrape_configs:\n"
            f"  - {{job_name: goose, static_configs: [{{targets: ['{target}']}}]}}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        program = programs.find("prometheus")
        log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                program, "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            cwd=self._folder, stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        atexit.register(self._process.kill)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"no Prometheus: {(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        atexit.unregister(self._process.kill)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("/api/v1/status/buildinfo"))
        except (OSError, ValueError):
            return False

    def ask(self, path: str, **query: str) -> Any:
        """Return the data of one call of its API."""
        url = f"http://127.0.0.1:{self._port}{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(error.read().decode()) from error

    def value(self, expression: str) -> float | None:
        """Return the one value of *expression* now; None if there is none."""
        result = self.ask("/api/v1/query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None

    def firing(self) -> set[str]:
        """Return the names of the alarms that fire."""
        alerts = self.ask("/api/v1/alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
