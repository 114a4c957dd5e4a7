"""The end of a job that gave up: its last outcome, and telling those who asked to be told."""

from __future__ import annotations

import logging
import re
from collections.abc import Coroutine
from typing import Any

from goose._words import several
from goose.brokers.base import Delivery
from goose.calls import Offer
from goose.jobs import Job
from goose.worker.outcomes import Ending, Outcome, Verb, fields, stored
from goose.worker.recovery import retry_of

logger = logging.getLogger("goose.worker")


def tell(offer: Offer, name: object, role: str, job: Job[Any], error: BaseException | None) -> None:
    """Call the policy's callback *name* with the job and the error; survive all it does."""
    if not name:
        return
    try:
        result = offer.resolve_callable(str(name))(job, error)
        if isinstance(result, Coroutine):
            result.close()
            raise TypeError(f"{name} is async, and nothing awaits it; make it a plain function")
    except BaseException:
        logger.exception("%s %s of job %s failed", role, name, job.id, extra=fields(job))


def why(buried: Job[Any], reason: str) -> str:
    """Return why *buried* is dead, to stand behind "is dead" in the log."""
    failure = buried.failure
    error = failure.type.removeprefix("builtins:") if failure else ""
    if failure and failure.message:
        error = f"{error}: {failure.message}" if error else failure.message
    if reason == "retries":
        tries = several(buried.attempt, "attempt")
        return f", no retries left ({tries}): {error or 'its error is not known'}"
    if reason == "timeout" and failure:
        # It begins with the function, which the log has named already.
        return f": {_NAMED.sub('it ', failure.message)}"
    if reason == "gave_up":
        return f", its policy gives up on {error}"
    if reason == "crashed":
        return f": its process died {several(buried.crashes, 'time')} while it ran alone"
    return f": {reason}"


_NAMED = re.compile(r"^\S+ (?=ran over )")


def death(
    offer: Offer,
    delivery: Delivery,
    job: Job[Any],
    buried: Job[Any],
    reason: str,
    error: BaseException | None = None,
    seconds: float | None = None,
    ended_at: float | None = None,
    *,
    heard: bool = False,
) -> Outcome:
    """Return the outcome of *job*, which is stored as *buried* if its policy keeps dead jobs.

    Its ``on_death`` is told first, so that it is told at least once whatever happens next,
    unless it has *heard* of this already.
    """
    retry = retry_of(job)
    if not heard:
        tell(offer, retry.on_death, "on_death", buried, error)
    verb = Verb.BURY if retry.keep_dead else Verb.ACK
    return Outcome(
        Ending.DEAD, verb, delivery, stored(buried), job, error, reason, 0.0, seconds, ended_at
    )
