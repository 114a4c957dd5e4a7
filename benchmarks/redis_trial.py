"""One measurement of one side: a clean server, producers and workers in processes of their own.

What jobs did is read from the memory they share with us (see ``peers/jobs.py``), so that
counting costs the measured nothing, and a job that was lost or ran twice does not go unseen.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from redis_sides import PEERS, Side

sys.path.insert(0, str(PEERS.parent.parent))


DEADLINE = 120.0
"""Seconds any one measurement may take."""
SAMPLE = 0.001
"""Seconds between two looks at what is done."""
TWICE = 255


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return what these processes, all threads together, have used so far."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime((~pid << 3) | 2)  # the kernel's id of its CPU clock
    return total


def family(pid: int) -> list[int]:
    """Return *pid* and the processes under it."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                found += family(int(child))
    return found


class Trial:
    """A clean *server* for *side*, and a folder for what *places* jobs have done."""

    def __init__(self, side: Side, server: Any, folder: Path, places: int) -> None:
        self.side, self.server, self.places = side, server, places
        self.programs = side.installed()
        self.url = server.url
        self._folder = folder
        self._maps: list[mmap.mmap] = []
        self.wipe()

    def wipe(self) -> None:
        """Make the server clean."""
        self.server.client.flushall()

    def calm(self) -> None:
        """Let the server end what it does by itself, before it is measured."""

    def __enter__(self) -> Self:
        for name, size in (("done", 1), ("times", 16)):
            path = self._folder / name
            path.write_bytes(bytes(size * self.places))
            with path.open("r+b") as file:
                self._maps.append(mmap.mmap(file.fileno(), 0))
        return self

    def __exit__(self, *_: object) -> None:
        for mapped in self._maps:
            mapped.close()

    # --- what jobs did ----------------------------------------------------------------------

    def marks(self) -> bytes:
        """Return one byte for each job; see ``peers/jobs.py``."""
        return self._maps[0][:]

    def done(self, slot: int = 0) -> int:
        """Return how many jobs were run, by worker *slot* or by any."""
        marks = self.marks()
        return marks.count(slot) if slot else len(marks) - marks.count(0)

    def times(self) -> list[tuple[float, float]]:
        """Return the two instants of each job."""
        return list(struct.iter_unpack("dd", self._maps[1][:]))

    def forget(self) -> None:
        """Begin anew."""
        for mapped in self._maps:
            mapped[:] = bytes(len(mapped))

    def wait_for(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until *ready*, or give up."""
        deadline = time.monotonic() + DEADLINE
        while not ready():
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"{self.side.name}, {what}: not done within {DEADLINE:g} s; "
                    f"{self.done():,} of {self.places:,} jobs ran\n{self._logs()}"
                )
            time.sleep(SAMPLE)

    def check_once(self) -> None:
        """Say so if a job ran twice: its cost would count for nothing."""
        if twice := self.marks().count(TWICE):
            print(f"note: {self.side.name} ran {twice} jobs twice", file=sys.stderr)

    # --- processes --------------------------------------------------------------------------

    def produce(self, how: str, kind: str, count: int) -> float:
        """Enqueue in a process of its own; return jobs per second, start-up excluded."""
        command = [*self.side.producer(self.programs), how, kind, str(count)]
        done = subprocess.run(
            command,
            cwd=PEERS,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE + count * 0.03,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{self.side.name}: {' '.join(command)} failed:\n{done.stderr}")
        answer: Any = json.loads(done.stdout.splitlines()[-1])
        return float(answer["rate"])

    @contextlib.contextmanager
    def worker(self, slot: int = 1, concurrency: int | None = None) -> Iterator[int]:
        """Run one worker process; yields its pid."""
        concurrency = concurrency or self.side.concurrency
        argv = self.side.worker(self.programs, concurrency)
        command = [part.replace("{url}", self.url) for part in argv]
        env = self._environment(BENCH_SLOT=str(slot), BENCH_CONCURRENCY=str(concurrency))
        with (self._folder / f"worker-{slot}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=PEERS, env=env, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield process.pid
            if process.poll() is not None:
                raise SystemExit(f"{self.side.name}'s worker ended early:\n{self._logs()}")
        finally:
            _end(process)

    def _environment(self, **more: str) -> dict[str, str]:
        path = f"{self.programs}{os.pathsep}{os.environ.get('PATH', '')}"
        return {
            **os.environ,
            **self.side.environment,
            "PATH": path,
            "PYTHONPATH": str(PEERS),
            "BENCH_URL": self.url,
            "GOOSE_BROKER": self.url,
            "BENCH_FOLDER": str(self._folder),
            "BENCH_PEER": str(self.programs),
            **more,
        }

    def _logs(self) -> str:
        logs = sorted(self._folder.glob("worker-*.log"))
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a worker and its children: nothing of what it does now is measured."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
