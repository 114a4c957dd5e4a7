"""What becomes of the jobs of a process that died: the crash policy, all of it.

An orphan is a delivery whose session died. Whoever took it over (an orphan checker in any
worker, or a supervisor whose own child died) says what is known of it as a `Verdict`, and
`settle_orphans` settles it:

* it was not started: given back, at no cost;
* it was alone in its process: it is blamed, one crash more. A worker that finds it with too
  many crashes does not run it but buries it with reason ``crashed``;
* it was, or may have been, one of several: it is a *suspect*. It will run again alone, so
  that only crashes suffered alone count and no innocent neighbour is ever condemned;
* the supervisor killed the process because of this job's hard timeout: one failed attempt.

Blamed and suspected jobs come back with a growing, jittered delay, so that a killer does
not walk through a whole fleet at once. Source: docs/adr/0003-blame.md.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from goose.brokers.base import Broker, Delivery
from goose.errors import JobTimeout, Undecodable
from goose.jobs import Envelope, Job, decode
from goose.retries import Retry
from goose.worker.outcomes import failed, fields, stored

logger = logging.getLogger("goose.worker.recovery")

BACKOFF = 1.0
"""Seconds: ceiling of the delay after the first crash; doubles with each further one."""
BACKOFF_LIMIT = 600.0
"""Seconds: no ceiling is above this."""


class Verdict(Enum):
    """What is known of an orphan's part in the death of its process."""

    UNSTARTED = "unstarted"
    ALONE = "alone"
    SUSPECT = "suspect"
    TIMED_OUT = "timed_out"
    ENDED = "ended"
    """It had just ended, and nothing ran: whatever it left behind is the next suspect."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What `settle_orphans` did."""

    verdicts: dict[str, int]
    """Orphans by verdict value."""
    blamed: Sequence[Job[Any]]
    """Jobs whose crash count rose, as they are stored now."""
    lost: Sequence[Delivery]
    """Orphans that were no longer the caller's when it settled them."""


def judge_by_absence(
    deliveries: Sequence[Delivery], *, complete: bool
) -> Callable[[Delivery], Verdict]:
    """Return verdicts for orphans of whose process nothing was noted.

    Suspects run alone: their worker holds nothing else meanwhile. So a suspect that is the
    only orphan of its session was alone when its process died. Everything else may have been
    started or not, and is suspected.

    Args:
        deliveries: What one `recover` returned.
        complete: Whether it returned all there was; else an orphan that looks single may not be.
    """
    held = Counter(delivery.orphan_of for delivery in deliveries)

    def verdict(delivery: Delivery) -> Verdict:
        single = complete and held[delivery.orphan_of] == 1
        return Verdict.ALONE if single and _was_isolated(delivery) else Verdict.SUSPECT

    return verdict


def _was_isolated(delivery: Delivery) -> bool:
    try:
        return isolated(_decoded(delivery.envelope))
    except Undecodable:
        return False


def isolated(job: Job[Any]) -> bool:
    """Say whether *job* must run alone in its process."""
    return job.suspicions > 0 or job.crashes > 0


def _decoded(envelope: Envelope) -> Job[Any]:
    # Whatever the size limit of the worker that ran it: it was small enough for that one.
    return decode(envelope, max_bytes=1 << 30)


def settle_orphans(
    broker: Broker,
    deliveries: Sequence[Delivery],
    verdict: Callable[[Delivery], Verdict],
    *,
    now: float,
    random: random.Random,
) -> Recovered:
    """Settle *deliveries*, taken over by `Sessions.recover`, each by its verdict.

    Args:
        broker: Where they were recovered.
        deliveries: Held by the caller's session.
        verdict: What is known of each.
        now: Epoch seconds.
        random: Source of jitter.

    Raises:
        BrokerError: Some may not be settled; they stay lent to the caller's session until it
            gives them back, or are found again when that ends or dies.
    """
    release: list[Delivery] = []
    requeue: list[tuple[Delivery, Envelope]] = []
    blamed: list[Job[Any]] = []
    verdicts: Counter[str] = Counter()
    for delivery in deliveries:
        known = resolved(verdict(delivery), delivery)
        verdicts[known.value] += 1
        if known is Verdict.UNSTARTED:
            release.append(delivery)
            continue
        try:
            job = _decoded(delivery.envelope)
        except Undecodable:
            # A body nobody can run was certainly not what ended the process.
            release.append(delivery)
            continue
        job, delay = judged(job, known, now, random)
        if known is Verdict.ALONE:
            blamed.append(job)
        requeue.append((delivery, stored(job.evolve(queue=delivery.envelope.queue), delay)))
    lost: list[Delivery] = []
    if release:
        lost += broker.release(release)
    if requeue:
        lost += broker.requeue(requeue)
    for job in blamed:
        tell_blame(job)
    return Recovered(dict(verdicts), blamed, lost)


def tell_blame(job: Job[Any]) -> None:
    """Log that *job* is blamed; its crashes count this one."""
    logger.warning(
        "job %s of %s was alone in its process when it died (crash %d)",
        job.id,
        job.fn,
        job.crashes,
        extra=fields(job),
    )


def resolved(verdict: Verdict, delivery: Delivery) -> Verdict:
    """Return *verdict*, made definite by what the job says of itself."""
    if verdict is Verdict.ENDED:
        return Verdict.ALONE if _was_isolated(delivery) else Verdict.SUSPECT
    return verdict


def judged(
    job: Job[Any], verdict: Verdict, now: float, random: random.Random
) -> tuple[Job[Any], float]:
    """Return the job's next state and the seconds until it is due; it was started."""
    if verdict is Verdict.TIMED_OUT:
        late = JobTimeout("it ran over its hard timeout, and its process was killed")
        job = failed(job, late, now)
        policy = retry_of(job)
        if policy.exhausted(job.attempt):
            return job, 0.0  # the next worker that sees it buries it, calling its on_death
        return job, policy.delay(job.attempt, late, random, _resolve_nothing)
    blamed = verdict is Verdict.ALONE
    job = job.evolve(crashes=job.crashes + blamed, suspicions=job.suspicions + (not blamed))
    if blamed:  # it did find an empty process
        job = job.evolve(deferred_since=None)
    ceiling = BACKOFF * 2.0 ** min(job.crashes + job.suspicions - 1, 20)
    return job, random.uniform(0.0, min(ceiling, BACKOFF_LIMIT))


def retry_of(job: Job[Any]) -> Retry:
    """Return the job's policy, or the default one if what travelled makes no sense."""
    try:
        return Retry.from_wire(job.retry)
    except ValueError as error:
        logger.warning(
            "job %s of %s carries a retry policy that makes no sense (%s); the default is used",
            job.id,
            job.fn,
            error,
            extra=fields(job),
        )
        return Retry()


def _resolve_nothing(name: str) -> Callable[..., Any]:
    raise LookupError(f"{name} cannot be called outside a worker process; the default is used")
