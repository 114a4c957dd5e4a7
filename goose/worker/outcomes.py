"""How executions end, as data: what was decided, ready to be settled.

`decide` is the whole retry policy of the engine: a pure function of a job and the error
it ended in. Everything else here is frozen data that flows one way, from an execution to
the settler, which carries out `Outcome.verb` and nothing more.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from goose.brokers.base import Delivery
from goose.errors import Bury, JobTimeout, Postpone, Skip
from goose.jobs import Envelope, Failure, Job, seal
from goose.retries import Retry

MAX_MESSAGE = 2_000
"""Characters of an error's message that are kept."""
MAX_TRACEBACK = 8_000
"""Characters of a traceback that are kept: its end, which says most."""
BLAMED = "blamed"
"""The reason of a recovered job that was alone in its process when it died."""
COMMITTED = "committed"
"""The trait of a job whose own transaction was committed: it has been done, and must not run again."""
UNBOUNDED = 1 << 62
"""Size limit for what is stored already: a job must never become too large to settle."""


class Verb(StrEnum):
    """The broker's verb that settles an outcome."""

    ACK = "ack"
    RELEASE = "release"
    REQUEUE = "requeue"
    BURY = "bury"
    SETTLED = "settled"
    """None: its own transaction has acked the job."""


class Ending(StrEnum):
    """How a delivery ended, as logs and metrics name it."""

    DONE = "done"
    SKIPPED = "skipped"
    RETRIED = "retried"
    POSTPONED = "postponed"
    DEFERRED = "deferred"
    DEAD = "dead"
    UNDECODABLE = "undecodable"
    CANCELLED = "cancelled"
    """Ended on somebody's order, before or while it ran."""
    RELEASED = "released"
    WAITING = "waiting"
    """Not run: one of its traits lets it start later."""
    RECOVERED = "recovered"
    """Not run: its last process died, and a witness says that it had been started there."""


FINAL = frozenset({Ending.DONE, Ending.SKIPPED, Ending.DEAD, Ending.CANCELLED})
"""After these a job is no more, or only among the dead."""


class Outcome(NamedTuple):
    """What is to become of one delivery, and what there is to tell about it."""

    ending: Ending
    verb: Verb
    delivery: Delivery
    envelope: Envelope | None = None
    """The job's next state, for `Verb.REQUEUE` and `Verb.BURY`."""
    job: Job[Any] | None = None
    """As it ran; None if it could not be decoded."""
    error: BaseException | None = None
    reason: str = ""
    delay: float = 0.0
    """Seconds until it is due again."""
    seconds: float | None = None
    """How long the function ran; None if it was not called."""
    ended_at: float | None = None
    """When the run ended, in epoch seconds; None if the function was not called."""
    result: Any = None
    """What the function returned, if the job has traits to tell."""

    @property
    def latency(self) -> float | None:
        """Seconds from ready to started; worked out only where somebody wants to know."""
        if self.ended_at is None or self.seconds is None or self.job is None:
            return None
        ready = self.delivery.ready_at
        if ready is None:
            ready = self.job.enqueued_at
        # Both instants are on the wall, which may have jumped in between.
        return max(0.0, self.ended_at - self.seconds - ready)

    @property
    def failed(self) -> bool:
        """Whether an execution ended in an error."""
        return self.error is not None and self.seconds is not None


@dataclass(frozen=True, slots=True)
class Decision:
    """What `decide` decided: `next` is the job as it is stored from now on."""

    ending: Ending
    next: Job[Any]
    delay: float = 0.0
    reason: str = ""


def name_of_error(error: BaseException) -> str:
    """Return the class of *error* as ``module:qualname``."""
    kind = type(error)
    return f"{kind.__module__}:{kind.__qualname__}"


