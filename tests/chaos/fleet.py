"""Real ``goose worker`` processes, and ways to hurt them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.chaos.history import Fault

ROOT = Path(__file__).parent.parent.parent


class Fleet:
    """Supervisors started by this process; each is ended with the fleet.

    Args:
        folder: Where logs and marks go.
        broker: URL.
        options: More flags for ``goose worker``.
        modules: Whose functions run.
        environ: More settings, by environment variable.
    """

    def __init__(
        self,
        folder: Path,
        broker: str,
        options: Sequence[str] = (),
        *,
        modules: Sequence[str] = ("tests.chaos.jobs",),
        environ: Mapping[str, str] = {},
    ) -> None:
        self.folder = folder
        self.marks = folder / "marks"
        self.marks.mkdir(exist_ok=True)
        self.broker = broker
        self.options = list(options)
        self.modules = list(modules)
        self.environ = dict(environ)
        self.supervisors: list[subprocess.Popen[bytes]] = []
        self.faults: list[Fault] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start one supervisor."""
        environ = os.environ | {
            "CHAOS_MARKS": str(self.marks),
            "PYTHONPATH": str(ROOT),
            "GOOSE_BROKER": self.broker,
            **self.environ,
        }
        command = [sys.executable, "-m", "goose", "worker", *self.modules, *self.options]
        with (self.folder / "workers.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environ, stdout=log, stderr=log
            )
        self.supervisors.append(process)
        return process

    def children(self, supervisor: subprocess.Popen[bytes]) -> list[int]:
        """Return the worker processes of *supervisor*."""
        try:
            text = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def living(self) -> list[subprocess.Popen[bytes]]:
        """Return the supervisors that run."""
        return [process for process in self.supervisors if process.poll() is None]

    def kill_child(self, chance: random.Random) -> bool:
        """SIGKILL a random worker process; say whether there was one."""
        pids = [pid for process in self.living() for pid in self.children(process)]
        if not pids:
            return False
        pid = chance.choice(pids)
        began = time.monotonic()
        _send(pid, signal.SIGKILL)
        wait_until(lambda: not exists(pid), 10, f"process {pid} ends")
        # What it started until its end was met, too.
        self.faults.append(Fault("kill_child", pid, began, time.monotonic()))
        return True

    def kill_supervisor(self, chance: random.Random) -> None:
        """SIGKILL a random supervisor, whose children die with it, and start another."""
        process = self.staffed(chance)
        pids = self.children(process)
        began = time.monotonic()
        process.kill()
        process.wait(10)
        wait_until(lambda: not any(map(exists, pids)), 10, "children end with their supervisor")
        self.faults += [Fault("kill_supervisor", pid, began, time.monotonic()) for pid in pids]
        self.start()

    def staffed(self, chance: random.Random) -> subprocess.Popen[bytes]:
        """Return a random supervisor that has worker processes now; wait for one if need be."""
        wait_until(lambda: any(map(self.children, self.living())), 20, "a worker process is there")
        return chance.choice([process for process in self.living() if self.children(process)])

    def at_work(self, chance: random.Random) -> tuple[subprocess.Popen[bytes], list[int]]:
        """Return a random supervisor and its processes, which have all begun to run jobs; wait."""
        found: list[tuple[subprocess.Popen[bytes], list[int]]] = []

        def look() -> bool:
            found[:] = [
                (process, pids)
                for process in self.living()
                if (pids := self.children(process))
                and all((self.marks / f"{pid}.marks").exists() for pid in pids)
            ]
            return bool(found)

        wait_until(look, 30, "worker processes run jobs")
        return chance.choice(found)

    def pause(
        self,
        process: subprocess.Popen[bytes],
        pids: list[int],
        seconds: float,
        *,
        children_only: bool,
    ) -> None:
        """SIGSTOP *process* and its children *pids*, or only those, for *seconds*."""
        kind = "pause_child" if children_only else "pause_all"
        targets = pids if children_only else [process.pid, *pids]
        began = time.monotonic()
        for pid in targets:
            _send(pid, signal.SIGSTOP)
        time.sleep(seconds)
        for pid in targets:
            _send(pid, signal.SIGCONT)
        # What they start until they have found out that others have their jobs is met, too.
        until = time.monotonic() + 1.0
        self.faults += [Fault(kind, pid, began, until) for pid in pids]

    def stop(self, seconds: float = 30.0) -> list[int]:
        """SIGTERM all supervisors and wait; return their exit codes, SIGKILLing the late."""
        for process in self.living():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        codes = []
        for process in self.supervisors:
            try:
                codes.append(process.wait(max(0.1, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait(10))
        return codes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.living():
            process.kill()
            process.wait(10)


def exists(pid: int) -> bool:
    """Say whether *pid* still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself just now


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for *condition*, up to *seconds*.

    Raises:
        TimeoutError: It did not come about.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
