"""What a client leads to besides enqueueing: stored jobs, the store, and what became of a job.

A base class of `goose.Client`, for its length. How long `Access.result` waits between two looks
grows to a quarter of a second: a caller hears of a quick job at once, and one that waits for hours
costs the store four reads a second.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from goose._returns import decode_result
from goose.brokers import name_of, sees_all
from goose.brokers.base import Broker, Inspector
from goose.errors import (
    ArgumentError,
    JobFailed,
    ResultTimeout,
    ResultUnavailable,
    Unsupported,
)
from goose.features.asking import Claimed, claimed
from goose.jobs import Job, Status
from goose.sealing import Sealed
from goose.sending import Destination, Door, Root, instead
from goose.settings import Settings
from goose.values import seconds

if TYPE_CHECKING:
    from goose.features.results import Progress, Record
    from goose.inspecting import Inspection
    from goose.metrics.enqueuing import Meter
    from goose.stores.base import Store

R = TypeVar("R")

FIRST_LOOK = 0.005
"""Seconds between the first two looks for a result."""
LAST_LOOK = 0.25
"""Seconds between two looks at most."""
PRESENCE = 2.0
"""Seconds between looks whether a job that is waited for is still stored at all."""


class Access:
    """What every client has, whatever its options."""

    _root: Root
    _to: Destination

    @property
    def broker(self) -> Broker:
        """The broker jobs go to."""
        return self._root.link(self._to.broker).broker

    @property
    def store(self) -> Store:
        """What remembers everything that is not a job; closed by `close`.

        Raises:
            Unsupported: The broker has none, and none is configured.
        """
        return self._root.link(self._to.broker).store(self.settings).open()

    def meter(self) -> Meter | None:
        """Return what counts the jobs it stores; None if nobody wants to know."""
        return self._root.meter()

    @property
    def settings(self) -> Settings:
        """What decides where no option does."""
        return self._root.settings()

    @property
    def inspector(self) -> Inspection:
        """Looks at stored jobs and changes them.

        Raises:
            Unsupported: The broker cannot do that.
        """
        from goose.features.traits import Traits
        from goose.inspecting import Inspection  # operators' needs are not every program's

        broker = self.broker
        if not isinstance(broker, Inspector):
            raise Unsupported(
                f"{name_of(broker)} cannot list its jobs; use the tools of the server itself"
            )
        traits = Traits(broker, lambda: self.store)
        return Inspection(broker, max_bytes=self.settings.max_bytes, traits=traits)

    def close(self) -> None:
        """Close the connections this client made, also those of all clients that share them.

        A broker that was given as an object stays open. A later call connects again.
        """
        self._root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def claimed(self, sealed: Sequence[Sealed]) -> Claimed:
        """Claim what the features of these jobs need; return what is left to send.

        Raises:
            Unsupported: They need a store, and there is none.
            GooseError: They cannot be what they ask for.
        """
        if instead.get() is not None or not any(job.traits for job, _ in sealed):
            return Claimed(sealed)
        found = claimed(sealed, self.broker, self.store)
        if found.claims and self._to.transacts:
            found.undo({job: "not_stored" for job, _ in sealed})
            raise Unsupported(
                "what a job waits for or shares with others is no part of a transaction; leave out "
                "connection= or outbox= for jobs that depend on others or are unique"
            )
        meter = self._root.meter() if found.answers else None
        if meter is not None:
            meter.existing([job for id_, job in found.answers.items() if job.id != id_])
        return found

    def door(self, later: bool) -> Door:
        """Return where envelopes that are due *later*, or ready, are handed over."""
        return self._root.door(self._to, later=later)

    # --- what became of a job ----------------------------------------------------------------

    def result(self, job: Job[R] | str, timeout: float | timedelta | None = None, /) -> R:
        """Wait until *job* (or the job of that id) has ended; return what it returned.

        See `Job.result`. What is asked for by an id, or is of a function whose module is not
        imported here, comes back as plain JSON.

        Raises:
            GooseError: As `Job.result`.
        """
        wait = _Wait(self, job, timeout)
        while (found := wait.look()) is None:
            time.sleep(wait.pause())
        return self._value(job, found)

    async def aresult(
        self,
        job: Job[R] | str,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - as its sync twin
        /,
    ) -> R:
        """Do what `result` does, for asyncio code."""
        import asyncio  # not every program's

        wait = _Wait(self, job, timeout)
        while (found := await asyncio.to_thread(wait.look)) is None:  # noqa: ASYNC110 - others end it
            await asyncio.sleep(wait.pause())
        return self._value(job, found)

    def status(self, job: Job[Any] | str, /) -> Status:
        """Return where *job* (or the job of that id) is in its life; see `Job.status`."""
        try:
            record = self.record(_id(job))
            if record is not None:
                return record.ending
            if self._waits(_id(job)):
                return "waiting"
        except Unsupported:
            pass  # without a store, nothing of that can be
        broker = self.broker
        stored = broker.find(_id(job)) if isinstance(broker, Inspector) else None
        return self._ended_meanwhile(_id(job)) if stored is None else stored.state.value

    def progress(self, job: Job[Any] | str, /) -> Progress | None:
        """Return what *job* (or the job of that id) said last of how far it is.

        Raises:
            BrokerError: The store failed.
            Unsupported: There is none.
        """
        from goose.features.results.progress import latest

        return latest(self.store, _id(job))

    # --- inside ------------------------------------------------------------------------------

    def record(self, job_id: str) -> Record | None:
        """Return how that job ended, None where nothing is kept of it."""
        from goose.features.results.records import key_of, read
        from goose.stores.base import Get

        [body] = self.store.apply([Get(key_of(job_id))])
        return None if body is None else read(body)

    def _ended_meanwhile(self, job_id: str) -> Status:
        """Return how a job ended that was found nowhere; it may have ended between two looks."""
        try:
            record = self.record(job_id)
        except Unsupported:
            record = None
        return "unknown" if record is None else record.ending

    def _waits(self, job_id: str) -> bool:
        """Say whether that job waits for others of its flow."""
        from goose.features.flows.records import key_of, read
        from goose.stores.base import Get

        [body] = self.store.apply([Get(key_of(job_id))])
        return body is not None and read(body).state in ("joining", "waiting", "stopped")

    def is_gone(self, job_id: str) -> bool:
        """Say whether that job is certainly neither stored nor on record."""
        broker = self.broker
        if not isinstance(broker, Inspector) or not sees_all(broker):
            return False
        # In this order: it waits until it is sent, and leaves its record before it is forgotten.
        return not self._waits(job_id) and broker.find(job_id) is None and not self.record(job_id)

    def _value(self, job: Job[R] | str, record: Record) -> R:
        if record.failed:
            raise _failure(job, record)
        if record.lost:
            raise ResultUnavailable(
                f"job {_id(job)} is done, but its result is not kept: {record.lost}"
            )
        fn = _function(job.fn) if isinstance(job, Job) else None
        value: Any = record.value
        if record.ending == "done" and fn is not None:
            try:
                value = decode_result(fn, record.value)
            except ArgumentError as error:
                raise ResultUnavailable(f"job {_id(job)} is done: {error}") from error
        found: R = value
        return found


class _Wait:
    """Waits for the end of one job, between growing pauses. For one caller.

    Raises:
        ResultUnavailable: There is nothing to wait for.
    """

    def __init__(
        self, access: Access, job: Job[Any] | str, timeout: float | timedelta | None
    ) -> None:
        if isinstance(job, Job) and "result" not in job.traits:
            raise ResultUnavailable(
                f"job {job.id} of {job.fn} keeps no result: enqueue it with "
                "goose.using(result=True), or put @goose.job(result=True) on its function"
            )
        self._access = access
        self._id = _id(job)
        self._timeout = math.inf if timeout is None else seconds(timeout, "timeout")
        now = time.monotonic()
        self._deadline = now + self._timeout
        self._pause = FIRST_LOOK
        self._check_at = now + LAST_LOOK

    def look(self) -> Record | None:
        """Return how the job ended, None if it has not and there is time left."""
        now = time.monotonic()
        found = self._access.record(self._id)
        if found is None and now >= self._deadline:
            raise ResultTimeout(self._why_not())
        if found is None and now >= self._check_at:
            self._check_at = now + PRESENCE
            if self._access.is_gone(self._id):
                raise ResultUnavailable(
                    f"job {self._id} is not stored and has left no result: it kept none, that has "
                    "outlived its time, or there never was such a job here"
                )
        return found

    def _why_not(self) -> str:
        late = f"job {self._id} has not ended within {self._timeout:g} s"
        broker = self._access.broker
        # Where looking means to take messages and put them back, nobody looks for a message's sake.
        if not isinstance(broker, Inspector) or not sees_all(broker):
            return late
        state = self._access.status(self._id)
        if state == "unknown":
            return (
                f"no job {self._id} is known here; one that is done is known only if its result is "
                "kept"
            )
        return f"{late}; it is {state}"

    def pause(self) -> float:
        """Return the seconds until the next look."""
        pause, self._pause = self._pause, min(1.5 * self._pause, LAST_LOOK)
        return min(pause, max(0.0, self._deadline - time.monotonic()))


def _id(job: Job[Any] | str) -> str:
    return job if isinstance(job, str) else job.id


def _function(name: str) -> Any:
    """Return the function of that name if its module is imported; imports nothing."""
    module, _, attribute = name.partition(":")
    return vars(sys.modules[module]).get(attribute) if module in sys.modules else None


def _failure(job: Job[Any] | str, record: Record) -> JobFailed:
    failure = record.failure or {}
    what = f"job {_id(job)}" + (f" of {job.fn}" if isinstance(job, Job) else "")
    error, message = failure.get("type", ""), failure.get("message", "")
    why = f"{error.removeprefix('builtins:')}: {message}" if error else message or record.reason
    if record.ending != "dead":
        why = record.reason
    return JobFailed(
        f"{what} is {record.ending}" + (f": {why}" if why else ""),
        ending=record.ending,
        type=error,
        message=message,
        traceback=failure.get("traceback", ""),
        reason=record.reason,
    )
