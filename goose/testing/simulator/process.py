"""One worker process: the engine, its threads as actors, its end, its supervisor.

What `goose.worker.runner` does with threads is done here with actors: a loop for each step,
and a slot for each job that runs.

A supervised process writes notes of what runs. When it dies its supervisor, a place of its
own, settles what it held. The jobs of others are found by the orphan checkers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from goose.brokers.base import Session
from goose.calls import Offer
from goose.errors import BrokerError, SessionLost
from goose.middleware.base import Execution
from goose.testing.simulator.faults import Chance, Fault
from goose.testing.simulator.scenario import Scenario
from goose.testing.simulator.script import Script
from goose.testing.simulator.slots import Notes, Slot, classify
from goose.testing.simulator.supervisor import Supervisor
from goose.testing.simulator.timeline import Actor, Place, Timeline
from goose.testing.simulator.wire import Network, SimulatedClock, Wire
from goose.worker.aftermath import Cause
from goose.worker.config import WorkerConfig
from goose.worker.engine import Engine
from goose.worker.loops import Backoff, Step
from goose.worker.runner import FLUSH_SECONDS, INTERRUPT_SECONDS
from goose.worker.stops import given_back
from goose.worker.watch import Watch


class LoopActor(Actor):
    """Calls a step over and over, as `goose.worker.loops.Loop` does on a thread."""

    __slots__ = ("_again", "_backoff", "_due", "_idle", "_step", "_timeline", "stopped")

    def __init__(
        self,
        place: Place,
        timeline: Timeline,
        step: Step,
        idle: Callable[[float], float],
        random: random.Random,
    ) -> None:
        super().__init__(place)
        self._timeline = timeline
        self._step = step
        self._idle = idle
        self._backoff = Backoff(random)
        self._due = math.inf
        self._again = False
        self.stopped = False

    def kick(self) -> None:
        """Have the step called at once, or again if it is under way."""
        if self.busy:
            self._again = True
        else:
            self._plan(0.0)

    def _plan(self, delay: float) -> None:
        due = self._timeline.now + delay
        if due < self._due:
            self._due = due
            self._timeline.at(due, self, lambda: self._call(due))

    def _call(self, due: float) -> None:
        if due != self._due or self.stopped:
            return  # an earlier call has taken its place
        self._due, self._again = math.inf, False
        try:
            delay = self._idle(self._step(self._timeline.now))
        except BrokerError:
            delay = self._backoff.failed()
        else:
            self._backoff.succeeded()
        self._plan(0.0 if self._again else delay)


class Worker(Place):
    """One process, from its birth to its end.

    Args:
        gone: Called when it has ended.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        scenario: Scenario,
        script: Script,
        offer: Offer,
        chance: Chance,
        random: random.Random,
        gone: Callable[[Worker], None],
    ) -> None:
        super().__init__(name)
        self._network = network
        self._timeline = timeline = network.timeline
        self._ledger = network.ledger
        self.script = script
        self._chance = chance
        self._random = random
        self._gone = gone
        self.supervised = random.random() < 0.5
        self.clock = SimulatedClock(timeline)
        self.wire = self._make_wire(chance)
        self.notes = Notes()
        self._begun = False
        concurrency, async_slots = random.randint(1, 3), random.randint(1, 3)
        config = WorkerConfig(
            concurrency=concurrency, async_concurrency=async_slots, ttl=scenario.ttl
        )
        self.engine = self._engine(offer, config)
        scenario.change(self.engine)
        self._main = Actor(self)
        self._slots = [
            Slot(self, number, self._ledger, timeline)
            for number in range(concurrency + async_slots)
        ]
        self._make_loops(self.engine)

    def _make_wire(self, chance: Chance) -> Wire:
        return Wire(self._network, self, chance, self._crash)

    def _engine(self, offer: Offer, config: WorkerConfig) -> Engine:
        return Engine(
            self.wire,
            offer,
            config,
            session=Session(self.name),
            middleware=(self._observe,),
            metrics=(),
            resources={Script: self.script},
            notes=self.notes,
            clock=self.clock,
            random=self._random,
            wait=0.0,
        )

    def _make_loops(self, engine: Engine) -> None:
        """Make an actor of each step, and connect the wires between them."""
        watch = Watch(
            list,
            engine.buffer,
            slow_after=1e9,
            settle=engine.settle,
            tick=lambda now: None,
            clock=self.clock,
        )
        assert engine.heartbeat is not None
        random = self._random
        self._fetch = self._loop(self._fetch_step, self._fetch_delay)
        self._settle = self._loop(engine.settler.step)
        self._heartbeat = self._loop(engine.heartbeat.step)
        self._loop(engine.checker.step)
        self._loop(engine.promoter.step, lambda delay: delay * random.uniform(1.0, 3.0))
        self._loop(watch.step, lambda delay: delay * 10)
        engine.kicks.fetch = self._fetch.kick
        engine.kicks.settle = self._settle.kick
        engine.kicks.slots = self.fill

    def _loop(self, step: Step, idle: Callable[[float], float] | None = None) -> LoopActor:
        return LoopActor(self, self._timeline, step, idle or (lambda delay: delay), self._random)

    @property
    def running(self) -> list[Slot]:
        """Slots with a job in them."""
        return [slot for slot in self._slots if slot.work is not None]

    # --- life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Open the session and begin to take jobs, at once."""
        self._timeline.at(self._timeline.now, self._main, self._start)

    def _start(self) -> None:
        heartbeat = self.engine.heartbeat
        assert heartbeat is not None
        try:
            heartbeat.begin(self.clock.mono())
        except BrokerError:
            self.die("could not start")
            return
        self._begun = True
        for actor in self.actors:
            if isinstance(actor, LoopActor):
                actor.kick()

    def _crash(self, what: str, busy: bool) -> None:
        self._ledger.hit(self, what, until=math.inf, busy=busy)
        self.die(what)

    def die(self, what: str, *, cause: Cause = Cause.DIED) -> None:
        """End it here and now."""
        if not self.alive:
            return
        self._ledger.say(f"{self.name}: ends ({what})")
        self.alive = False
        if self.supervised and self._begun and self._random.random() < 0.8:
            # Else the supervisor has died with it, and the orphan checkers find its jobs.
            Supervisor(
                f"s{self.name[1:]}", self._network, self._chance, self._random,
                sessions=self.wire.opened, cause=cause, notes=self.notes,
            )  # fmt: skip
        self.drop()
        self._gone(self)

    def drop(self) -> None:
        """Forget what runs."""
        for slot in self.running:
            slot.drop()

    def stop(self, grace: float) -> None:
        """End it in good order, as `Runner.stop` does; jobs get *grace* seconds."""
        self._timeline.at(self._timeline.now, self._main, lambda: self._stop(grace))

    def _stop(self, grace: float) -> None:
        engine = self.engine
        self._ledger.say(f"{self.name}: stops within {grace:.1f} s")
        engine.settle([given_back(work) for work in engine.buffer.close()])
        engine.ask_to_stop()
        self._fetch.stopped = True
        self._until(lambda: not engine.buffer.running, grace, self._interrupt)

    def _interrupt(self) -> None:
        for slot in self.running:
            slot.interrupt()
        empty = lambda: not self.engine.buffer.running  # noqa: E731
        self._until(empty, INTERRUPT_SECONDS, self._flush)

    def _flush(self) -> None:
        settled = lambda: not (self._fetch.busy or self.engine.settler.pending)  # noqa: E731
        self._until(settled, FLUSH_SECONDS, self._spare)

    def _spare(self) -> None:
        # A job that can hardly bear another fault gets some time to end.
        self._until(lambda: self._ledger.may_hit(self), 5 * self._network.ttl, self._end)

    def _end(self) -> None:
        for actor in self.actors:
            if isinstance(actor, LoopActor):
                actor.stopped = True
        try:
            self.wire.end(self.engine.session)
        except BrokerError:
            self._ledger.say(f"{self.name}: cannot end its session")
        held = self._ledger.held(self)
        what = "stop that left jobs" if held else "clean stop"
        if held:
            self._ledger.hit(self, what, until=math.inf)
        else:
            self._ledger.note(what, busy=True, who=self.name)
        self.die(what, cause=Cause.LEFT)

    def _until(
        self, condition: Callable[[], bool], seconds: float, then: Callable[[], None]
    ) -> None:
        deadline = self._timeline.now + seconds

        def look() -> None:
            if condition() or self._timeline.now >= deadline:
                then()
            else:
                self._timeline.at(self._timeline.now + 0.2, self._main, look)

        look()

    def crash(self, what: str) -> None:
        """Let it die by a fault from outside."""
        self._crash(what, busy=False)

    def poison(self) -> None:
        """Let it die by one of its jobs."""
        self._ledger.hit(self, "poison", until=math.inf, innocent=False)
        self.die("poison")

    def pause(self, what: str, seconds: float) -> None:
        """Let it stand still for *seconds*, between two steps of its threads."""
        if not self._ledger.may_hit(self):
            return
        self._ledger.hit(self, what, until=self._timeline.now + seconds)
        self.pauses += 1
        later = self._timeline.now + seconds
        self._timeline.at(later, self._network.outside, self._resume)

    def _resume(self) -> None:
        self._ledger.say(f"{self.name}: goes on")
        self._timeline.resume(self)

    # --- work -----------------------------------------------------------------------------

    @contextmanager
    def _observe(self, execution: Execution) -> Iterator[None]:
        """A middleware that notes how the run ends."""
        slot = next(s for s in self.running if s.work and s.work.execution is execution)
        try:
            yield
        except BaseException as error:
            slot.ended(classify(error))
            raise
        slot.ended("fine")

    def ended(self) -> None:
        """Go on after a run; maybe something happens between that and its ack."""
        match self._chance("finish", busy=True):
            case (Fault.CRASH, _) if self._ledger.may_hit(self):
                self._crash("crash between a run and its ack", busy=True)
            case (Fault.PAUSE, _):
                ttl = self._network.ttl
                self.pause("pause between a run and its ack", self._random.uniform(0.8, 2.5) * ttl)
            case _:
                pass
        self._timeline.at(self._timeline.now, self._main, self.fill)

    def _fetch_step(self, now: float) -> float:
        try:
            return self.engine.fetcher.step(now)
        except SessionLost:
            self._heartbeat.kick()
            raise

    def _fetch_delay(self, delay: float) -> float:
        # A broker would wake it; here it looks again after a while.
        if delay == 0 and self.engine.fetcher.found_nothing:
            return self._random.uniform(0.1, 2.0)
        return delay

    def fill(self) -> None:
        """Let every free slot take a job, if there is one for it."""
        for take in (self.engine.take, self.engine.take_async):
            for slot in self._slots:
                if slot.work is None:
                    work = take()
                    if work is None:
                        break
                    slot.start(work)