def failed(job: Job[Any], error: BaseException, now: float, reason: str = "") -> Job[Any]:
    """Return *job* with one more attempt and *error* in its failure history.

    Args:
        job: As it ran.
        error: What the execution ended in.
        now: Epoch seconds.
        reason: Why it is dead, if it is; else empty.
    """
    try:
        message = _storable(str(error)[:MAX_MESSAGE])
        text = "".join(traceback.format_exception(error, limit=-30))[-MAX_TRACEBACK:]
        text = _storable(text)
    except Exception as unprintable:  # noqa: BLE001 - an error's own __str__ may do anything
        message, text = f"(its text cannot be had: {type(unprintable).__name__})", ""
    failure = Failure(
        type=name_of_error(error),
        message=message,
        first_at=now if job.failure is None else job.failure.first_at,
        last_at=now,
        traceback=text,
        died_at=now if reason else None,
        reason=reason,
    )
    # It ended, so this time its process survived it: the suspicion is over.
    return job.evolve(attempt=job.attempt + 1, suspicions=0, deferred_since=None, failure=failure)


def _storable(text: str) -> str:
    """Return *text* with lone surrogates, which could not be stored, shown escaped."""
    return text.encode(errors="backslashreplace").decode()


def dead(job: Job[Any], now: float, reason: str, message: str = "") -> Job[Any]:
    """Return *job* as it is stored among the dead, its failure history kept."""
    past = job.failure
    failure = Failure(
        type=past.type if past else "",
        message=_storable(message[:MAX_MESSAGE]) or (past.message if past else ""),
        first_at=past.first_at if past else now,
        last_at=past.last_at if past else now,
        traceback=past.traceback if past else "",
        died_at=now,
        reason=reason,
    )
    return job.evolve(failure=failure)


def decide(
    job: Job[Any],
    error: BaseException,
    retry: Retry,
    *,
    now: float,
    random: random.Random,
    resolve: Callable[[str], Callable[..., Any]],
) -> Decision:
    """Return what becomes of *job* after *error*; changes nothing.

    Args:
        job: As it ran.
        error: What the execution ended in; a `Control` steers.
        retry: The job's policy.
        now: Epoch seconds.
        random: Source of jitter.
        resolve: Finds a custom back-off by its name.
    """
    if isinstance(error, Skip):
        return Decision(Ending.SKIPPED, job, reason=error.reason)
    if isinstance(error, Postpone):
        return Decision(Ending.POSTPONED, job.evolve(suspicions=0), delay=error.seconds)
    if isinstance(error, Bury):
        buried = dead(job, now, "buried", error.reason)
        return Decision(Ending.DEAD, buried, reason=f"buried: {error.reason}")
    verdict = retry.ending(error)
    if verdict == "succeed":
        return Decision(Ending.DONE, job, reason=f"succeed_on {name_of_error(error)}")
    if verdict == "give_up":
        return Decision(Ending.DEAD, failed(job, error, now, "gave_up"), reason="gave_up")
    if retry.exhausted(job.attempt + 1):
        reason = "timeout" if isinstance(error, JobTimeout) else "retries"
        return Decision(Ending.DEAD, failed(job, error, now, reason), reason=reason)
    again = failed(job, error, now)
    delay = retry.delay(again.attempt, error, random, resolve)
    if retry.queue is not None:
        again = again.evolve(queue=retry.queue)
    return Decision(Ending.RETRIED, again, delay=delay)


def stored(job: Job[Any], delay: float = 0.0) -> Envelope:
    """Return *job* in its envelope, due after *delay* seconds, whatever its size has become."""
    return seal(job, delay=delay if delay > 0 else None, max_bytes=UNBOUNDED)


def fields(job: Job[Any]) -> dict[str, object]:
    """Return what a log record about *job* carries beside its text."""
    return {"job_id": job.id, "function": job.fn, "queue": job.queue, "attempt": job.attempt}


def known(delivery: Delivery) -> dict[str, object]:
    """Return what a log record about a job that cannot be decoded carries."""
    return {"job_id": delivery.envelope.id, "queue": delivery.envelope.queue}
