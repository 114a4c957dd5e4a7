"""Runs a transactional job: its function's writes and its ack are one transaction.

The pipeline of `execution`, with a `goose.brokers.completion.Completion` around the call:

1. begin, on a connection of the job's own; where there is none to be had now, the job comes back
   later and nothing is charged,
2. call the function, middleware and all, which finds the connection in ``goose.current()``,
3. it returned: ack and commit in one step, so there is nothing left to settle; but for a job with
   traits, which is noted to be done and then settled as any other. The loan was no
   longer good: all is rolled back, and the settler hears of a release that will be refused. The
   database refused the commit: that is a failure of the run like any other,
4. it raised, whatever it was: all is rolled back, and the run is concluded and settled as usual,
5. nobody knows whether the commit happened: the question is asked until it is answered, and only
   then is it one of the above. A shutdown does not wait for that; then a release is tried, which
   is fenced, so it does nothing to a job that is done.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from goose.brokers import name_of
from goose.brokers.base import Broker
from goose.brokers.completion import AsyncCompleting, AsyncCompletion, Completing, Completion
from goose.calls import Offer
from goose.errors import BrokerError, BrokerUnavailable, Postpone, Unsupported
from goose.jobs import Envelope
from goose.middleware.base import Execution
from goose.options import is_transactional
from goose.worker.outcomes import COMMITTED, Verb, fields, stored
from goose.worker.work import Work

T = TypeVar("T")
Call = Callable[[Callable[[Execution], Any], Execution], None]
logger = logging.getLogger("goose.worker")

OPEN_LONG = 60.0
"""Seconds after which a transaction that is still open is told about."""
_LATER = (1.0, 5.0)
"""Seconds after which a job comes back that got no connection; by chance, so that not all do at once."""


class Transactions:
    """Runs functions inside a transaction of *broker*. Thread-safe.

    Args:
        broker: Where the jobs are; None for a run without one.
        random: Source of jitter.
    """

    def __init__(self, broker: Broker | None, random: random.Random) -> None:
        self._broker = broker
        self._random = random

    def run(self, work: Work, execution: Execution, call: Call) -> Verb:
        """Run *work* by *call*, on this thread; return the verb that is left to settle it.

        Raises:
            BaseException: What the function or the commit raised; nothing was written.
        """
        if not isinstance(self._broker, Completing):
            raise _unsupported(self._broker, work.job.fn)
        try:
            completion = self._broker.begin(work.delivery)
        except BrokerUnavailable as error:
            raise self._postponed(work, error) from error
        try:
            execution.own_connection = completion.connection
            call(work.plan.call, execution)
            return _commit(work, completion)
        finally:
            execution.own_connection = None
            completion.close()

    async def arun(
        self,
        work: Work,
        execution: Execution,
        call: Callable[[Work, Execution], Coroutine[Any, Any, None]],
    ) -> Verb:
        """As `run`, on the running event loop; *call* awaits the function."""
        if not isinstance(self._broker, AsyncCompleting):
            raise _unsupported(self._broker, work.job.fn)
        try:
            completion = await self._broker.abegin(work.delivery)
        except BrokerUnavailable as error:
            raise self._postponed(work, error) from error
        try:
            execution.own_connection = completion.connection
            await call(work, execution)
            return await uncancelled(_acommit(work, completion))
        finally:
            execution.own_connection = None
            await uncancelled(completion.close())

    def _postponed(self, work: Work, error: BrokerError) -> Postpone:
        logger.warning(
            "job %s has no connection for its transaction: %s",
            work.job.id,
            error,
            extra=fields(work.job),
        )
        return Postpone(self._random.uniform(*_LATER))


def check(broker: Broker, offer: Offer) -> None:
    """Refuse to work for *broker* if functions on *offer* need transactions it does not have.

    Raises:
        Unsupported: It names the first of them, and the way out.
    """
    for function in offer.functions():
        kind = AsyncCompleting if function.is_async else Completing
        if is_transactional(function.fn) and not isinstance(broker, kind):
            raise _unsupported(broker, function.name)


def _unsupported(broker: Broker | None, name: str) -> Unsupported:
    if broker is None:
        return Unsupported(
            f"{name} is transactional, and there is no broker here: leave it to a worker, or in a test "
            "use goose.testing.drain with the broker that production has"
        )
    return Unsupported(
        f"{name} is transactional, which {name_of(broker)} cannot do for it: its jobs belong on PostgreSQL, "
        "or, if the function is not async, on SQLite (in a test, use goose.testing.drain with such a "
        "broker); else leave transactional=True out and make it idempotent"
    )


# --- the end ------------------------------------------------------------------------------


def _commit(work: Work, completion: Completion) -> Verb:
    note = _note(work)
    try:
        return _verb(work, completion.commit(note))
    except BrokerUnavailable as unsure:
        for pause in _pauses(work, unsure):
            try:
                done = completion.is_done()
            except BrokerError:
                time.sleep(pause)
                continue
            return _found(work, unsure, done=done)
    return Verb.RELEASE


async def _acommit(work: Work, completion: AsyncCompletion) -> Verb:
    note = _note(work)
    try:
        return _verb(work, await completion.commit(note))
    except BrokerUnavailable as unsure:
        for pause in _pauses(work, unsure):
            try:
                done = await completion.is_done()
            except BrokerError:
                await asyncio.sleep(pause)
                continue
            return _found(work, unsure, done=done)
    return Verb.RELEASE


def _note(work: Work) -> Envelope | None:
    """Return *work*'s job as one that has been done, for its traits to be told before it is acked."""
    job = work.job
    return stored(job.evolve(traits={**job.traits, COMMITTED: True})) if job.traits else None


def _verb(work: Work, ours: bool) -> Verb:
    if ours and work.job.traits:
        return Verb.ACK
    # A release, as an ack would lose the job if the broker were of another mind about the loan:
    # nothing that the function wrote was kept.
    return Verb.SETTLED if ours else Verb.RELEASE


def _pauses(work: Work, unsure: BrokerUnavailable) -> Iterator[float]:
    """Yield seconds to wait between questions, until a shutdown will wait no longer."""
    logger.warning(
        "job %s: whether its transaction was committed is not known yet: %s",
        work.job.id, unsure, extra=fields(work.job),
    )  # fmt: skip
    pause = 0.05
    while not work.interrupted:
        yield pause
        pause = min(2 * pause, 2.0)


def _found(work: Work, unsure: BrokerUnavailable, *, done: bool) -> Verb:
    if done:
        return _verb(work, ours=True)
    # It did not happen: what the database said is the run's failure.
    raise unsure.__cause__ or unsure


async def uncancelled(work: Coroutine[Any, Any, T]) -> T:
    """Return what *work* returns, whoever cancels meanwhile: half a commit is none."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
        except BaseException:  # noqa: BLE001 - raised by the result
            break
    return task.result()
