"""Runs one process's worth of work: the engine's steps, on threads.

Used by `goose.worker.embedded.Worker` inside a program of the user's, and by
`goose.worker.child` inside a process of ``goose worker``. Threads only call steps:

==========  =====================================================================
thread      what it calls
==========  =====================================================================
fetch       `Fetcher.step`; blocks in the broker while there is nothing to do
settle      `Settler.step`; kicked by every outcome
heartbeat   `Heartbeat.step`, unless a supervisor beats for this process
orphans     `OrphanChecker.step`
promote     `Promoter.step`
gauges      `WorkerGauges.step`, if there are metrics
queues      `Gauge.step`, if there are metrics and no supervisor that measures
watch       `Watch.step`: soft timeouts, slow jobs, the tick
cron        `Firing.step`, if there is a store for cron entries
orders      `Follower.step`, if there is a store for orders
progress    `ProgressLog.step`: how far jobs say they are
traits      `Gate.step`: what traits hold is kept alive
cursors     `Checkpoints.step`: cursors of jobs that are done go
batches     `Sweeper.step`, likewise
circuits    `Circuits.step`, if a queue has one
outbox      `Relay.step`, if this process moves jobs from an outbox
slot N      sync jobs, one at a time
async       the event loop of async jobs
==========  =====================================================================

A thread that dies (which only a defect of ours can bring about) takes the process's part in
the fleet with it: heartbeats stop, nothing more is taken, and others recover its jobs.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from goose.brokers.base import Broker, Session, Sessions
from goose.calls import Offer
from goose.circuits import Circuit
from goose.errors import BrokerError, SessionLost, Unsupported
from goose.features.batches.trait import Sweeper
from goose.features.crons.firing import Firing
from goose.metrics.base import Metrics
from goose.metrics.detached import Detached, detached
from goose.metrics.fanout import Fanout
from goose.middleware import Middleware, refuse_async
from goose.stores import OnDemand
from goose.worker import standing, transactions
from goose.worker.circuits import Circuits
from goose.worker.clock import Clock, SystemClock
from goose.worker.config import WorkerConfig
from goose.worker.engine import Engine, NoNotes, Notes
from goose.worker.follower import Follower
from goose.worker.gauges import WorkerGauges
from goose.worker.loops import Step
from goose.worker.resources import OpenResources, Resource
from goose.worker.schedule import MEASURE_EVERY
from goose.worker.standing import RunnerStatistics
from goose.worker.stops import given_back, interrupt
from goose.worker.threads import Threads

if TYPE_CHECKING:
    from goose.features.outbox import Relay

logger = logging.getLogger("goose.worker")

INTERRUPT_SECONDS = 1.0
"""Seconds interrupted jobs get for their ``finally`` blocks."""
FLUSH_SECONDS = 2.0
"""Seconds the last outcomes get to be settled, should the broker not answer."""
FAREWELL_SECONDS = 1.0
"""Seconds that the end of the session, of the resources and of the event loop may take."""


class Runner:
    """One process's worth of work. `start` once, `stop` once.

    Args:
        broker: Where jobs come from.
        offer: What may run; loaded.
        config: How to work.
        middleware: Around every execution, outermost first.
        metrics: Backends to count into.
        resources: Opened once for all jobs.
        session: Under which jobs are taken; opened by `start`, or by a supervisor.
        notes: Where running jobs are noted for a supervisor, if there is one.
        firing: Fires cron entries.
        follower: Follows the orders of operators.
        circuits: When to leave a queue alone, by its name.
        relay: Makes what moves jobs from an outbox, given what it counts into; closed by `stop`.
        store: What features remember in, the broker's own if left out; closed by `stop`.
        beats: Whether this process opens the session and sends its own heartbeats; False
            under a supervisor, which then also ends the session.
        on_tick: Called with the monotonic time about every 0.1 s while the process makes progress.
        on_session_lost: Called when the broker refused the session; under a supervisor only.
        on_death: Called with the error when a thread of the engine has died.
        gauges: Takes this process's gauges for a supervisor, which also measures the queues;
            None has both go to *metrics*.

    Raises:
        ConfigError: A middleware is async, and no function on offer is.
        Unsupported: A hard timeout is set without a supervisor's notes.
    """

    def __init__(
        self,
        broker: Broker,
        offer: Offer,
        config: WorkerConfig,
        *,
        middleware: Sequence[Middleware] = (),
        metrics: Sequence[Metrics] = (),
        resources: Sequence[Resource] = (),
        session: Session,
        notes: Notes | None = None,
        firing: Firing | None = None,
        follower: Follower | None = None,
        circuits: Mapping[str, Circuit] = {},
        relay: Callable[[Metrics], Relay] | None = None,
        store: OnDemand | None = None,
        beats: bool = True,
        on_tick: Callable[[float], None] = lambda _: None,
        on_session_lost: Callable[[], None] = lambda: None,
        on_death: Callable[[BaseException], None] = lambda _: None,
        gauges: Metrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        transactions.check(broker, offer)
        _refuse_impossible(offer, config, middleware, notes)
        self._broker = broker
        self._clock = clock = clock or SystemClock()
        chance = random.Random()
        self._beats = beats and isinstance(broker, Sessions)
        self._on_session_lost = on_session_lost
        self._on_death = on_death
        self._dead = threading.Event()
        self._firing = firing
        self._follower = follower
        self._store = store or OnDemand(broker)
        self._resource_specs = tuple(resources)
        self._resources: OpenResources | None = None
        self._detached = [detached(backend) for backend in metrics]
        self._circuits = self._made(circuits) if circuits else None
        self._engine = Engine(
            broker,
            offer,
            config,
            session=session,
            middleware=middleware,
            metrics=self._detached,
            resources={},
            notes=notes or NoNotes(),
            clock=clock,
            random=chance,
            store=self._store.open,
            circuits=self._circuits,
        )
        self._relay = None if relay is None else relay(self._engine.report.metrics)
        self._threads = Threads(
            self._engine,
            config,
            self._steps() | self._measuring(gauges),
            clock=clock,
            random=chance,
            on_tick=on_tick,
            on_death=self._died,
        )
        if follower is not None:
            follower.follow(self._threads)

    def _made(self, circuits: Mapping[str, Circuit]) -> Circuits:
        return Circuits(
            circuits,
            store=self._store.open,
            metrics=Fanout(self._detached),
            clock=self._clock,
            on_change=lambda: self._threads.kick("circuits"),
        )

    def _steps(self) -> dict[str, Step]:
        engine = self._engine
        steps: dict[str, Step] = {
            "fetch": self._fetch,
            "progress": engine.progress.step,
            "traits": engine.gate.step,
            "cursors": engine.checkpoints.step,
        }
        if self._beats and self._engine.heartbeat is not None:
            steps["heartbeat"] = self._engine.heartbeat.step
        if self._firing is not None:
            self._firing.metrics = self._engine.report.metrics
            steps["cron"] = self._firing.step
            # There is a store.
            steps["batches"] = Sweeper(self._engine.traits.tools).step
        if self._follower is not None:
            steps["orders"] = self._follower.step
        if self._circuits is not None:
            steps["circuits"] = self._circuits.step
        if self._relay is not None:
            steps["outbox"] = self._relay.step
        return steps

    def _measuring(self, gauges: Metrics | None) -> dict[str, Step]:
        """Return the steps that measure: for a supervisor, which looks at queues itself, or here."""
        engine, own = self._engine, self._engine.report.metrics
        if gauges is not None:
            return {"gauges": WorkerGauges(engine, gauges, every=1.0).step}
        if not own:
            return {}
        measures = WorkerGauges(engine, own, every=MEASURE_EVERY)
        return {"gauges": measures.step, "queues": engine.gauge.step}

    # --- life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Open resources and the session, then begin to take jobs.

        Raises:
            BrokerError: The session could not be opened.
            ConfigError: A resource is not a context manager.
            Exception: What a resource raised when it was entered.
        """
        loop = self._threads.start_async()
        resources = OpenResources(self._resource_specs, loop)
        try:
            resources.open()
            if self._beats and self._engine.heartbeat is not None:
                self._engine.heartbeat.begin(self._clock.mono())
        except BaseException:
            resources.close()
            self._threads.close_async()
            raise
        self._resources = resources
        self._engine.executor.resources = resources.values
        if self._follower is not None:
            self._follower.begin(self._clock.mono())
        self._threads.start()

    def stop(self, grace: float) -> bool:
        """Take nothing more, give back what was not started, wait for the rest, then end.

        Jobs that run see ``should_stop`` at once. Those that outlive *grace* seconds are
        interrupted, and given back unblamed if that works. Takes at most *grace* + 4 seconds,
        with or without a broker.

        Returns:
            Whether nothing runs any more. If not, the process should be ended: its
            supervisor, or the orphan checkers, give back what still ran.
        """
        deadline = self._clock.mono() + grace
        engine = self._engine
        engine.settle([given_back(work) for work in engine.buffer.close()])
        engine.ask_to_stop()
        self._threads.stop("fetch")
        self._broker.wake()
        self._wait(lambda: engine.buffer.running == 0, deadline)
        if engine.buffer.running:
            self._interrupt()
            self._wait(lambda: engine.buffer.running == 0, self._clock.mono() + INTERRUPT_SECONDS)
        flushed = self._clock.mono() + FLUSH_SECONDS
        self._threads.join("fetch", min(1.5, max(0.0, flushed - self._clock.mono())))
        self._threads.kick("settle")
        # Counted with the end of a run in one step, so that no outcome is between two places now.
        self._wait(lambda: engine.buffer.unsettled == 0, flushed)
        return self._end()

    def _wait(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition() and not self._dead.is_set():
            if (left := deadline - self._clock.mono()) <= 0:
                return
            time.sleep(min(left, 0.01))

    def _interrupt(self) -> None:
        interrupt(list(self._engine.running))
        self._threads.interrupt()

    def _end(self) -> bool:
        done = self._engine.buffer.running == 0
        self._threads.stop_all()
        self._threads.let_slots_go()
        # Not under their feet; if the store hangs, their calls fail as they would anyway.
        for name in ("settle", "cron", "batches", "orders", "traits", "progress"):
            self._threads.join(name, 0.2)
        # On threads of their own: a resource or a broker that hangs must not hold up the end.
        last = [
            threading.Thread(target=self._end_session, daemon=True),
            threading.Thread(target=self._leave_store, daemon=True),
        ]
        if self._relay is not None:
            last.append(threading.Thread(target=self._close_relay, daemon=True))
        if done and self._resources is not None:
            last.append(threading.Thread(target=self._close_resources, daemon=True))
        deadline = self._clock.mono() + FAREWELL_SECONDS
        last += [
            threading.Thread(target=backend.close, daemon=True)
            for backend in self._detached
            if isinstance(backend, Detached)
        ]
        for thread in last:
            thread.start()
        for thread in last:
            thread.join(max(0.0, deadline - self._clock.mono()))
        self._threads.close_async(max(0.1, deadline - self._clock.mono()))
        return done

    def _end_session(self) -> None:
        if self._beats and isinstance(self._broker, Sessions):
            try:
                self._broker.end(self._engine.session)
            except BrokerError as error:
                logger.warning("the session could not be ended (%s); it will expire", error)

    def _leave_store(self) -> None:
        if self._follower is not None:
            self._follower.leave()
        with suppress(BrokerError, Unsupported):
            self._engine.progress.step(0.0)  # the last words of jobs that have just ended
        self._engine.checkpoints.close()
        self._store.close()

    def _close_relay(self) -> None:
        assert self._relay is not None
        self._threads.join("outbox", FAREWELL_SECONDS / 2)
        self._relay.close()

    def _close_resources(self) -> None:
        assert self._resources is not None
        try:
            self._resources.close()
        except Exception:
            logger.exception("a resource failed to close")

    def new_session(self, session: Session) -> None:
        """Go on as *session*, which a supervisor opened after the one before was given up."""
        self._engine.renew(session)
        self._threads.kick("fetch")

    def _died(self, error: BaseException) -> None:
        """End this process's part in the fleet: what it holds will be recovered by others."""
        logger.critical("a thread of the engine died of %r; taking no more jobs", error)
        self._dead.set()
        self._engine.buffer.close()
        self._threads.stop_all()
        self._on_death(error)

    def _fetch(self, now: float) -> float:
        try:
            return self._engine.fetcher.step(now)
        except SessionLost:
            if not self._threads.kick("heartbeat"):
                self._on_session_lost()
            raise

    # --- seen from outside ------------------------------------------------------------------

    def dump(self) -> None:
        """Log every running job with its stack; from any thread."""
        self._threads.dump()

    @property
    def contact_mono(self) -> float:
        """When the broker last answered the fetcher."""
        return self._engine.fetcher.contact_mono

    def statistics(self) -> RunnerStatistics:
        """Return this process's numbers; from any thread."""
        return standing.statistics(self._engine)

    def is_empty(self) -> bool:
        """Say whether nothing is ready or running in this worker's queues; see `standing`.

        Raises:
            BrokerError: The broker could not say.
        """
        queues = [share.queue for share in self._engine.config.queues]
        return standing.is_empty(self._engine, self._broker, queues)


def _refuse_impossible(
    offer: Offer, config: WorkerConfig, middleware: Sequence[Middleware], notes: Notes | None
) -> None:
    """Raise for what cannot work, before anything is made."""
    if config.hard_timeout is not None and notes is None:
        raise Unsupported(
            f"hard_timeout={config.hard_timeout:g} needs a supervisor that can kill the process: "
            "use `goose worker`, or leave it out for an embedded Worker"
        )
    offered = offer.functions()
    if not any(function.is_async for function in offered):
        # Where both kinds are offered, a middleware may be meant for the async ones alone.
        refuse_async(middleware, [function.fn for function in offered])
