"""Where features are tested: a broker with a store, alike whatever they are.

A test that takes the fixture ``place`` runs once on each of `EVERYWHERE`, and on those that the
variable ``PLACES`` names (``PLACES=rabbitmq+redis,rabbitmq+sqlite``, see `make features`). Each test
has a namespace of its own there.

A `Process` is one worker process driven by hand, without threads. With a `Tripwire` it dies before
or after its k-th call to broker or store; `Place.bury` then does what its supervisor would, and
another process goes on. `crash_points` does that for every k and both sides.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import goose
from goose.brokers import connect
from goose.brokers.base import Broker, Session, Sessions, Share, State
from goose.calls import Offer
from goose.jobs import new_id
from goose.metrics.base import Metrics
from goose.settings import Settings
from goose.stores import OnDemand
from goose.stores.base import Operation, Store
from goose.testing.faults import Crash, FaultyBroker
from goose.worker.clock import SystemClock
from goose.worker.config import WorkerConfig
from goose.worker.engine import Engine, NoNotes
from goose.worker.recovery import Verdict, settle_orphans

EVERYWHERE = ("memory", "sqlite", "redis", "postgres")
PLACES = (*EVERYWHERE, *filter(None, os.environ.get("PLACES", "").split(",")))
ALL = os.environ.get("CRASHES") == "all"
SOME = 7
"""One call of so many is a place to crash at, where calls take long."""
PATIENCE = 60.0
"""Seconds until a process that should have come to rest is given up."""


class Tripwire:
    """Counts calls, and crashes at one of them."""

    def __init__(self, at: int = 0, side: Literal["before", "after"] = "before") -> None:
        self.at = at
        self.side = side
        self.calls: list[str] = []

    def call(self, name: str, do: Callable[[], Any]) -> Any:
        """Return what *do* returns, unless the process dies before or after it."""
        self.calls.append(name)
        trips = len(self.calls) == self.at
        if trips and self.side == "before":
            raise Crash(f"before call {self.at}, {name}")
        try:
            return do()
        finally:
            if trips:  # also after an answer that is an error
                raise Crash(f"after call {self.at}, {name}")


class WiredBroker(FaultyBroker):
    """A broker behind a tripwire."""

    def __init__(self, broker: Broker, wire: Tripwire) -> None:
        self._wire = wire
        super().__init__(broker)

    def _call(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        return self._wire.call(verb, lambda: getattr(self.broker, verb)(*args, **kwargs))


class WiredStore:
    """A store behind a tripwire."""

    def __init__(self, store: Store, wire: Tripwire) -> None:
        self._store = store
        self._wire = wire

    def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
        """One counted call."""
        what = "+".join(type(each).__name__ for each in operations)
        return self._wire.call(what, lambda: self._store.apply(operations))

    def scan(self, prefix: str, *, limit: int = 100, after: str = "") -> Sequence[Any]:
        """One counted call."""
        return self._wire.call("scan", lambda: self._store.scan(prefix, limit=limit, after=after))

    def now(self) -> float:
        """By the clock of the store, uncounted."""
        return self._store.now()

    def close(self) -> None:
        """Close it."""
        self._store.close()


class Place:
    """A broker and a store, in a namespace that nobody else uses.

    Args:
        url: Of the broker.
        store_url: Of the store; the broker's own if left out.
    """

    def __init__(self, name: str, url: str, store_url: str | None = None) -> None:
        self.name = name
        self.url = url
        self.store_url = store_url
        self.settings = Settings(broker=url, store=store_url)
        self.client = goose.Client(settings=self.settings)
        self.broker = self.client.broker
        self._on_demand = self.store_on_demand(self.broker)
        self._processes: list[Process] = []

    @property
    def store(self) -> Any:
        """The store, to look into."""
        return self._on_demand.open()

    def store_on_demand(self, broker: Broker) -> OnDemand:
        """Return the store, not opened yet."""
        return OnDemand(broker, self.store_url, broker_url=self.url)

    def process(self, wire: Tripwire | None = None, **config: Any) -> Process:
        """Return a fresh worker process."""
        made = Process(self, wire or Tripwire(), **config)
        self._processes.append(made)
        return made

    def worker(self, allow: Sequence[str], **more: Any) -> goose.Worker:
        """Return an embedded worker, with threads."""
        with configured(broker=self.url, store=self.store_url):
            return goose.Worker(self.url, allow=allow, **more)

    def bury(self, process: Process) -> None:
        """Do what follows the death of *process*: what it held is given back."""
        process.die()
        broker = self.broker
        if isinstance(broker, Sessions):
            own = Session(f"supervisor-{uuid.uuid4()}")
            broker.open(own, ttl=60)
            while orphans := broker.recover(own, limit=100, dead=process.session):
                settle_orphans(
                    broker,
                    orphans,
                    lambda _: Verdict.UNSTARTED,
                    now=time.time(),
                    random=random.Random(1),
                )
            broker.end(own)

    def counts(self) -> Mapping[State, int]:
        """Return how many jobs are in each state."""
        inspector = self.client.inspector
        return {state: inspector.count(state) for state in State if self._sees(state)}

    def _sees(self, state: State) -> bool:
        return not self.url.startswith("amqp") or state in (State.READY, State.DEAD)

    def close(self) -> None:
        """Let go of everything."""
        for process in self._processes:
            process.die()
        self._on_demand.close()
        self.client.close()


class Process:
    """One worker process, driven by hand."""

    def __init__(
        self,
        place: Place,
        wire: Tripwire,
        *,
        allow: Sequence[str] = ("feature_app",),
        queues: Sequence[str] = ("default",),
        metrics: Sequence[Metrics] = (),
        **config: Any,
    ) -> None:
        self.wire = wire
        self.session = Session(new_id())
        # As in a process of its own; the memory broker's is the same, by its URL.
        self._own = connect(place.url)
        self._store = place.store_on_demand(self._own)
        self.broker: Any = WiredBroker(self._own, wire)
        self._alive = True
        self._pushed = place.url.startswith("amqp")
        offer = Offer(allow)
        offer.load()
        if isinstance(self._own, Sessions):
            self._own.open(self.session, ttl=60)
        wired: Any = WiredStore(self._store.open(), wire)
        self.clock = SystemClock()
        self.engine = Engine(
            self.broker,
            offer,
            WorkerConfig(queues=tuple(Share(queue) for queue in queues), **config),
            session=self.session,
            middleware=(),
            metrics=metrics,
            resources={},
            notes=NoNotes(),
            clock=self.clock,
            random=random.Random(7),
            wait=1.0 if self._pushed else 0.0,
            store=lambda: wired,
        )

    def step(self) -> bool:
        """Promote, fetch, run and settle once; say whether it did anything."""
        engine = self.engine
        engine.promoter.step(self.clock.mono())
        engine.fetcher.step(self.clock.mono())
        ran = 0
        while (work := engine.take()) is not None:
            work.slot = 0
            engine.run(work, lambda fn, execution: fn(execution))
            ran += 1
        engine.progress.step(self.clock.mono())
        pending = engine.settler.pending
        engine.settler.step(self.clock.mono())
        return bool(ran or pending or not engine.fetcher.found_nothing)

    def run(self, until: Callable[[], object] | None = None) -> None:
        """Work until nothing is ready, or until *until* is true."""
        deadline = time.monotonic() + PATIENCE
        # RabbitMQ sends jobs when it pleases, and again after a while if they were sent before. Few
        # and long waits, since each is one more place to crash at.
        needed = 4 if self._pushed else 1
        quiet = 0
        while quiet < needed if until is None else not until():
            quiet = 0 if self.step() else quiet + 1
            assert time.monotonic() < deadline, "it does not come to rest"

    def die(self) -> None:
        """End as a killed process does: nothing is given back."""
        if self._alive:
            self._alive = False
            self._store.close()
            self._own.close()


def crash_points(
    place: Callable[[], Place], scene: Callable[[Place, Process], None]
) -> Iterator[tuple[Place, str]]:
    """Yield, for each call of a process and both sides of it, the place after a crash there.

    All of them in memory, and some of them elsewhere; with ``CRASHES=all`` all of them everywhere.

    Args:
        place: Returns a fresh place.
        scene: Sets the stage there; the process then works until it dies, and is buried.

    Yields:
        The place, where the test goes on with another process, and where the crash was.
    """
    for side in ("before", "after"):
        at = 1
        while True:
            here = place()
            process = here.process(Tripwire(at, side))  # type: ignore[arg-type]
            try:
                scene(here, process)
                process.run()
            except Crash as crash:
                here.bury(process)
                yield here, str(crash)
            else:
                here.close()
                break
            here.close()
            at += 1 if here.name == "memory" or ALL else SOME


class configured:
    """Settings of this process inside of a ``with``."""

    def __init__(self, **given: Any) -> None:
        self._given = {name: value for name, value in given.items() if value is not None}

    def __enter__(self) -> None:
        goose.configure(**self._given)

    def __exit__(self, *_: object) -> None:
        goose.configure()
