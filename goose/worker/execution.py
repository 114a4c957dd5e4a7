"""Runs one delivery, from its bytes to its outcome.

`Executor.prepare` decodes the delivery and finds its function: that is all that must be
known before a slot is chosen for it. `run` (on a thread) or `arun` (on the event loop)
decodes the arguments, enters the middleware, calls the function, and returns an `Outcome`.
Neither ever raises: whatever a job, its middleware or its policy does, there is an outcome
to settle, and if the process dies in between, nothing is settled and the job is an orphan.

A job that has used up its chances (attempts or crashes counted while no worker could bury
it) is not run: `prepare` returns its death as the outcome.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goose.brokers.base import Delivery
from goose.calls import Offer
from goose.errors import (
    Control,
    JobTimeout,
    NewerVersion,
    SignatureMismatch,
    Undecodable,
    UnknownFunction,
)
from goose.jobs import JSON, Envelope, Job, decode, dump, parse
from goose.middleware.base import Execution, Middleware, compose, compose_async
from goose.retries import Retry
from goose.worker.clock import Clock
from goose.worker.config import ENVELOPE_SLACK, WorkerConfig
from goose.worker.outcomes import (
    Decision,
    Ending,
    Outcome,
    Verb,
    dead,
    decide,
    name_of_error,
    stored,
)
from goose.worker.recovery import retry_of

logger = logging.getLogger("goose.worker")

_VERBS = {
    Ending.DONE: Verb.ACK,
    Ending.SKIPPED: Verb.ACK,
    Ending.RETRIED: Verb.REQUEUE,
    Ending.POSTPONED: Verb.REQUEUE,
    Ending.DEAD: Verb.BURY,
}


class Interrupted(Control):
    """Raised inside a job that outlived the grace of a shutdown; it is given back, unblamed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run one function; made once, not per job."""

    is_async: bool
    decode: Callable[[tuple[JSON, ...], Mapping[str, JSON]], tuple[tuple[Any, ...], dict[str, Any]]]
    call: Callable[[Execution], Any]


class Work:
    """One prepared delivery, on its way from the buffer through a slot to its outcome."""

    __slots__ = (
        "delivery",
        "doing",
        "execution",
        "held_mono",
        "interrupted",
        "job",
        "plan",
        "reported_slow",
        "slot",
        "started_mono",
    )

    def __init__(self, delivery: Delivery, job: Job[Any], plan: Plan, held_mono: float) -> None:
        self.delivery = delivery
        self.job = job
        self.plan = plan
        self.held_mono = held_mono
        self.started_mono = 0.0
        self.slot = -1
        self.execution: Execution | None = None
        self.interrupted = False
        self.reported_slow = False
        self.doing = ""


class Executor:
    """Turns deliveries into outcomes. Thread-safe."""

    def __init__(
        self,
        offer: Offer,
        config: WorkerConfig,
        *,
        middleware: Sequence[Middleware],
        resources: Mapping[type, Any],
        clock: Clock,
        random: random.Random,
    ) -> None:
        self._offer = offer
        self._config = config
        self._middleware = tuple(middleware)
        self.resources = resources
        self._clock = clock
        self._random = random
        self._plans: dict[str, Plan] = {}
        self._max_bytes = config.max_bytes + ENVELOPE_SLACK

    # --- before a slot is chosen ----------------------------------------------------------

    def prepare(self, delivery: Delivery) -> Work | Outcome:
        """Return *delivery* ready to run, or its outcome if it cannot be run here."""
        job: Job[Any] | None = None
        try:
            job = decode(delivery.envelope, max_bytes=self._max_bytes)
            if job.crashes >= self._config.max_crashes:
                return self._used_up(delivery, job, "crashed")
            if job.attempt and retry_of(job).exhausted(job.attempt):
                reason = "timeout" if _timed_out(job) else "retries"
                return self._used_up(delivery, job, reason)
            plan = self._plans.get(job.fn) or self._plan(job.fn)
            return Work(delivery, job, plan, self._clock.mono())
        except NewerVersion as error:
            return self._defer_newer(delivery, error)
        except Undecodable as error:
            logger.error("job %s is buried: undecodable: %s", delivery.envelope.id, error)
            return Outcome(
                Ending.UNDECODABLE,
                Verb.BURY,
                delivery,
                delivery.envelope,
                reason=f"undecodable: {error}",
            )
        except UnknownFunction as error:
            assert job is not None  # only a decoded job names a function
            return self._defer(delivery, job, error)
        except Exception as error:  # a defect of ours must cost this job some time, not its life
            logger.exception("job %s could not be prepared", delivery.envelope.id)
            envelope = _delayed(delivery.envelope, self._config.defer_delay)
            return Outcome(Ending.DEFERRED, Verb.REQUEUE, delivery, envelope, error=error)

    def _plan(self, name: str) -> Plan:
        function = self._offer.resolve(name)
        fn = function.fn
        call: Callable[[Execution], Any] = (
            compose_async(self._middleware, fn)
            if function.is_async
            else compose(self._middleware, fn)
        )
        plan = self._plans[name] = Plan(function.is_async, function.decode, call)
        return plan

    def _used_up(self, delivery: Delivery, job: Job[Any], reason: str) -> Outcome:
        message = (
            f"its process died {job.crashes} times while it ran alone"
            if reason == "crashed"
            else ""
        )
        buried = dead(job, self._clock.wall(), reason, message)
        logger.error("job %s of %s is dead: %s", job.id, job.fn, reason, extra=_fields(job))
        return self._death(delivery, job, buried, None, reason)

    def _defer(self, delivery: Delivery, job: Job[Any], error: Exception) -> Outcome:
        """Leave *job* for a worker with other code, or bury it after days without one."""
        now = self._clock.wall()
        since = job.deferred_since if job.deferred_since is not None else now
        if now - since > self._config.defer_limit:
            reason = (
                "unknown_function" if isinstance(error, UnknownFunction) else "signature_mismatch"
            )
            logger.error("job %s of %s is dead: %s", job.id, job.fn, error, extra=_fields(job))
            buried = dead(job, now, reason, str(error))
            return Outcome(Ending.DEAD, Verb.BURY, delivery, stored(buried), job, reason=reason)
        delay = self._config.defer_delay
        logger.warning(
            "job %s of %s is left for another worker: %s", job.id, job.fn, error, extra=_fields(job)
        )
        next_state = stored(job.evolve(deferred_since=since), delay)
        return Outcome(Ending.DEFERRED, Verb.REQUEUE, delivery, next_state, job, delay=delay)

    def _defer_newer(self, delivery: Delivery, error: NewerVersion) -> Outcome:
        """Leave an envelope of a later version, whose body only gains the instant of its first wait."""
        now = self._clock.wall()
        fields = parse(delivery.envelope.body, max_bytes=self._max_bytes)
        since = fields.setdefault("deferred_since", now)
        if not isinstance(since, float | int) or now - since > self._config.defer_limit:
            logger.error("job %s is dead: %s", delivery.envelope.id, error)
            return Outcome(
                Ending.DEAD, Verb.BURY, delivery, delivery.envelope, reason="newer_version"
            )
        logger.warning("job %s is left for a newer worker: %s", delivery.envelope.id, error)
        envelope = _delayed(delivery.envelope, self._config.defer_delay, dump(fields))
        return Outcome(
            Ending.DEFERRED, Verb.REQUEUE, delivery, envelope, delay=self._config.defer_delay
        )

    # --- in a slot ------------------------------------------------------------------------

    def run(
        self, work: Work, call: Callable[[Callable[[Execution], Any], Execution], None]
    ) -> Outcome:
        """Run *work* on this thread and return its outcome.

        Args:
            work: As `prepare` made it, for a sync function.
            call: Calls its first argument with its second; a slot uses it to let a timeout
                interrupt the function and nothing else.
        """
        try:
            execution = self._begin(work)
            call(work.plan.call, execution)
        except SignatureMismatch as error:
            return self._defer(work.delivery, work.job, error)
        except BaseException as error:  # noqa: BLE001 - SystemExit too ends only the job
            return self._conclude(work, error)
        return self._done(work)

    async def arun(self, work: Work) -> Outcome:
        """Run *work* on the running event loop and return its outcome."""
        try:
            execution = self._begin(work)
            async with asyncio.timeout(work.job.timeout) as limit:
                await work.plan.call(execution)
        except SignatureMismatch as error:
            return self._defer(work.delivery, work.job, error)
        except BaseException as error:  # noqa: BLE001
            if isinstance(error, TimeoutError) and limit.expired():
                error = JobTimeout().with_traceback(error.__traceback__)
            retry = retry_of(work.job)
            if retry.on_error or retry.on_death:
                return await asyncio.to_thread(self._conclude, work, error)
            return self._conclude(work, error)
        return self._done(work)

    def _begin(self, work: Work) -> Execution:
        started = work.started_mono = self._clock.mono()
        job = work.job
        args, kwargs = work.plan.decode(job.args, job.kwargs)
        execution = Execution(job, args, kwargs, self.resources, started_mono=started)
        work.execution = execution
        if work.interrupted:  # the shutdown came between the choice of a slot and here
            raise Interrupted
        return execution

    def _done(self, work: Work) -> Outcome:
        return Outcome(
            Ending.DONE,
            Verb.ACK,
            work.delivery,
            None,
            work.job,
            None,
            "",
            0.0,
            self._clock.mono() - work.started_mono,
            self._latency(work),
        )

    def _latency(self, work: Work) -> float:
        """Seconds from ready to started; both instants are on the wall, so never below 0."""
        ready = work.delivery.ready_at
        if ready is None:
            ready = work.job.enqueued_at
        now = self._clock.wall() - (self._clock.mono() - work.started_mono)
        return max(0.0, now - ready)

    # --- after an error -------------------------------------------------------------------

    def _conclude(self, work: Work, error: BaseException) -> Outcome:
        """Return the outcome of *work*, which ended in *error*; itself never raises."""
        job = work.job
        if isinstance(error, Interrupted) or (
            work.interrupted and isinstance(error, asyncio.CancelledError)
        ):
            return Outcome(Ending.RELEASED, Verb.RELEASE, work.delivery, None, job)
        try:
            error = self._explained(work, error)
            retry = retry_of(job)
            decision = decide(
                job,
                error,
                retry,
                now=self._clock.wall(),
                random=self._random,
                resolve=self._offer.resolve_callable,
            )
            return self._outcome(work, error, retry, decision)
        except BaseException as broken:  # noqa: BLE001 - out of memory or stack, most likely
            logger.error("the policy of job %s failed: %s", job.id, name_of_error(broken))
            again = job.evolve(attempt=job.attempt + 1, suspicions=0)
            seconds = self._clock.mono() - work.started_mono
            return Outcome(
                Ending.RETRIED,
                Verb.REQUEUE,
                work.delivery,
                stored(again, 60.0),
                job,
                error,
                delay=60.0,
                seconds=seconds,
            )

    def _explained(self, work: Work, error: BaseException) -> BaseException:
        if not isinstance(error, JobTimeout) or work.job.timeout is None:
            return error
        doing = f"; it was in {work.doing}" if work.doing else ""
        message = f"{work.job.fn} ran over its timeout of {work.job.timeout:g} s{doing}"
        return JobTimeout(message, work.doing).with_traceback(error.__traceback__)

    def _outcome(
        self, work: Work, error: BaseException, retry: Retry, decision: Decision
    ) -> Outcome:
        job, ending = work.job, decision.ending
        steered = ending in (Ending.SKIPPED, Ending.POSTPONED, Ending.DONE)
        _log(job, ending, error, decision)
        if not steered:
            self._tell(retry.on_error, "on_error", decision.next, error)
        seconds = self._clock.mono() - work.started_mono
        if ending is Ending.DEAD:
            return self._death(
                work.delivery,
                job,
                decision.next,
                error,
                decision.reason,
                seconds,
                self._latency(work),
            )
        verb = _VERBS[ending]
        return Outcome(
            ending,
            verb,
            work.delivery,
            stored(decision.next, decision.delay) if verb is Verb.REQUEUE else None,
            job,
            None if steered else error,
            decision.reason,
            decision.delay,
            seconds,
            self._latency(work),
        )

    def _death(
        self,
        delivery: Delivery,
        job: Job[Any],
        buried: Job[Any],
        error: BaseException | None,
        reason: str,
        seconds: float | None = None,
        latency: float | None = None,
    ) -> Outcome:
        retry = retry_of(job)
        self._tell(retry.on_death, "on_death", buried, error)
        verb = Verb.BURY if retry.keep_dead else Verb.ACK
        return Outcome(
            Ending.DEAD, verb, delivery, stored(buried), job, error, reason, 0.0, seconds, latency
        )

    def _tell(self, name: object, role: str, job: Job[Any], error: BaseException | None) -> None:
        """Call the policy's callback *name* with the job and the error; survive all it does."""
        if not name:
            return
        try:
            self._offer.resolve_callable(str(name))(job, error)
        except BaseException:  # noqa: BLE001 - the job settles whatever its callback does
            logger.exception("%s %s of job %s failed", role, name, job.id, extra=_fields(job))


