"""Runs single jobs in the caller's thread, by the worker's own steps.

A `Bench` prepares, runs and, if wanted, settles a delivery just as a worker does: real
decoding, middleware, policy. What it leaves out is what surrounds that in a worker: threads,
sessions, timeouts, prefetch.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from goose import middleware as middlewares
from goose import settings
from goose.brokers.base import Broker, Delivery
from goose.calls import Function, Offer
from goose.errors import JobFailed, UnknownFunction
from goose.features.checkpoints import Checkpoints
from goose.features.results.progress import ProgressLog
from goose.features.traits import Traits
from goose.jobs import Job
from goose.middleware.base import Middleware
from goose.stores.base import Store
from goose.worker.clock import SystemClock
from goose.worker.config import WorkerConfig
from goose.worker.execution import Executor
from goose.worker.inside import Inside
from goose.worker.outcomes import Ending, Outcome
from goose.worker.prepare import Preparer
from goose.worker.settle import Settler
from goose.worker.traits import Gate
from goose.worker.transactions import Transactions
from goose.worker.work import Work


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one job."""

    job: Job[Any] | None
    """As it ran; None if its bytes were not a job."""
    ending: str
    """``done``, ``skipped``, ``retried``, ``postponed``, ``deferred``, ``dead`` or ``undecodable``."""
    result: Any = None
    """What the function returned."""
    error: BaseException | None = None
    """What it raised, if that counts as an error."""
    reason: str = ""
    """Why the job is dead, skipped …"""

    def check(self) -> Run:
        """Return this run if it went well.

        Raises:
            JobFailed: It ended in an error, or could not be run; the error is the cause.
        """
        failed = self.error is not None and self.ending not in ("done", "skipped", "postponed")
        if failed or self.ending in ("dead", "deferred", "undecodable"):
            what = f"job {self.job.id} of {self.job.fn}" if self.job else "a job"
            why = repr(self.error) if self.error is not None else self.reason
            raise JobFailed(f"{what} is {self.ending}: {why}") from self.error
        return self


class Bench:
    """Runs deliveries one by one. For one thread.

    Args:
        allow: Modules whose functions may run; None for all that are imported already.
        middleware: Around each run; None for the configured ones.
        resources: What functions find in ``goose.current().resources``, by type.
        features: The broker and what opens its store; None runs jobs as if they bore no traits, and no
            transactional ones.
    """

    def __init__(
        self,
        allow: Iterable[str] | None = None,
        *,
        middleware: Sequence[str | Middleware] | None = None,
        resources: Mapping[type, Any] | None = None,
        features: tuple[Broker, Callable[[], Store]] | None = None,
    ) -> None:
        offer: Offer = _Imported() if allow is None else Offer(list(allow))
        offer.load()
        specs = settings.active().middleware if middleware is None else middleware
        clock, chance = SystemClock(), random.Random()
        around = [middlewares.connect(spec) for spec in specs]
        self._preparer = Preparer(offer, WorkerConfig(), around, clock, random.Random())
        self._gate: Gate | None = None
        self._progress: ProgressLog | None = None
        if features is not None:
            traits = Traits(*features, resolve=lambda name: offer.resolve(name).fn)
            self._gate = Gate(traits, self._preparer)
        self._executor = Executor(
            offer,
            self._preparer,
            resources=resources or {},
            clock=clock,
            random=chance,
            transactions=Transactions(features[0] if features else None, chance),
            inside=self._inside(*features) if features else None,
        )

    def _inside(self, broker: Broker, store: Callable[[], Store]) -> Inside:
        self._progress = ProgressLog(store)
        return Inside(self._progress, Checkpoints(store), broker, store)

    def run(self, delivery: Delivery) -> tuple[Run, Outcome]:
        """Run *delivery*; return what happened and how to settle it.

        Raises:
            KeyboardInterrupt: The user wants to end the test, not the job.
        """
        prepared = self._preparer.prepare(delivery)
        if self._gate and isinstance(prepared, Work) and prepared.job.traits:
            admitted, outcomes = self._gate.admit([prepared])
            [prepared] = admitted or outcomes
        if not isinstance(prepared, Work):
            return _told(prepared, None), prepared
        if prepared.plan.is_async:
            outcome = _complete(self._executor, prepared)
        else:
            outcome = self._executor.run(prepared, lambda fn, execution: fn(execution))
        if isinstance(outcome.error, KeyboardInterrupt):
            raise outcome.error
        return _told(outcome, prepared), outcome

    def tell(self, outcome: Outcome) -> None:
        """Tell the traits of what ended for good.

        Raises:
            BrokerError: One could not be told.
        """
        if self._progress is not None:
            self._progress.step(0.0)
        if self._gate is not None and outcome.job is not None and outcome.job.traits:
            for error in self._gate.ended([outcome]).values():
                raise error

    def settle(self, broker: Broker, outcome: Outcome) -> None:
        """Carry out *outcome* on *broker*, telling traits first.

        Raises:
            BrokerError: A trait could not be told, or the broker failed.
        """
        self.tell(outcome)
        settler = Settler(broker, lambda batch, lost: None)
        settler.add(outcome)
        settler.step(0.0)


def _told(outcome: Outcome, work: Work | None) -> Run:
    execution = work.execution if work else None
    result = execution.result if execution else None
    error, reason = outcome.error, outcome.reason
    if outcome.ending is Ending.DEFERRED and error is None:
        reason = "its function or its arguments are not known here; see the log, and allow="
    return Run(outcome.job, outcome.ending.value, result, error, reason)


def _complete(executor: Executor, work: Work) -> Outcome:
    """Run an async job to its end, also where an event loop runs already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(executor.arun(work))
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, executor.arun(work)).result()


class _Imported(Offer):
    """Offers the functions of every module that is imported already, and imports none."""

    def __init__(self) -> None:
        super().__init__(["goose.testing"])
        self._offers: dict[str, Offer] = {}

    def load(self) -> None:
        """Do nothing: modules are looked up when a job names them."""

    def resolve(self, name: str) -> Function:
        """Return the function of that name, if its module is imported."""
        return self._of(name).resolve(name)

    def resolve_callable(self, name: str) -> Any:
        """Return the callable of that name, if its module is imported."""
        return self._of(name).resolve_callable(name)

    def _of(self, name: str) -> Offer:
        module = name.partition(":")[0]
        if module not in sys.modules:
            raise UnknownFunction(f"module {module!r} is not imported; name it in allow=")
        offer = self._offers.get(module)
        if offer is None:
            offer = self._offers[module] = Offer([module])
            offer.load()
        return offer
