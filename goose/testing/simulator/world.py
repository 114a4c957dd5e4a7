"""A world: one broker, some workers, a client, and what happens to them.

First the storm: jobs are enqueued, and calls, processes, clocks and the network fail. Then no
more is injected (poison jobs still are what they are), and everything must drain by itself:
every job done or dead, every worker empty, every session of a dead process forgotten.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from goose.brokers.base import State
from goose.calls import Offer
from goose.clients import Client
from goose.errors import EnqueueError
from goose.jobs import Job
from goose.retries import Exponential, Retry
from goose.settings import Settings
from goose.testing.simulator import faults, functions
from goose.testing.simulator.ledger import Ledger
from goose.testing.simulator.process import Worker
from goose.testing.simulator.scenario import Scenario
from goose.testing.simulator.script import MAX_RETRIES, Hopeless, Part, Script, draw
from goose.testing.simulator.timeline import Actor, Place, Timeline
from goose.testing.simulator.wire import EPOCH, Network, Wire

RETRY = Retry(
    max_retries=MAX_RETRIES, backoff=Exponential(first=1.0, longest=5.0), give_up_on=[Hopeless]
)


@dataclass(frozen=True, slots=True)
class Story:
    """What happened in one world."""

    seed: int
    violations: list[str]
    trace: list[str]
    """What happened, line by line; empty unless it was asked for."""
    injected: Counter[str]
    """Faults by kind."""
    overlapped: Counter[str]
    """Those that found jobs in flight."""
    runs: int
    duplicates: int
    """Runs that a fault made necessary though the job had been run."""
    seconds: float
    """Virtual seconds until all was quiet."""
    calls: int
    """Calls to the broker by workers and supervisors."""
    seen: Counter[str] = field(default_factory=Counter)
    """What features did, by kind; empty where jobs use none."""


class World:
    """One world; `run` it once."""

    def __init__(self, seed: int, scenario: Scenario, *, trace: bool = False) -> None:
        self.scenario = scenario
        self.seed = seed
        self.random = chance = random.Random(seed)
        self.timeline = timeline = Timeline(chance)
        self.script = self._draw()
        self.ledger = self._make_ledger(trace=trace)
        clock = lambda: EPOCH + timeline.now  # noqa: E731
        self.broker = scenario.broker(clock=clock, random=random.Random(seed + 1))
        self.network = Network(self.broker, timeline, self.ledger, chance, scenario.ttl)
        self.calls = 0
        self._workers: list[Worker] = []
        self._born = 0
        self._offer = _offer()
        self._chance = self._choose_chance()
        self._client_actor: Actor
        self._make_clients()

    # --- what another kind of world makes of its own ----------------------------------------

    def _draw(self) -> Script:
        scenario = self.scenario
        count = self.random.randint(*scenario.jobs)
        return draw(self.random, count, until=scenario.stormy * 0.8, ttl=scenario.ttl)

    def _make_ledger(self, *, trace: bool) -> Ledger:
        return Ledger(self.script, lambda: self.timeline.now, trace=trace)

    def _make_worker(self, name: str) -> Worker:
        return Worker(
            name, self.network, self.scenario, self.script, self._offer,
            self._chance, random.Random(self.random.random()), self._gone,
        )  # fmt: skip

    def _drained(self) -> bool:
        """Say whether all that was asked for has come to its end; asked after all that happens."""
        return self._is_over()

    def _is_over(self) -> bool:
        """Say the same, as it is now."""
        return not self.ledger.open

    def _seen(self) -> Counter[str]:
        """Return what happened besides jobs that run and faults."""
        return Counter()

    def _choose_chance(self) -> faults.Chance:
        scenario = self.scenario
        if scenario.crash_at is not None:
            draw_fault = faults.once(*scenario.crash_at)
        else:
            rate = scenario.rate * self.random.choice([0.3, 1.0, 2.0])
            draw_fault = faults.by_chance(self.random, rate, lambda: self.calm)

        def counted(verb: str, *, busy: bool) -> tuple[faults.Fault, bool] | None:
            self.calls += 1
            return draw_fault(verb, busy=busy)

        return counted

    @property
    def calm(self) -> bool:
        """Whether the storm is over."""
        return self.timeline.now >= self.scenario.stormy

    # --- the client -----------------------------------------------------------------------

    def _make_clients(self) -> None:
        place = Place("client")
        self._client_actor = Actor(place)

        def unsure(verb: str, *, busy: bool) -> tuple[faults.Fault, bool] | None:
            if self.calm or self.scenario.crash_at or self.random.random() > 0.2:
                return None
            fault = self.random.choice([faults.Fault.ERROR, faults.Fault.SLOW])
            return fault, self.random.random() < 0.3

        wire = Wire(self.network, place, unsure, lambda what, busy: None, about_jobs=True)
        client = Client(wire, retry=RETRY, settings=Settings())
        for part in self.script.parts:
            self._later(part.enqueued_at, lambda part=part: self._enqueue(client, part))  # type: ignore[misc]

    def _later(self, when: float, action: Callable[[], None]) -> None:
        self.timeline.at(when, self._client_actor, action)

    def _enqueue(self, client: Client, part: Part) -> None:
        fn = functions.work_async if part.is_async else functions.work
        try:
            if part.delay is None:
                job: Job[object] = client.enqueue(fn, part.number)
            else:
                job = client.enqueue_in(part.delay, fn, part.number)
        except EnqueueError as error:
            self._again(client, error)
        else:
            self.ledger.acknowledge(job.id)

    def _again(self, client: Client, error: EnqueueError) -> None:
        """Submit once more what may not have been stored."""
        [job] = error.jobs
        self.ledger.unsure(job.id, self.script.part_of(job))

        def submit() -> None:
            try:
                client.submit(error.jobs)
            except EnqueueError as again:
                self._again(client, again)
            else:
                self.ledger.acknowledge(job.id)

        self._later(self.timeline.now + self.random.uniform(0.0, 3.0), submit)

    # --- the workers ----------------------------------------------------------------------

    def _spawn(self) -> None:
        self._born += 1
        worker = self._make_worker(f"w{self._born}")
        self._workers.append(worker)
        worker.start()

    def _gone(self, worker: Worker) -> None:
        self._workers.remove(worker)
        soon = self.timeline.now + self.random.uniform(0.05, 4.0)
        self.timeline.at(soon, self.network.outside, self._spawn)

    # --- the weather ----------------------------------------------------------------------

    def _event(self) -> None:
        """Do something to a worker, preferably a busy one, or to all."""
        chance, ttl, ledger = self.random, self.scenario.ttl, self.ledger
        if not self._workers:
            return
        busiest = max(self._workers, key=lambda worker: (ledger.held(worker), worker.name))
        worker = busiest if chance.random() < 0.7 else chance.choice(self._workers)
        kind = chance.choice(["outage", "outage", "crash", "pause", "cut", "jump", "stop", "stop"])
        seconds = chance.uniform(0.3, 2.5) * ttl
        now = self.timeline.now
        if kind == "outage":
            ledger.note(kind, busy=any(ledger.held(worker) for worker in self._workers))
            self.network.down_until = max(self.network.down_until, now + seconds)
        elif kind == "jump":
            ledger.note(kind, busy=ledger.held(worker) > 0)
            worker.clock.jumped += chance.choice([-3600.0, 3600.0])
        elif kind == "stop":
            ledger.note(kind, busy=ledger.held(worker) > 0)
            worker.stop(chance.uniform(0.0, 1.5) * ttl)
        elif kind == "pause":
            worker.pause("pause at any moment", seconds)
        elif ledger.may_hit(worker):
            if kind == "crash":
                worker.crash("crash at any moment")
            else:
                worker.wire.cut_until = now + seconds
                ledger.hit(worker, "cut off", until=now + seconds)

    # --- from the beginning to the end ----------------------------------------------------

    def run(self) -> Story:
        """Play it; return what happened."""
        scenario, ledger, timeline = self.scenario, self.ledger, self.timeline
        for _ in range(self.random.randint(*scenario.seats)):
            self._spawn()
        if scenario.crash_at is None:
            for _ in range(self.random.randint(*scenario.events)):
                when = self.random.uniform(0.0, scenario.stormy)
                timeline.at(when, self.network.outside, self._event)
        timeline.run(scenario.stormy, self._is_broken)
        self._drain()
        if not self._is_broken():
            self._close()
        for worker in self._workers:
            worker.drop()
        return Story(
            self.seed, ledger.violations, ledger.trace or [], ledger.injected, ledger.overlapped,
            ledger.runs, ledger.duplicates, timeline.now, self.calls, self._seen(),
        )  # fmt: skip

    def _drain(self) -> None:
        """Let all that was asked for come to its end, and all that is left of it."""
        timeline, scenario = self.timeline, self.scenario
        end = scenario.stormy + scenario.patience
        while timeline.run(end, lambda: self._drained() or self._is_broken()):
            # What is left of dead sessions is found once they have lapsed.
            later = timeline.now + 6 * scenario.ttl
            timeline.run(later, lambda: self._is_broken() or self._quiet())
            # A process that had lost a job, and ends it only now, may set others free.
            if self._is_broken() or self._is_over():
                return

    def _is_broken(self) -> bool:
        return bool(self.ledger.violations)

    def _states(self) -> dict[str, str]:
        states: dict[str, str] = {}
        for state in State:
            shown = "lent" if state is State.RUNNING else "stored"
            for stored in self.broker.page(state, limit=1000).items:
                states[stored.envelope.id] = "dead" if state is State.DEAD else shown
        return states

    def _leaks(self) -> Iterator[str]:
        store = self.broker._store  # noqa: SLF001 - only the simulator looks inside
        sessions = {worker.engine.session for worker in self._workers}
        if set(store.living) != sessions:
            yield f"sessions {[s.key for s in store.living]} are not {[s.key for s in sessions]}"
        if store.dead or store.loans:
            yield f"{len(store.dead)} dead sessions, {len(store.loans)} loans are left"
        for worker in self._workers:
            engine = worker.engine
            if not engine.buffer.idle or engine.settler.pending or engine.running:
                yield f"{worker.name} is not empty"

    def _quiet(self) -> bool:
        return next(self._leaks(), None) is None

    def _close(self) -> None:
        for leak in self._leaks():
            self.ledger.wrong(leak)
        self.ledger.close(self._states())


_offered: list[Offer] = []


def _offer() -> Offer:
    if not _offered:
        offer = Offer([functions.__name__])
        offer.load()
        _offered.append(offer)
    return _offered[0]
