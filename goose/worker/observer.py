"""What a supervisor shows to those who ask: numbers, and how it is.

An `Observer` adds up the numbers of all processes, measures the queues once for all of them,
and answers three questions over HTTP:

``/livez``    the supervisor makes progress. An outage of the broker never turns this red: to
              restart workers would not end it. Only a supervisor that hangs, or a process it
              cannot get rid of, does.
``/readyz``   jobs are taken: at least one process works, and the broker answered it lately.
              Nothing that happened before counts, so an old backlog of errors blocks no rollout.
``/metrics``  everything, for Prometheus.

The same goes to the heartbeat file and to systemd. Its `step` is called by the supervisor's
thread and never blocks: broker calls are errands, requests are served by threads of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from goose.brokers.base import Broker, Inspector, QueueStats, Share
from goose.metrics.aggregate import CONTENT_TYPE, Aggregate
from goose.metrics.base import BROKER_UP, PROCESS_DEATHS, QUEUE_OLDEST, QUEUE_SIZE
from goose.metrics.catalogue import MEASURES
from goose.worker.aftermath import Cause
from goose.worker.clock import Clock
from goose.worker.errands import Submit
from goose.worker.heartbeat import HeartbeatFile
from goose.worker.schedule import MEASURE_EVERY, measured
from goose.worker.serving import Answer, Routes
from goose.worker.supervisor import Supervisor
from goose.worker.systemd import Notifier

CONTACT_SECONDS = 10.0
"""How long ago the broker may have answered a process that takes jobs."""
STUCK_SECONDS = 30.0
"""Without a step for so long the supervisor makes no progress."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the worker was at one moment."""

    ready: bool
    why: str
    """Why it is not ready; empty if it is."""
    stuck: str = ""
    """What makes no progress; empty if all does."""


class Observer:
    """Looks at one supervisor. `step` and the methods of `Witness` are for its thread.

    Args:
        broker: To measure the queues of.
        queues: What the processes take from.
        submit: Runs a broker call beside; not on the thread that sends heartbeats.
        heartbeat: The file to write.
        notifier: Where systemd is told.
        stall_limit: Seconds after which a process without a tick is certainly stuck.
        measures: Whether anybody wants to know how full the queues are.
    """

    def __init__(
        self,
        broker: Broker,
        queues: Sequence[Share],
        *,
        submit: Submit,
        heartbeat: HeartbeatFile,
        notifier: Notifier,
        stall_limit: float,
        measures: bool,
        clock: Clock,
    ) -> None:
        self.numbers_of_all = Aggregate()
        self._broker = broker
        self._queues = tuple(queues)
        self._submit = submit
        self._heartbeat = heartbeat
        self._notifier = notifier
        self._stall_limit = stall_limit
        self._health = Health(False, "starting")
        self._stepped_at = math.inf
        self._started = False
        self._measuring: Future[Sequence[QueueStats]] | None = None
        self._next_measure = -math.inf if measures else math.inf
        self._asked_at = 0.0
        self._clock = clock
        # A counter that appears with its first event has not risen, as far as an alarm can see.
        for measure in MEASURES.values():
            if measure.kind == "counter" and measure.tags == ("queue",):
                for share in self._queues:
                    self.count(measure.name, 0, {"queue": share.queue})
        for cause in (Cause.DIED, Cause.TIMED_OUT):
            self.count(PROCESS_DEATHS, 0, {"cause": cause.value})

    @property
    def routes(self) -> Routes:
        """What is served."""
        return {"/livez": self.livez, "/readyz": self.readyz, "/metrics": self.metrics}

    # --- the witness ---------------------------------------------------------------------

    def numbers(self, source: str, changes: Sequence[Any]) -> None:
        """Add up what process *source* handed over."""
        self.numbers_of_all.add(source, changes)

    def registry(self, source: str, families: Sequence[Any]) -> None:
        """Keep what process *source* has in a registry of its own."""
        self.numbers_of_all.foreign(source, families)

    def ended(self, source: str) -> None:
        """Let the gauges of process *source* go."""
        self.numbers_of_all.forget(source)

    def count(self, name: str, value: int, tags: Mapping[str, str]) -> None:
        """Count what the supervisor did."""
        self.numbers_of_all.increment(name, value, tags)

    # --- the supervisor's thread -----------------------------------------------------------

    def step(self, supervisor: Supervisor, now: float) -> None:
        """Look at *supervisor* at *now* (monotonic)."""
        self._health = health = _judge(supervisor, now, self._stall_limit)
        self._stepped_at = now
        self._started = self._started or health.ready
        self._measure(supervisor, now)
        self._heartbeat.step(now, ready=health.ready, why=health.why)
        self._notifier.step(
            now,
            started=self._started,
            stopping=supervisor.stopping,
            status=health.why or "taking jobs",
        )

    def _measure(self, supervisor: Supervisor, now: float) -> None:
        broker = self._broker
        if self._measuring is None:
            if now >= self._next_measure and isinstance(broker, Inspector):
                self._measuring = self._submit(broker.queues)
                self._asked_at = now
            return
        if self._measuring.done():
            done, self._measuring = self._measuring, None
            self._next_measure = self._asked_at + MEASURE_EVERY
            self._show(None if done.exception() else done.result())
        elif now >= self._asked_at + MEASURE_EVERY:  # it hangs, and is asked again when it answers
            self._asked_at = now
            self._show(None)
        else:
            return
        supervisor.tell_gauges(self.numbers_of_all.gauges())

    def _show(self, stats: Sequence[QueueStats] | None) -> None:
        numbers = self.numbers_of_all
        numbers.gauge(BROKER_UP, int(stats is not None), {})
        # What nobody could measure now is not shown as it was long ago.
        numbers.replace_gauges((QUEUE_SIZE, QUEUE_OLDEST))
        for name, value, tags in measured(stats, self._queues) if stats is not None else ():
            numbers.gauge(name, value, tags)

    # --- any thread ------------------------------------------------------------------------

    def livez(self) -> Answer:
        """Say whether the worker makes progress."""
        since = self._clock.mono() - self._stepped_at
        stuck = self._health.stuck
        if since > STUCK_SECONDS:
            stuck = f"the supervisor has not moved for {since:.0f} s"
        return _answer(not stuck, stuck or "alive")

    def readyz(self) -> Answer:
        """Say whether the worker takes jobs."""
        return _answer(self._health.ready, self._health.why or "taking jobs")

    def metrics(self) -> Answer:
        """Return all numbers."""
        return 200, CONTENT_TYPE, self.numbers_of_all.text()

    def close(self) -> None:
        """The worker has ended."""
        self._heartbeat.remove()


def _answer(good: bool, text: str) -> Answer:
    return 200 if good else 503, "text/plain; charset=utf-8", f"{text}\n"


def _judge(supervisor: Supervisor, now: float, stall_limit: float) -> Health:
    charges = [charge for charge in supervisor.charges if charge.process is not None]
    stuck = [
        charge.label
        for charge in charges
        if charge.works and now - charge.process.last_tick() > stall_limit + STUCK_SECONDS  # type: ignore[union-attr]
    ]
    why = ""
    if supervisor.stopping:
        why = "stopping"
    elif not any(charge.works for charge in charges):
        why = "no process takes jobs yet"
    elif not any(charge.in_contact(now, CONTACT_SECONDS) for charge in charges):
        why = f"the broker has not answered for over {CONTACT_SECONDS:g} s"
    return Health(not why, why, f"{', '.join(stuck)} makes no progress" if stuck else "")
