"""What tests of the command line share: starting it as users do, and waiting for what it does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GOOSE = str(Path(sys.executable).with_name("goose"))
"""The command as it is installed beside this Python."""


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which this checkout's tests can be imported, and *more*."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


def run(
    *command: str | Path, at: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        list(map(str, command)),
        cwd=at, env=env or environment(), capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


class Worker:
    """A ``goose worker`` in a folder of its own."""

    def __init__(self, at: Path, *arguments: str, **env: str) -> None:
        self._out = (at / "worker.log").open("w+")
        self.process = subprocess.Popen(
            [GOOSE, "worker", *arguments],
            cwd=at, env=environment(**env), stdout=self._out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return Path(self._out.name).read_text()

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 30.0) -> None:
        """Wait for *condition*, or fail with the log."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"still not so after {seconds:g} s: {what}\n{self.log}")
            time.sleep(0.01)

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until the log has a match for *pattern*; return it."""
        self.until(lambda: re.search(pattern, self.log), f"the log says {pattern!r}")
        found = re.search(pattern, self.log)
        assert found is not None
        return found

    def end(self, signum: int = signal.SIGTERM) -> int:
        """Send it a signal, and return its exit code."""
        self.process.send_signal(signum)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for its end."""
        self.until(lambda: self.process.poll() is not None, "it has ended")
        return self.process.returncode

    def close(self) -> None:
        """Leave nothing behind, and print the log for a test that failed."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        print(self.log)
        self._out.close()
