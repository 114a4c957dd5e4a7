"""The workers of the demo: a real ``goose worker``, and the hand that kills its processes.

Nothing is signalled but the supervisor started here and processes whose parent it is. To be
sure that a kill hits jobs under way, a process is stopped first; if its marks then show
none, it goes on unharmed and another moment is tried.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import goose
from goose.demo.history import History
from goose.demo.work import FOLDER
from goose.worker.process import read_stat

MODULE = "goose.demo.work"
PROCESSES = 2
CONCURRENCY = 4
GRACE = 10.0
"""Seconds the workers get to end in peace."""
PATIENCE = 5.0
"""Seconds until what was signalled must have followed."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker process that was killed, and how many jobs it had under way."""

    pid: int
    jobs: int


class Crew:
    """A supervisor with its worker processes, all ended when the ``with`` block is left.

    Args:
        folder: Where the jobs write; the workers' log comes here, too.
        broker: URL that means the same in every directory. It travels in the environment,
            for command lines can be read by everybody.
        queue: The only one they take from.
    """

    def __init__(self, folder: Path, broker: str, queue: str) -> None:
        self.log = folder / "workers.log"
        self.kills: list[Kill] = []
        options = {
            "--queues": queue,
            "--processes": str(PROCESSES),
            "--concurrency": str(CONCURRENCY),
            "--grace": f"{GRACE:g}s",
        }
        flags = [part for option in options.items() for part in option]
        with self.log.open("wb") as log:
            self._supervisor = subprocess.Popen(
                [sys.executable, "-m", "goose", "worker", MODULE, *flags],
                cwd=folder,  # away from the settings of any project
                env=_environment(folder, broker),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for the demo, which then ends its workers
            )

    def exit_code(self) -> int | None:
        """Return None while the supervisor lives, else its exit code."""
        return self._supervisor.poll()

    def kill_busy(self, history: History) -> Kill | None:
        """Kill a worker process that has jobs under way; None if there is none at this moment."""
        killed = {kill.pid for kill in self.kills}
        for pid in history.pids():
            if pid not in killed and self._owns(pid):
                jobs = _kill_if_busy(pid, history)
                if jobs:
                    self.kills.append(Kill(pid, jobs))
                    return self.kills[-1]
        return None

    def _owns(self, pid: int) -> bool:
        return _lives(pid) and read_stat(pid)[1:2] == [str(self._supervisor.pid)]

    def _children(self) -> list[int]:
        pid = self._supervisor.pid
        try:
            return [
                int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            ]
        except OSError:
            return []

    def stop(self) -> int:
        """Have the workers end what they do; return the exit code, 0 if all went well."""
        self._supervisor.terminate()
        try:
            return self._supervisor.wait(GRACE + PATIENCE)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            return self._supervisor.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        children = self._children()
        try:
            if self.exit_code() is None:  # an error, or somebody has seen enough
                self._supervisor.terminate()
                self._supervisor.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pass  # it had its chance to give back what it held
        finally:
            # Worker processes die with their supervisor, so one signal ends them all.
            self._supervisor.kill()
            self._supervisor.wait()
        deadline = time.monotonic() + PATIENCE
        while any(map(_lives, children)) and time.monotonic() < deadline:
            time.sleep(0.01)


def _lives(pid: int) -> bool:
    """Say whether that process runs; one that only waits to be noticed by its parent does not."""
    return read_stat(pid)[:1] not in ([], ["Z"])


def _environment(folder: Path, broker: str) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GOOSE_")}
    environ |= {"GOOSE_BROKER": broker, FOLDER: str(folder)}
    home = str(Path(goose.__file__).parent.parent)
    if home not in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        # Goose runs from a checkout, which the workers would not find from their folder.
        paths = [home, *filter(None, [environ.get("PYTHONPATH")])]
        environ["PYTHONPATH"] = os.pathsep.join(paths)
    return environ


def _kill_if_busy(pid: int, history: History) -> int:
    """Kill the process if it has jobs under way; return how many."""
    try:
        os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE
        while read_stat(pid)[:1] not in (["T"], ["Z"], []) and time.monotonic() < deadline:
            time.sleep(0.001)
        history.read()
        jobs = len(history.under_way(pid))
        os.kill(pid, signal.SIGKILL if jobs else signal.SIGCONT)
    except ProcessLookupError:
        return 0  # it left by itself just now
    except BaseException:
        os.kill(pid, signal.SIGCONT)
        raise
    return jobs
