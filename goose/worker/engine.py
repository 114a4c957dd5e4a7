"""One worker process's machinery, put together from its steps, without a thread.

A job's way through it, each arrow a short function::

    Fetcher.step → Buffer.put → Buffer.take → Engine.run → Settler.add → Settler.step
       dequeue,        held        a slot       outcome       pending      ack, requeue …
       prepare

Who calls the steps is not decided here: `goose.worker.runner` calls them from threads, the
simulator in `goose.testing` from one loop under a virtual clock. `Kicks` are the wires between
them: "there is room", "there is work", "there is something to settle".
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from goose.brokers.base import Broker, Delivery, Session, Sessions
from goose.calls import Offer
from goose.features.checkpoints import Checkpoints
from goose.features.results.progress import ProgressLog
from goose.features.traits import TTL, Traits
from goose.metrics.base import Metrics
from goose.middleware.base import Execution, Middleware
from goose.stores import OnDemand
from goose.stores.base import Store
from goose.worker.buffer import Buffer
from goose.worker.circuits import Circuits
from goose.worker.clock import Clock
from goose.worker.config import WorkerConfig
from goose.worker.execution import Executor
from goose.worker.fetch import Fetcher
from goose.worker.inside import Inside
from goose.worker.outcomes import FINAL, Outcome, Verb
from goose.worker.prepare import Preparer
from goose.worker.recovery import Recovered
from goose.worker.report import Report
from goose.worker.schedule import Gauge, Promoter
from goose.worker.sessions import Heartbeat, OrphanChecker
from goose.worker.settle import Settler
from goose.worker.stops import Stops, given_back
from goose.worker.traits import Gate
from goose.worker.transactions import Transactions
from goose.worker.work import Work


class Notes(Protocol):
    """Where a process notes what it runs, for whoever survives it."""

    def started(self, slot: int, job_id: str, hard_deadline_mono: float) -> None:
        """Note that *job_id* runs in *slot*; it must end by that monotonic instant, or `inf`."""
        ...

    def ended(self, slot: int) -> None:
        """Note that nothing runs in *slot*."""
        ...

    def grow(self, slots: int) -> bool:
        """Have room for *slots* jobs at once; say whether there is so much."""
        ...


class NoNotes:
    """For a process without a supervisor."""

    def started(self, slot: int, job_id: str, hard_deadline_mono: float) -> None:
        """Do nothing."""

    def ended(self, slot: int) -> None:
        """Do nothing."""

    def grow(self, slots: int) -> bool:
        """Return True."""
        return True


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Kicks:
    """What the engine calls when one of its parts has something to do."""

    fetch: Callable[[], None] = _nothing
    settle: Callable[[], None] = _nothing
    slots: Callable[[], None] = _nothing
    progress: Callable[[], None] = _nothing
    checkpoints: Callable[[], None] = _nothing


class Engine:
    """The parts of one worker process and what they share.

    Args:
        session: Opened by the caller, where the broker knows sessions.
        wait: Seconds a fetch blocks in the broker; 0 under a simulator.
        store: Returns what features remember in; the broker's own if left out.
        circuits: Say which queues are left alone for a while.
    """

    def __init__(
        self,
        broker: Broker,
        offer: Offer,
        config: WorkerConfig,
        *,
        session: Session,
        middleware: Sequence[Middleware],
        metrics: Sequence[Metrics],
        resources: Mapping[type, Any],
        notes: Notes,
        clock: Clock,
        random: random.Random,
        wait: float = 1.0,
        store: Callable[[], Store] | None = None,
        circuits: Circuits | None = None,
    ) -> None:
        self.config = config
        self.session = session
        self.kicks = Kicks()
        self.running: set[Work] = set()
        self.stops = Stops()
        self.report = Report(metrics)
        self.buffer = Buffer(config.concurrency, config.async_slots, on_room=self._on_room)
        preparer = Preparer(offer, config, middleware, clock, random)
        store = store or OnDemand(broker).open
        self.progress = ProgressLog(store, self._on_progress)
        self.checkpoints = Checkpoints(store, self._on_checkpoints)
        self.executor = Executor(
            offer,
            preparer,
            resources=resources,
            clock=clock,
            random=random,
            transactions=Transactions(broker, random),
            inside=Inside(self.progress, self.checkpoints, broker, store),
        )
        self.traits = Traits(
            broker,
            store,
            resolve=lambda name: offer.resolve(name).fn,
            metrics=self.report.metrics,
            mono=clock.mono,
            # A stop that its session outlives costs a job nothing that it holds either.
            ttl=max(TTL, config.ttl),
            random=random,
        )
        self.gate = gate = Gate(self.traits, preparer)
        self.settler = Settler(broker, self._on_settled, gate.ended, gate.retried)
        self.circuits = circuits
        if circuits is not None:
            circuits.on_open = self._on_open
        self.heartbeat = self._heartbeat(broker)
        self.fetcher = self._fetcher(broker, preparer, gate, clock, wait)
        self.promoter = Promoter(broker)
        self.checker = OrphanChecker(
            broker,
            config.ttl,
            session=lambda: self.session,
            on_recovered=self._on_recovered,
            on_doubt=self.fetcher.doubt,
            clock=clock,
            random=random,
        )
        self.gauge = Gauge(broker, config.queues, self.report.metrics)
        self.notes = notes
        self._clock = clock

    def _heartbeat(self, broker: Broker) -> Heartbeat | None:
        if not isinstance(broker, Sessions):
            return None
        return Heartbeat(broker, self.config.ttl, session=lambda: self.session, renew=self.renew)

    def _fetcher(
        self, broker: Broker, preparer: Preparer, gate: Gate, clock: Clock, wait: float
    ) -> Fetcher:
        return Fetcher(
            broker,
            self.buffer,
            preparer,
            self.config.queues,
            session=lambda: self.session,
            in_touch=lambda now: self.heartbeat is None or self.heartbeat.in_touch(now),
            settle=self.settle,
            on_work=self._on_work,
            admit=gate.admit,
            dropped=gate.dropped,
            clock=clock,
            wait=wait,
            stops=self.stops,
            circuits=self.circuits,
        )

    # --- a job in a slot ------------------------------------------------------------------

    def take(self) -> Work | None:
        """Return the next sync job to run, if there is one to run now."""
        return self._taken(self.buffer.take(self._clock.mono(), is_async=False))

    def take_async(self) -> Work | None:
        """Return the next async job to run, if there is one to run now."""
        return self._taken(self.buffer.take(self._clock.mono(), is_async=True))

    def _taken(self, work: Work | None) -> Work | None:
        if work is not None:
            self.running.add(work)
        return work

    def run(
        self, work: Work, call: Callable[[Callable[[Execution], Any], Execution], None]
    ) -> None:
        """Run *work* on this thread and hand its outcome to the settler; never raises."""
        self.notes.started(work.slot, work.job.id, self._hard_deadline(work))
        self.finish(work, self.executor.run(work, call))

    async def arun(self, work: Work) -> None:
        """Run *work* on this event loop and hand its outcome to the settler; never raises."""
        self.notes.started(work.slot, work.job.id, self._hard_deadline(work))
        self.finish(work, await self.executor.arun(work))

    def _hard_deadline(self, work: Work) -> float:
        timeout = work.job.timeout
        if timeout is None and self.config.hard_timeout is None:
            return math.inf
        limit = math.inf if timeout is None else timeout + self.config.hard_margin
        if self.config.hard_timeout is not None:
            limit = min(limit, self.config.hard_timeout)
        return self._clock.mono() + limit

    def finish(self, work: Work, outcome: Outcome) -> None:
        """Take *work* out of its slot; its outcome goes to the settler."""
        # From here on it is not what ends this process, whatever does.
        self.notes.ended(work.slot)
        self.running.discard(work)
        if self.progress.runs:
            self.progress.ended(work.job.id, final=outcome.ending in FINAL)
        now = self._clock.mono()
        self.buffer.ended(work, now - work.started_mono if work.started_mono else 0.0, now)
        if self.circuits is not None:
            self.circuits.ended(outcome)
        self.settler.add(outcome)
        self.kicks.settle()

    # --- the wires, looked up when used: whoever runs the engine connects them later -----

    def _on_room(self) -> None:
        self.kicks.fetch()

    def _on_work(self) -> None:
        self.kicks.slots()

    def _on_checkpoints(self) -> None:
        self.kicks.checkpoints()

    def _on_progress(self) -> None:
        self.kicks.progress()

    # --- around it ------------------------------------------------------------------------

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Hand outcomes of jobs that never had a slot to the settler."""
        self.buffer.settling(len(outcomes))
        for outcome in outcomes:
            if self.circuits is not None:
                self.circuits.ended(outcome)
            self.settler.add(outcome)
        self.kicks.settle()

    def _on_open(self, queue: str) -> None:
        """Give back what is held of a queue that is left alone from now on."""
        assert self.circuits is not None
        held_up = self.circuits.holds_up
        back = self.buffer.take_back(lambda work: held_up(work.delivery))
        if back:
            self.settle([given_back(work) for work in back])

    def _on_settled(self, batch: Sequence[Outcome], lost: Sequence[Delivery]) -> None:
        self.fetcher.forget([outcome.delivery for outcome in batch])
        self.buffer.settled(len(batch), self._clock.mono())
        self.report.settled(batch, lost)
        if self.gate.holds:
            self.gate.settled(batch)
        self.checkpoints.ended(
            outcome.delivery.envelope.id
            for outcome in batch
            if outcome.verb is Verb.ACK and outcome.delivery not in lost
        )
        if self.stops.marked:
            self.stops.settled(batch, lost)
        if self.buffer.suspect_waits:
            self.kicks.slots()

    def _on_recovered(
        self, orphans: Sequence[Delivery], recovered: Recovered, by_audit: bool
    ) -> None:
        self.report.recovered(orphans, recovered, by_audit=by_audit)

    def renew(self, session: Session) -> None:
        """Go on as *session*: the one before was given up, and its jobs belong to others.

        What was not started is dropped; what runs is asked to stop, and its outcome will be
        refused by the broker, unless it comes before anybody has taken the job over.
        """
        self.session = session
        dropped = self.buffer.clear()
        self.fetcher.forget([work.delivery for work in dropped])
        self.gate.dropped(dropped)
        if self.circuits is not None:
            self.circuits.forget_probes()
        self.ask_to_stop()
        self.report.session_lost()

    def ask_to_stop(self) -> None:
        """Let everything that runs see ``should_stop``."""
        for work in list(self.running):
            if work.execution is not None:
                work.execution.stop_requested = True

    def sift(self) -> list[Work]:
        """Lay the orders over what is here; return what runs and is now told to end.

        Held jobs of paused queues are given back, those that are marked end at once; a marked
        one that runs sees ``should_stop``.
        """
        held = self.buffer.take_back(self.stops.holds_up)
        if held:
            self.settle([self.stops.outcome(work) for work in held])
        marked = [
            work for work in list(self.running) if not work.cancelled and self.stops.ends(work.job)
        ]
        for work in marked:
            work.cancelled = True
            if work.execution is not None:
                work.execution.stop_requested = True
        return marked
