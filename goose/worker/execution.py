"""Runs one prepared delivery in its slot, to its outcome.

`Executor.run` (on a thread) or `arun` (on the event loop) decodes the arguments, enters the
middleware, calls the function, and returns an `Outcome`. Neither ever raises: whatever a job,
its middleware or its policy does, there is an outcome to settle, and if the process dies in
between, nothing is settled and the job is an orphan.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

from goose.calls import Offer
from goose.errors import Bury, Control, JobTimeout, Postpone, SignatureMismatch, Skip
from goose.jobs import Job
from goose.middleware.base import Execution, Inside
from goose.retries import Retry
from goose.worker.clock import Clock
from goose.worker.deaths import death, tell, why
from goose.worker.outcomes import (
    Decision,
    Ending,
    Outcome,
    Verb,
    decide,
    fields,
    name_of_error,
    stored,
)
from goose.worker.prepare import Preparer, UsedUp
from goose.worker.recovery import retry_of
from goose.worker.stops import cancelled
from goose.worker.transactions import Transactions
from goose.worker.work import Work

logger = logging.getLogger("goose.worker")

_VERBS = {
    Ending.DONE: Verb.ACK,
    Ending.SKIPPED: Verb.ACK,
    Ending.RETRIED: Verb.REQUEUE,
    Ending.POSTPONED: Verb.REQUEUE,
}


class Interrupted(Control):
    """Raised inside a job that outlived the grace of a shutdown; it is given back, unblamed."""


class Executor:
    """Turns work into outcomes. Thread-safe.

    Attributes:
        resources: What the worker opened for its jobs, by type.
    """

    def __init__(
        self,
        offer: Offer,
        preparer: Preparer,
        *,
        resources: Mapping[type, Any],
        clock: Clock,
        random: random.Random,
        transactions: Transactions,
        inside: Inside | None = None,
    ) -> None:
        self._inside = inside
        self._offer = offer
        self._transactions = transactions
        self._preparer = preparer
        self.resources = resources
        self._clock = clock
        self._random = random

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
            if work.plan.transactional:
                return self._ended(work, self._transactions.run(work, execution, call))
            call(work.plan.call, execution)
        except SignatureMismatch as error:
            return self._preparer.defer(work.delivery, work.job, error)
        except BaseException as error:  # noqa: BLE001 - SystemExit too ends only the job
            return self._conclude(work, error)
        return self._done(work)

    async def arun(self, work: Work) -> Outcome:
        """Run *work* on the running event loop and return its outcome."""
        try:
            execution = self._begin(work)
            if work.plan.transactional:
                return self._ended(work, await self._transactions.arun(work, execution, _call))
            await _call(work, execution)
        except SignatureMismatch as error:
            return self._preparer.defer(work.delivery, work.job, error)
        except BaseException as error:  # noqa: BLE001
            retry = retry_of(work.job)
            if retry.on_error or retry.on_death:
                # A callback is the user's own code and may block.
                return await _on_a_thread(self._conclude, work, error)
            return self._conclude(work, error)
        return self._done(work)

    def _begin(self, work: Work) -> Execution:
        started = work.started_mono = self._clock.mono()
        job = work.job
        if work.filled is None:
            args, kwargs = work.plan.decode(job.args, job.kwargs)
        else:
            args, kwargs = work.plan.decode(*work.filled)
        execution = Execution(job, args, kwargs, self.resources, None, started)
        execution.inside = self._inside
        work.execution = execution
        if work.interrupted or work.cancelled:  # that came between the choice of a slot and here
            raise Interrupted
        return execution

    def _ended(self, work: Work, verb: Verb) -> Outcome:
        """Return the outcome of *work*, which its own transaction may have settled already."""
        if verb is Verb.RELEASE:
            return Outcome(Ending.RELEASED, verb, work.delivery, None, work.job)
        return self._done(work, verb)

    def _done(self, work: Work, verb: Verb = Verb.ACK) -> Outcome:
        return Outcome(
            Ending.DONE,
            verb,
            work.delivery,
            None,
            work.job,
            None,
            "",
            0.0,
            self._clock.mono() - work.started_mono,
            self._clock.wall(),
            work.execution.result if work.job.traits and work.execution else None,
        )

    # --- after an error -------------------------------------------------------------------

    def _conclude(self, work: Work, error: BaseException) -> Outcome:
        """Return the outcome of *work*, which ended in *error*; itself never raises."""
        job = work.job
        if work.cancelled and not isinstance(error, Skip | Bury | UsedUp):
            # Whatever it made of that: it has not done its work, and is not to be tried again.
            seconds = self._clock.mono() - work.started_mono
            return cancelled(work, seconds, self._clock.wall())
        if isinstance(error, Interrupted) or (
            work.interrupted and isinstance(error, asyncio.CancelledError)
        ):
            return Outcome(Ending.RELEASED, Verb.RELEASE, work.delivery, None, job)
        try:
            if isinstance(error, UsedUp):
                return self._preparer.used_up(work.delivery, job, error.reason)
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
            context = None if work.execution is None else work.execution.failed_in
            if context is None:
                return self._outcome(work, error, retry, decision)
            # What was bound when it failed belongs to what is said about the failure.
            return context.run(self._outcome, work, error, retry, decision)
        except BaseException as broken:  # noqa: BLE001 - out of memory or stack, most likely
            logger.error(
                "the policy of job %s failed: %s",
                job.id,
                name_of_error(broken),
                extra=fields(job),
            )
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
        steered = isinstance(error, Skip | Postpone | Bury) or ending is Ending.DONE
        _log(job, ending, error, decision)
        if not steered:
            tell(self._offer, retry.on_error, "on_error", decision.next, error)
        known = None if steered else error
        seconds = self._clock.mono() - work.started_mono
        ended_at = self._clock.wall()
        if ending is Ending.DEAD:
            return death(
                self._offer,
                work.delivery,
                job,
                decision.next,
                decision.reason,
                known,
                seconds,
                ended_at,
            )
        verb = _VERBS[ending]
        envelope = stored(decision.next, decision.delay) if verb is Verb.REQUEUE else None
        return Outcome(
            ending,
            verb,
            work.delivery,
            envelope,
            job,
            known,
            decision.reason,
            decision.delay,
            seconds,
            ended_at,
        )


async def _call(work: Work, execution: Execution) -> None:
    """Await the function of *work*, no longer than its timeout.

    Raises:
        JobTimeout: It took longer.
    """
    if work.job.timeout is None:
        # Nothing here needs asyncio then, so a simulator can drive the function itself.
        await work.plan.call(execution)
        return
    limit = asyncio.timeout(work.job.timeout)
    try:
        async with limit:
            await work.plan.call(execution)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise JobTimeout().with_traceback(error.__traceback__) from None


async def _on_a_thread(conclude: Callable[..., Outcome], *args: Any) -> Outcome:
    """Return what *conclude* returns, whoever cancels meanwhile: a run that ended has an outcome."""
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    concluding = loop.run_in_executor(None, lambda: context.run(conclude, *args))
    while not concluding.done():
        try:
            await asyncio.shield(concluding)
        except asyncio.CancelledError:
            continue
    return concluding.result()


def _log(job: Job[Any], ending: Ending, error: BaseException, decision: Decision) -> None:
    extra = fields(job)
    failure = decision.next.failure  # its text can be had, whatever the error's own does
    what = name_of_error(error).removeprefix("builtins:")
    if failure is not None and not isinstance(error, Bury):
        what = f"{what}: {failure.message}"
    if ending is Ending.DEAD:
        logger.error(
            "job %s of %s is dead%s",
            job.id,
            job.fn,
            why(decision.next, decision.reason),
            extra=extra,
            exc_info=error if isinstance(error, Exception) else None,
        )
    elif ending is Ending.RETRIED:
        logger.warning(
            "job %s of %s failed (attempt %d) with %s%s; again in %.1f s",
            job.id,
            job.fn,
            decision.next.attempt,
            what,
            _place(error),
            decision.delay,
            extra=extra,
            exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
        )
    else:
        if isinstance(error, Postpone):
            what = f"again in {decision.delay:.1f} s"
        elif isinstance(error, Skip):
            what = error.reason or "no reason given"
        logger.info("job %s of %s is %s (%s)", job.id, job.fn, ending.value, what, extra=extra)


def _place(error: BaseException) -> str:
    """Return where *error* was raised: enough to find it, in a line, however many jobs fail."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f" ({code.co_filename}:{trace.tb_lineno} in {code.co_name})"
