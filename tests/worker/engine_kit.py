"""What the tests of the engine's parts share: a clock to turn by hand, and ready-made parts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from goose.brokers.base import Delivery, Session, Share
from goose.brokers.memory import MemoryBroker
from goose.calls import Offer
from goose.jobs import Job, new_id, seal
from goose.middleware.base import Middleware
from goose.worker.config import WorkerConfig
from goose.worker.engine import Engine, NoNotes

APP = """
import asyncio
from goose import Bury, Postpone, Skip

calls = []

def note(*args, **kwargs):
    calls.append((args, kwargs))
    return len(calls)

async def anote(*args):
    await asyncio.sleep(0)
    calls.append((args, {}))

def fail(text="no"):
    raise ValueError(text)

async def afail():
    raise ValueError("async no")

def postpone(seconds: float):
    raise Postpone(seconds)

def bury(reason: str):
    raise Bury(reason)

def skip():
    raise Skip("nothing to do")

def leave(code: int):
    raise SystemExit(code)

def strict(number: int):
    calls.append(((number,), {}))

def told(job, error):
    calls.append((("told", job.id, type(error).__name__, job.attempt), {}))

def told_badly(job, error):
    raise RuntimeError("the callback is broken")

class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def fail_silently():
    raise Silent()
"""


class HandClock:
    """Both readings of time, turned by hand."""

    def __init__(self, mono: float = 100.0, wall: float | None = None) -> None:
        self.now = mono
        self.offset = (time.time() if wall is None else wall) - mono

    def mono(self) -> float:
        """Return seconds since some start."""
        return self.now

    def wall(self) -> float:
        """Return epoch seconds."""
        return self.now + self.offset

    def turn(self, seconds: float) -> None:
        """Let *seconds* pass."""
        self.now += seconds


def write_app(folder: Path) -> Any:
    """Write the functions of the tests into *folder*, which is importable, and import them."""
    import importlib

    (folder / "engine_app.py").write_text(APP)
    importlib.invalidate_caches()
    return importlib.import_module("engine_app")


def job(fn: str = "note", *args: Any, **fields: Any) -> Job[Any]:
    """Return a job for a function of the tests' module."""
    fields.setdefault("enqueued_at", time.time())
    return Job(new_id(), f"engine_app:{fn}", args, **fields)


class Bench:
    """An engine on a memory broker, with a session of its own, driven by hand."""

    def __init__(
        self,
        *,
        broker: Any = None,
        clock: HandClock | None = None,
        middleware: Sequence[Middleware] = (),
        opened: bool = True,
        **config: Any,
    ) -> None:
        self.clock = clock or HandClock()
        self.broker: Any = broker or MemoryBroker(clock=self.clock.wall)
        self.session = Session(new_id())
        self.config = WorkerConfig(queues=(Share("default"),), **config)
        offer = Offer(["engine_app"])
        offer.load()
        if opened:
            self.broker.open(self.session, ttl=self.config.ttl)
        self.engine = Engine(
            self.broker,
            offer,
            self.config,
            session=self.session,
            middleware=middleware,
            metrics=(),
            resources={},
            notes=NoNotes(),
            clock=self.clock,
            random=random.Random(7),
            wait=0.0,
        )

    def enqueue(self, *jobs: Job[Any]) -> None:
        """Store *jobs*, ready now."""
        self.broker.enqueue([seal(one) for one in jobs])

    def fetch(self) -> None:
        """Take what there is room for."""
        self.engine.fetcher.step(self.clock.mono())

    def run_all(self) -> int:
        """Run every sync job that may run now, one after the other; return how many."""
        count = 0
        while (work := self.engine.take()) is not None:
            work.slot = 0
            self.engine.run(work, _call)
            count += 1
        return count

    def settle(self) -> None:
        """Settle what has ended."""
        self.engine.settler.step(self.clock.mono())

    def round(self) -> None:
        """Fetch, run and settle once."""
        self.fetch()
        self.run_all()
        self.settle()


def _call(fn: Callable[[Any], Any], execution: Any) -> None:
    fn(execution)


def lend(bench: Bench, limit: int = 100) -> list[Delivery]:
    """Take deliveries from the bench's broker past its engine."""
    found = bench.broker.dequeue(bench.session, (Share("default"),), limit=limit, wait=0.0)
    return list(found)
