"""Makes a delivery ready to run: decodes its body and finds its function.

That is all that must be known before a slot is chosen. What cannot run here has its outcome
already: what is not a job is buried as it came; what this code does not know is left, with a
delay, for a worker that does, and buried only after days; a job that comes with a witness's
verdict from a process that died is first charged with it; and one that has used up its
chances (attempts or crashes that were counted where nobody could bury it) is dead.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from goose._words import several
from goose.brokers.base import Delivery
from goose.calls import Offer
from goose.errors import Control, NewerVersion, Undecodable, UnknownFunction
from goose.features.traits import unknown
from goose.jobs import Envelope, Job, decode, dump, parse
from goose.middleware.base import Execution, Middleware, compose, compose_async
from goose.options import is_transactional
from goose.worker.clock import Clock
from goose.worker.config import ENVELOPE_SLACK, WorkerConfig
from goose.worker.deaths import death, why
from goose.worker.outcomes import (
    BLAMED,
    COMMITTED,
    Ending,
    Outcome,
    Verb,
    dead,
    fields,
    known,
    stored,
)
from goose.worker.recovery import Verdict, judged, resolved, retry_of, tell_blame
from goose.worker.work import Plan, Work

logger = logging.getLogger("goose.worker")

_VERDICTS = frozenset(verdict.value for verdict in Verdict)


class Preparer:
    """Turns deliveries into work, or into the outcome they already have. Thread-safe."""

    def __init__(
        self,
        offer: Offer,
        config: WorkerConfig,
        middleware: Sequence[Middleware],
        clock: Clock,
        random: random.Random,
    ) -> None:
        self._offer = offer
        self._config = config
        self._middleware = tuple(middleware)
        self._clock = clock
        self._random = random
        self._plans: dict[str, Plan] = {}
        self._max_bytes = config.max_bytes + ENVELOPE_SLACK

    def prepare(self, delivery: Delivery) -> Work | Outcome:
        """Return *delivery* ready to run, or its outcome if it cannot be run here; never raises."""
        try:
            return self._prepare(delivery)
        except Exception as error:  # a defect of ours must cost this job some time, not its life
            logger.exception(
                "job %s could not be prepared", delivery.envelope.id, extra=known(delivery)
            )
            envelope = _delayed(delivery.envelope, self._config.defer_delay)
            return Outcome(Ending.DEFERRED, Verb.REQUEUE, delivery, envelope, error=error)

    def _prepare(self, delivery: Delivery) -> Work | Outcome:
        job: Job[Any] | None = None
        try:
            job = decode(delivery.envelope, max_bytes=self._max_bytes)
            if delivery.verdict is not None:
                recovered = self._recover(delivery, job, delivery.verdict)
                if recovered is not None:
                    return recovered
            if job.traits and COMMITTED in job.traits:
                return _committed(delivery, job)
            if job.crashes >= self._config.max_crashes:
                return self.end(delivery, job, "crashed")
            if job.attempt and retry_of(job).exhausted(job.attempt):
                return self.end(delivery, job, "timeout" if _timed_out(job) else "retries")
            if job.traits and (trait := unknown(job)):
                return self.defer(delivery, job, UnknownTrait(trait))
            plan = self._plans.get(job.fn) or self._plan(job.fn)
            return Work(delivery, job, plan, self._clock.mono())
        except NewerVersion as error:
            return self._defer_newer(delivery, error)
        except Undecodable as error:
            logger.error(
                "job %s is buried: undecodable: %s",
                delivery.envelope.id,
                error,
                extra=known(delivery),
            )
            return Outcome(
                Ending.UNDECODABLE,
                Verb.BURY,
                delivery,
                delivery.envelope,
                reason=f"undecodable: {error}",
            )
        except UnknownFunction as error:
            assert job is not None  # only a decoded job names a function
            return self.defer(delivery, job, error)

    def _recover(self, delivery: Delivery, job: Job[Any], verdict: str) -> Outcome | None:
        """Return what becomes of *job*, which was lent to a process that died; None if it runs now."""
        if verdict not in _VERDICTS:
            logger.warning("job %s comes with verdict %r; ignored", job.id, verdict)
            return None
        found = resolved(Verdict(verdict), delivery)
        if found is Verdict.UNSTARTED:
            return None
        again, delay = judged(job, found, self._clock.wall(), self._random)
        blamed = found is Verdict.ALONE
        if blamed:
            tell_blame(again)
        else:
            logger.warning("job %s of %s is back from a dead process (%s)", job.id, job.fn, verdict)
        envelope = stored(again.evolve(queue=delivery.envelope.queue), delay)
        reason = BLAMED if blamed else found.value
        return Outcome(
            Ending.RECOVERED, Verb.REQUEUE, delivery, envelope, job, reason=reason, delay=delay
        )

    def _plan(self, name: str) -> Plan:
        function = self._offer.resolve(name)
        fn = function.fn
        call: Callable[[Execution], Any] = (
            compose_async(self._middleware, fn)
            if function.is_async
            else compose(self._middleware, fn)
        )
        plan = self._plans[name] = Plan(
            function.is_async, function.decode, call, is_transactional(fn)
        )
        return plan

    def end(self, delivery: Delivery, job: Job[Any], reason: str) -> Work | Outcome:
        """Return the end of *job*, which has used up its chances.

        Its ``on_death`` is told in a slot, like any code that is not ours: there it blocks nobody,
        and if it ends the process, this job is to blame and no neighbour. It is told once more
        than the job may crash, and not again after that.
        """
        if not retry_of(job).on_death or job.crashes > self._config.max_crashes:
            return self.used_up(delivery, job, reason, heard=True)
        plan = Plan(False, _no_arguments, partial(_give_up, reason))
        return Work(delivery, job, plan, self._clock.mono())

    def used_up(
        self, delivery: Delivery, job: Job[Any], reason: str, *, heard: bool = False
    ) -> Outcome:
        """Return the outcome of *job*, which is dead; tells its ``on_death`` unless that has *heard*."""
        message = (
            f"its process died {several(job.crashes, 'time')} while it ran alone"
            if reason == "crashed"
            else ""
        )
        buried = dead(job, self._clock.wall(), reason, message)
        said = why(buried, reason)
        logger.error("job %s of %s is dead%s", job.id, job.fn, said, extra=fields(job))
        return death(self._offer, delivery, job, buried, reason, heard=heard)

    def defer(self, delivery: Delivery, job: Job[Any], error: Exception) -> Outcome:
        """Leave *job* for a worker with other code, or bury it after days without one."""
        now = self._clock.wall()
        since = job.deferred_since if job.deferred_since is not None else now
        if now - since > self._config.defer_limit:
            reason = _UNKNOWN.get(type(error), "signature_mismatch")
            logger.error("job %s of %s is dead: %s", job.id, job.fn, error, extra=fields(job))
            buried = dead(job, now, reason, str(error))
            return Outcome(Ending.DEAD, Verb.BURY, delivery, stored(buried), job, reason=reason)
        delay = self._config.defer_delay
        logger.warning(
            "job %s of %s is left for another worker: %s", job.id, job.fn, error, extra=fields(job)
        )
        next_state = stored(job.evolve(deferred_since=since), delay)
        return Outcome(Ending.DEFERRED, Verb.REQUEUE, delivery, next_state, job, delay=delay)

    def _defer_newer(self, delivery: Delivery, error: NewerVersion) -> Outcome:
        """Leave an envelope of a later version, whose body only gains the instant of its first wait."""
        now = self._clock.wall()
        body = parse(delivery.envelope.body, max_bytes=self._max_bytes)
        since = body.setdefault("deferred_since", now)
        # Compared, not subtracted: it may be an integer that no float can hold.
        if not isinstance(since, float | int) or since < now - self._config.defer_limit:
            logger.error("job %s is dead: %s", delivery.envelope.id, error, extra=known(delivery))
            return Outcome(
                Ending.DEAD, Verb.BURY, delivery, delivery.envelope, reason="newer_version"
            )
        logger.warning(
            "job %s is left for a newer worker: %s",
            delivery.envelope.id,
            error,
            extra=known(delivery),
        )
        envelope = _delayed(delivery.envelope, self._config.defer_delay, dump(body))
        return Outcome(
            Ending.DEFERRED, Verb.REQUEUE, delivery, envelope, delay=self._config.defer_delay
        )


class UnknownTrait(Exception):
    """A job bears a trait that this Goose does not have."""

    def __init__(self, trait: str) -> None:
        super().__init__(f"it bears the trait {trait!r:.80}, which this Goose does not know")


_UNKNOWN: Mapping[type, str] = {UnknownFunction: "unknown_function", UnknownTrait: "unknown_trait"}


def _committed(delivery: Delivery, job: Job[Any]) -> Outcome:
    """Return the end of *job*, which was done by a worker that did not live to say so."""
    traits = {name: value for name, value in job.traits.items() if name != COMMITTED}
    logger.info("job %s of %s was done before, and is not run again", job.id, job.fn)
    return Outcome(Ending.DONE, Verb.ACK, delivery, None, job.evolve(traits=traits))


class UsedUp(Control):
    """Raised in place of the function of a job that has used up its chances."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _give_up(reason: str, _execution: Execution) -> None:
    raise UsedUp(reason)


def _no_arguments(_args: object, _kwargs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (), {}


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
