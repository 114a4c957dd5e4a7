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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from goose.brokers.base import Broker, Inspector, Session, Sessions, State
from goose.calls import Offer
from goose.errors import BrokerError, SessionLost, Unsupported
from goose.features.crons.firing import Firing
from goose.metrics.base import Metrics
from goose.metrics.detached import Detached, detached
from goose.middleware import Middleware, refuse_async
from goose.worker.clock import Clock, SystemClock
from goose.worker.config import WorkerConfig
from goose.worker.engine import Engine, NoNotes, Notes
from goose.worker.execution import Interrupted
from goose.worker.fetch import given_back
from goose.worker.gauges import WorkerGauges
from goose.worker.loops import Loop, Step
from goose.worker.outcomes import Ending
from goose.worker.resources import OpenResources, Resource
from goose.worker.schedule import MEASURE_EVERY
from goose.worker.slots import AsyncSlots, Parking, Slot
from goose.worker.watch import Watch

logger = logging.getLogger("goose.worker")

INTERRUPT_SECONDS = 1.0
"""Seconds interrupted jobs get for their ``finally`` blocks."""
FLUSH_SECONDS = 2.0
"""Seconds the last outcomes get to be settled, should the broker not answer."""
FAREWELL_SECONDS = 1.0
"""Seconds that the end of the session, of the resources and of the event loop may take."""


