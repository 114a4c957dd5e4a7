"""The contract for transactional jobs: a function's writes and its job's ack are one transaction.

Optional companions of `goose.brokers.base.Broker`, for brokers whose jobs are in a database that
functions write to as well. The engine asks for them with ``isinstance``, opens a `Completion` for
each run of a transactional function, hands its connection to the function, and then either
commits or closes it. What the engine relies on, and how each could break:

* *An effect without an ack*: the process dies between the two, and the job runs again. So they
  are one commit.
* *An ack without the effect*: the function swallowed an error that aborted its transaction, or
  ended the transaction itself, so that the commit commits nothing, or only half. So `commit`
  looks what state the transaction is in, and refuses.
* *A zombie's effect*: the worker was held for dead, and another runs the job. So the ack within
  the transaction is fenced by the receipt like any other, and where it finds no loan everything
  is rolled back. No lock is held before that moment: a transaction that hangs does not keep
  others from recovering the job.
* *An effect that nobody heard of*: the connection breaks while the commit is under way. Neither
  "done" nor "failed" would be true, so `commit` raises `BrokerUnavailable`, and `is_done`
  finds out: it waits for a commit that may still be under way, then looks whether the loan is
  there. If the process dies first, the job is either gone, or recovered like any other.
* *An end that a feature never heard of*: batches and their like are told of a job's end before its ack
  (`goose.features.traits`), which must not be before the commit. So a job that bears traits is
  not acked by its transaction but *noted*: its body says from then on that it has been done. Then
  it is settled as usual; whoever is lent it again after a crash settles it without a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from goose.brokers.base import Delivery
from goose.jobs import Envelope


class Completion(Protocol):
    """One open transaction, in which one job runs. Used by one thread at a time."""

    @property
    def connection(self) -> Any:
        """The connection that the function writes by; it cannot end the transaction."""
        ...

    def commit(self, note: Envelope | None = None) -> bool:
        """Ack the job and commit, in one step.

        Args:
            note: Leave the job lent, with this body, in place of acking it.

        Returns:
            Whether that happened; False if the loan was no longer good: all is rolled back.

        Raises:
            BrokerUnavailable: It is not known whether it happened; ask `is_done`.
            Exception: The database's own error: it refused, and nothing happened.
        """
        ...

    def is_done(self) -> bool:
        """After a `commit` of unknown outcome: whether the job is acked, or noted; else nothing happened.

        Raises:
            BrokerError: It cannot be found out now.
        """
        ...

    def close(self) -> None:
        """Roll back what is not committed, and let go of the connection. Never raises."""
        ...


class AsyncCompletion(Protocol):
    """As `Completion`, for a function that asyncio runs, on its event loop."""

    @property
    def connection(self) -> Any:
        """See `Completion.connection`; one that is awaited."""
        ...

    async def commit(self, note: Envelope | None = None) -> bool:
        """See `Completion.commit`; never cancelled by the engine."""
        ...

    async def is_done(self) -> bool:
        """See `Completion.is_done`."""
        ...

    async def close(self) -> None:
        """See `Completion.close`."""
        ...


@runtime_checkable
class Completing(Protocol):
    """Lets sync functions write in the transaction that acks their job."""

    def begin(self, delivery: Delivery) -> Completion:
        """Open a transaction for the job of *delivery*, on a connection of its own.

        Raises:
            BrokerError: There is no connection to be had; nothing has begun.
        """
        ...


@runtime_checkable
class AsyncCompleting(Protocol):
    """The same for async functions."""

    async def abegin(self, delivery: Delivery) -> AsyncCompletion:
        """See `Completing.begin`."""
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that is done, as an `Archive` shows it."""

    envelope: Envelope
    """As it was lent the last time."""
    at: float
    """Epoch seconds by the broker's clock when it was acked."""


@runtime_checkable
class Archive(Protocol):
    """Keeps jobs for a period after they are done, if it is told to (``keep_done=7d``)."""

    def finished(
        self, queue: str | None = None, *, limit: int = 100, after: Finished | None = None
    ) -> Sequence[Finished]:
        """Return up to *limit* jobs that are done, of *queue* or of all, the last ones first.

        Args:
            queue: Only these.
            limit: Jobs, at least 1.
            after: The last of the page before.

        Raises:
            Unsupported: It was not told to keep any.
        """
        ...
