"""What is measured, on both sides, through the same small interface.

Each `Side` puts jobs into a fresh SQLite file and starts one worker process on it. Both
sync every commit (``synchronous=FULL``), keep no results, and run one job at a time.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import work

HERE = Path(__file__).parent
SCRIPTS = Path(sys.executable).parent


class Side(ABC):
    """One library on one fresh database file in *folder*."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.database = folder / f"{self.name}.db"
        self.notes = folder / f"{self.name}.notes"

    @abstractmethod
    def single(self, count: int) -> None:
        """Enqueue *count* no-ops, each by its own call, each durable when the call returns."""

    @abstractmethod
    def bulk(self, count: int) -> None:
        """Enqueue *count* no-ops by the library's way for many."""

    @abstractmethod
    def mark(self, name: str) -> None:
        """Enqueue a job that writes down when it ran."""

    @abstractmethod
    def stamp(self, sent: float) -> None:
        """Enqueue a job that writes down its latency since *sent*, a monotonic reading."""

    @abstractmethod
    def waiting(self) -> int:
        """Return how many jobs are still stored."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line of one worker process."""

    def environment(self) -> dict[str, str]:
        """Return what the worker's environment has besides ours."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    @contextlib.contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run one worker process; it is asked to stop at the end."""
        log = self.database.with_suffix(".log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.command(),
                cwd=HERE,
                env={**os.environ, **self.environment()},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
            if process.poll() is not None:
                raise SystemExit(f"{self.name}'s worker ended early:\n{log.read_text()}")
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Goose(Side):
    """Goose, with its defaults but for one thread instead of ten."""

    name = "goose"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import goose

        self.client = goose.Client(f"sqlite:///{self.database}")

    def single(self, count: int) -> None:
        for _ in range(count):
            self.client.enqueue(work.noop)

    def bulk(self, count: int) -> None:
        self.client.enqueue_many(work.noop, [()] * count)

    def mark(self, name: str) -> None:
        self.client.enqueue(work.mark, str(self.notes), name)

    def stamp(self, sent: float) -> None:
        self.client.enqueue(work.stamp, str(self.notes), sent)

    def waiting(self) -> int:
        return sum(sum(queue.counts.values()) for queue in self.client.inspector.queues())

    def command(self) -> list[str]:
        return [
            *[str(SCRIPTS / "goose"), "worker", "work"],
            *["--broker", f"sqlite:///{self.database}"],
            *["--processes", "1", "--concurrency", "1", "--queues", "default"],
        ]

    def close(self) -> None:
        self.client.close()


class Huey(Side):
    """huey's consumer with one worker thread and its poll shortened from 100 ms to 10 to 50."""

    name = "huey"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        os.environ.update(self.environment())
        sys.modules.pop("huey_app", None)
        self.app: ModuleType = importlib.import_module("huey_app")

    def single(self, count: int) -> None:
        for _ in range(count):
            self.app.noop()

    def bulk(self, count: int) -> None:
        self.single(count)  # it has no call for many

    def mark(self, name: str) -> None:
        self.app.mark(str(self.notes), name)

    def stamp(self, sent: float) -> None:
        self.app.stamp(str(self.notes), sent)

    def waiting(self) -> int:
        return int(self.app.huey.pending_count())

    def command(self) -> list[str]:
        consumer = [str(SCRIPTS / "huey_consumer"), "huey_app.huey", "-w", "1", "-k", "thread"]
        return [*consumer, "-n", "-d", "0.01", "-m", "0.05", "-q"]

    def environment(self) -> dict[str, str]:
        return {"BENCH_DB": str(self.database)}

    def close(self) -> None:
        self.app.huey.storage.close()


SIDES: tuple[type[Side], ...] = (Goose, Huey)