@dataclass(frozen=True, slots=True)
class RunnerStatistics:
    """One process's numbers at one moment."""

    running: int
    """Jobs in slots."""
    held: int
    """Jobs taken from the broker and waiting for a slot."""
    unsettled: int
    """Jobs that ended and whose outcome the broker has not confirmed."""
    processed: int
    """Executions that ended and were settled."""
    succeeded: int
    retried: int
    dead: int
    recovered: int
    """Orphans of others taken over."""
    lost_settles: int
    """Outcomes refused because the session had been given up."""


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
        firing: Fires cron entries; closed by `stop`.
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
        beats: bool = True,
        on_tick: Callable[[float], None] = lambda _: None,
        on_session_lost: Callable[[], None] = lambda: None,
        on_death: Callable[[BaseException], None] = lambda _: None,
        gauges: Metrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        if config.hard_timeout is not None and notes is None:
            raise Unsupported(
                f"hard_timeout={config.hard_timeout:g} needs a supervisor that can kill the process: "
                "use `goose worker`, or leave it out for an embedded Worker"
            )
        offered = offer.functions()
        if not any(function.is_async for function in offered):
            # Where both kinds are offered, a middleware may be meant for the async ones alone.
            refuse_async(middleware, [function.fn for function in offered])
        clock = clock or SystemClock()
        chance = random.Random()
        self._broker = broker
        self._config = config
        self._clock = clock
        self._beats = beats and isinstance(broker, Sessions)
        self._on_session_lost = on_session_lost
        self._on_death = on_death
        self._dead = threading.Event()
        self._firing = firing
        self._resource_specs = tuple(resources)
        self._resources: OpenResources | None = None
        self._parking = Parking()
        self._detached = [detached(backend) for backend in metrics]
        self._engine = engine = Engine(
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
        )
        self._async = AsyncSlots(
            take=engine.take_async,
            run=engine.arun,
            first=config.concurrency,
            count=config.async_slots,
            on_death=self._died,
        )
        self._slots = [
            Slot(
                number,
                take=engine.take,
                more=self._more,
                run=engine.run,
                parking=self._parking,
                on_death=self._died,
            )
            for number in range(config.concurrency)
        ]
        self._watch = watch = Watch(
            self._slots,
            engine.buffer,
            slow_after=config.slow_after,
            settle=engine.settle,
            tick=on_tick,
            clock=clock,
            async_slots=self._async,
        )
        steps: dict[str, Step] = {
            "fetch": self._fetch,
            "settle": engine.settler.step,
            "watch": watch.step,
            "orphans": engine.checker.step,
            "promote": engine.promoter.step,
        }
        if self._beats and engine.heartbeat is not None:
            steps["heartbeat"] = engine.heartbeat.step
        if firing is not None:
            steps["cron"] = firing.step
            firing.counts = engine.report.metrics
            firing.gauges = gauges or engine.report.metrics
        if gauges is not None:
            steps["gauges"] = WorkerGauges(engine.buffer, config, gauges, every=1.0).step
        elif engine.report.metrics:
            own = WorkerGauges(engine.buffer, config, engine.report.metrics, every=MEASURE_EVERY)
            steps["gauges"] = own.step
            steps["queues"] = engine.gauge.step
        self._loops = {
            name: Loop(
                name,
                step,
                clock=clock,
                random=chance,
                on_death=self._died,
                on_failure=engine.report.broker_failed,
                on_success=engine.report.broker_works_again,
            )
            for name, step in steps.items()
        }
        engine.kicks.fetch = self._loops["fetch"].kick
        engine.kicks.settle = self._loops["settle"].kick
        engine.kicks.slots = self._wake_slots

    # --- life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Open resources and the session, then begin to take jobs.

        Raises:
            BrokerError: The session could not be opened.
            ConfigError: A resource is not a context manager.
            Exception: What a resource raised when it was entered.
        """
        loop = self._async.start()
        resources = OpenResources(self._resource_specs, loop)
        try:
            resources.open()
            if self._beats and self._engine.heartbeat is not None:
                self._engine.heartbeat.begin(self._clock.mono())
        except BaseException:
            resources.close()
            self._async.close()
            raise
        self._resources = resources
        self._engine.executor.resources = resources.values
        for slot in self._slots:
            slot.thread.start()
        for thread in self._loops.values():
            thread.start()

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
        self._loops["fetch"].stop()
        self._broker.wake()
        self._wait(lambda: engine.buffer.running == 0, deadline)
        if engine.buffer.running:
            self._interrupt()
            self._wait(lambda: engine.buffer.running == 0, self._clock.mono() + INTERRUPT_SECONDS)
        flushed = self._clock.mono() + FLUSH_SECONDS
        self._loops["fetch"].join(min(1.5, max(0.0, flushed - self._clock.mono())))
        self._loops["settle"].kick()
        # Counted with the end of a run in one step, so that no outcome is between two places now.
        self._wait(lambda: engine.buffer.unsettled == 0, flushed)
        return self._end()

    def _wait(self, condition: Callable[[], bool], deadline: float) -> None:
        while not condition() and not self._dead.is_set():
            if (left := deadline - self._clock.mono()) <= 0:
                return
            time.sleep(min(left, 0.01))

    def _interrupt(self) -> None:
        engine = self._engine
        logger.warning("interrupting %d jobs that outlived the grace", engine.buffer.running)
        for work in list(engine.running):
            work.interrupted = True
        for slot in self._slots:
            work_now = slot.work
            if work_now is not None:
                slot.interrupt(work_now, Interrupted)
        self._async.interrupt()

    def _end(self) -> bool:
        done = self._engine.buffer.running == 0
        for loop in self._loops.values():
            loop.stop()
        self._parking.close()
        if self._firing is not None:
            # Not under its feet; if the store hangs, its call fails as it would anyway.
            self._loops["cron"].join(0.2)
            self._firing.close()
        # On threads of their own: a resource or a broker that hangs must not hold up the end.
        last = [threading.Thread(target=self._end_session, daemon=True)]
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
        self._async.close(max(0.1, deadline - self._clock.mono()))
        return done

    def _end_session(self) -> None:
        if self._beats and isinstance(self._broker, Sessions):
            try:
                self._broker.end(self._engine.session)
            except BrokerError as error:
                logger.warning("the session could not be ended (%s); it will expire", error)

    def _close_resources(self) -> None:
        assert self._resources is not None
        try:
            self._resources.close()
        except Exception:
            logger.exception("a resource failed to close")

    def new_session(self, session: Session) -> None:
        """Go on as *session*, which a supervisor opened after the one before was given up."""
        self._engine.renew(session)
        self._loops["fetch"].kick()

    def _died(self, error: BaseException) -> None:
        """End this process's part in the fleet: what it holds will be recovered by others."""
        logger.critical("a thread of the engine died of %r; taking no more jobs", error)
        self._dead.set()
        self._engine.buffer.close()
        for loop in self._loops.values():
            loop.stop()
        self._on_death(error)

    # --- the wires ------------------------------------------------------------------------

    def _fetch(self, now: float) -> float:
        try:
            return self._engine.fetcher.step(now)
        except SessionLost:
            if "heartbeat" in self._loops:
                self._loops["heartbeat"].kick()
            else:
                self._on_session_lost()
            raise

    def _wake_slots(self) -> None:
        buffer = self._engine.buffer
        if buffer.waiting(is_async=False):
            self._parking.unpark()
            # The slot needs the interpreter's lock, which this thread would keep while it asks the
            # broker for more: half of what a job waits for after it has come to an idle worker.
            time.sleep(0)
        if buffer.waiting(is_async=True):
            self._async.call()

    def _more(self) -> bool:
        return self._engine.buffer.waiting(is_async=False) > 0

    def dump(self) -> None:
        """Log every running job with its stack; from any thread."""
        self._watch.dump(self._clock.mono())

    @property
    def contact_mono(self) -> float:
        """When the broker last answered the fetcher."""
        return self._engine.fetcher.contact_mono

    # --- numbers --------------------------------------------------------------------------

    def statistics(self) -> RunnerStatistics:
        """Return this process's numbers; from any thread."""
        report, buffer = self._engine.report, self._engine.buffer
        return RunnerStatistics(
            running=buffer.running,
            held=buffer.held,
            unsettled=buffer.unsettled,
            processed=report.processed,
            succeeded=report.endings[Ending.DONE],
            retried=report.endings[Ending.RETRIED],
            dead=report.endings[Ending.DEAD],
            recovered=report.orphans,
            lost_settles=report.lost,
        )

    def _sees_running(self, queue: str) -> bool:
        assert isinstance(self._broker, Inspector)
        try:
            self._broker.count(State.RUNNING, queue)
        except Unsupported:
            return False
        return True

    def is_empty(self) -> bool:
        """Say whether nothing is ready or running in this worker's queues, here or elsewhere.

        What is only scheduled does not count. Without an `Inspector`, or one that sees what
        others run, it speaks for this process alone.

        Raises:
            BrokerError: The broker could not say.
        """
        if not self._engine.buffer.idle:
            return False
        if not isinstance(self._broker, Inspector):
            return self._engine.fetcher.found_nothing
        # The broker's word alone decides: what a fetch has just been lent is running there.
        # The counts are quick to say no; a job that moves from running to ready between them,
        # for a retry at once, is only seen for certain in the listing of one moment.
        queues = [share.queue for share in self._config.queues]
        states: tuple[State, ...] = (State.READY, State.RUNNING)
        if not self._sees_running(queues[0]):
            # Then this process answers for itself, and others for themselves.
            if not self._engine.fetcher.found_nothing:
                return False
            states = (State.READY,)
        if any(self._broker.count(state, queue) for state in states for queue in queues):
            return False
        return not any(
            stats.counts[state]
            for stats in self._broker.queues()
            for state in states
            if stats.queue in queues
        )
