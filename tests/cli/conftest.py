"""A database with jobs in every state, and the command line in this process."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import Session, Share, State
from goose.brokers.sqlite import SQLiteBroker
from goose.cli import main
from goose.clients import Client
from goose.jobs import Envelope, Failure, Job, decode, seal
from goose.settings import Settings

SECRET = "canary-4711"
DIED_AT = 1_700_000_000.0


def send(to: str, *, subject: str = "") -> None: ...


def count(n: int) -> None: ...


class Shop:
    """A database file, and ways to bring its jobs into a state."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/shop.db"
        self.broker = SQLiteBroker(self.url)
        self.client = Client(self.broker, settings=Settings())
        self.session = Session("holder")
        self.broker.open(self.session, ttl=1000)

    def ready(self, n: int = 1, *, queue: str = "default") -> list[str]:
        """Store ready jobs whose argument is the secret."""
        jobs = self.client.using(queue=queue).enqueue_many(send, [(SECRET,)] * n)
        return [job.id for job in jobs]

    def scheduled(self) -> str:
        return self.client.enqueue_in(3600, send, SECRET).id

    def running(self) -> str:
        self.client.using(queue="busy").enqueue(count, 1)
        return self._take("busy")[0].envelope.id

    def dead(self, n: int = 1, *, queue: str = "default", fn: Any = send) -> list[str]:
        """Store jobs and bury them, each a second later than the one before."""
        line = f"{queue}-burial"
        arguments = [(SECRET,) if fn is send else (number,) for number in range(n)]
        self.client.using(queue=line).enqueue_many(fn, arguments)
        ids = []
        for delivery in self._take(line):
            failure = Failure(
                "app:Oops", "no \x1b[31mgood", DIED_AT, DIED_AT, "a trace", DIED_AT, "retries"
            )
            job: Job[Any] = decode(delivery.envelope)
            job = job.evolve(queue=queue, attempt=3, failure=failure)
            self.broker.bury([(delivery, seal(job))])
            ids.append(job.id)
        return ids

    def garbage(self) -> str:
        """Store a ready job that is none."""
        self.broker.enqueue([Envelope("garbage", "default", b"\x00 not a job")])
        return "garbage"

    def _take(self, queue: str) -> Any:
        return self.broker.dequeue(self.session, [Share(queue)], limit=1000, wait=0)

    def state(self, id_: str) -> State | None:
        stored = self.broker.find(id_)
        return stored.state if stored else None

    def first(self, queue: str = "default") -> str:
        """Return the id of the job a worker would get next."""
        return self.broker.page(State.READY, queue).items[0].envelope.id


@pytest.fixture
def shop(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A database that is the configured one."""
    made = Shop(own_folder)
    monkeypatch.setenv("GOOSE_BROKER", made.url)
    yield made
    made.broker.close()


@dataclass
class Ran:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert 0 == self.code, self.err
        return json.loads(self.out)


class Terminal(io.StringIO):
    """An input somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """A function that runs ``goose`` with these arguments; *types* is what somebody answers."""

    def run(*arguments: str, types: str | None = None) -> Ran:
        monkeypatch.setattr(sys, "argv", ["goose", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO() if types is None else Terminal(types))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return Ran(int(end.value.code or 0), printed.out, printed.err)

    return run