def _log(job: Job[Any], ending: Ending, error: BaseException, decision: Decision) -> None:
    fields = _fields(job)
    what = name_of_error(error)
    if ending is Ending.DEAD:
        logger.error(
            "job %s of %s is dead: %s after %s",
            job.id,
            job.fn,
            decision.reason,
            what,
            extra=fields,
            exc_info=error if isinstance(error, Exception) else None,
        )
    elif ending is Ending.RETRIED:
        logger.warning(
            "job %s of %s failed (attempt %d) with %s: %s; again in %.1f s",
            job.id,
            job.fn,
            decision.next.attempt,
            what,
            error,
            decision.delay,
            extra=fields,
            exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
        )
    else:
        logger.info("job %s of %s is %s (%s)", job.id, job.fn, ending.value, what, extra=fields)


def _fields(job: Job[Any]) -> dict[str, object]:
    return {"job_id": job.id, "function": job.fn, "queue": job.queue, "attempt": job.attempt}


def _timed_out(job: Job[Any]) -> bool:
    return job.failure is not None and job.failure.type == "goose.errors:JobTimeout"


def _delayed(envelope: Envelope, delay: float, body: bytes | None = None) -> Envelope:
    return Envelope(
        envelope.id,
        envelope.queue,
        envelope.body if body is None else body,
        delay,
        None,
        envelope.group,
    )
