"""What a job is: plain data, and what can be asked of whoever made it.

A module of its own for its length; import from `goose.jobs`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    cast,
)

from goose._edges import Output
from goose._json import JSON

if TYPE_CHECKING:
    from goose.features.results.progress import Progress

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Status = Literal[
    "waiting",
    "scheduled",
    "ready",
    "running",
    "dead",
    "done",
    "skipped",
    "cancelled",
    "deleted",
    "unknown",
]
"""Where a job is: ``waiting`` for other jobs of its flow; ``unknown`` where nothing is stored of it,
as of one that is done and keeps no result."""


class Home(Protocol):
    """Where a job can be asked about: the client that made it."""

    def result(self, job: Job[R], timeout: float | timedelta | None = None, /) -> R:
        """See `Job.result`."""
        ...

    async def aresult(
        self,
        job: Job[R],
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - as its sync twin
        /,
    ) -> R:
        """See `Job.aresult`."""
        ...

    def status(self, job: Job[Any], /) -> Status:
        """See `Job.status`."""
        ...

    def progress(self, job: Job[Any], /) -> Progress | None:
        """See `Job.progress`."""
        ...


class _Nothing(dict[str, Any]):
    """A mapping that is empty and stays so; what a job has none of, all jobs share."""

    __slots__ = ()
    __hash__ = object.__hash__  # type: ignore[assignment]

    def _refuse(self, *_: object, **__: object) -> Any:
        raise TypeError("a job is not changed: job.evolve(meta={**job.meta, …}) returns another")

    if not TYPE_CHECKING:
        __setitem__ = update = setdefault = __ior__ = _refuse

    def __reduce__(self) -> str:
        return "NOTHING"  # by its name, so that there is never a second one


NOTHING: Mapping[str, Any] = _Nothing()


@dataclass(frozen=True, slots=True)
class Failure:
    """What is remembered of a job's errors; travels with the job.

    Instants are epoch seconds by the worker's clock.
    """

    type: str
    """``module:qualname`` of the last error's class."""
    message: str
    first_at: float
    """When the job failed for the first time."""
    last_at: float
    traceback: str = ""
    """Text of the last traceback, its end, at most a few kilobytes."""
    died_at: float | None = None
    reason: str = ""
    """Why the job is dead: ``retries``, ``gave_up``, ``buried``, ``crashed``, ``timeout`` …"""
    extra: Mapping[str, JSON] = field(default_factory=dict)
    """Keys this version does not know, kept as they came."""


@dataclass(frozen=True)  # no slots: `decode` fills the instance's dictionary in one go
class Job(Generic[R_co]):
    """One stored call. Frozen; hashed by id; `R_co` is what the function returns."""

    id: str
    """Unique while the job is stored; a UUIDv7 when made by a client."""
    fn: str
    """The function as ``module:name``."""
    args: tuple[JSON, ...] = ()
    """Positional arguments as JSON values."""
    kwargs: Mapping[str, JSON] = NOTHING
    queue: str = "default"
    group: str | None = None
    enqueued_at: float = 0.0
    """Epoch seconds by the client's clock."""
    attempt: int = 0
    """Executions that ended in an error so far."""
    crashes: int = 0
    """Executions that were alone in their process when it died."""
    suspicions: int = 0
    """Times it was, perhaps among others, in a process that died; above 0 it runs alone."""
    retry: Mapping[str, JSON] | None = None
    """Fields of its `Retry` that differ from the default."""
    timeout: float | None = None
    """Seconds a single run may take, or None."""
    failure: Failure | None = None
    meta: Mapping[str, JSON] = NOTHING
    """Free for middleware and integrations: trace context, tenant, …"""
    deferred_since: float | None = None
    """Epoch seconds since when it waits for a worker that knows its function, or that is empty."""
    origin: str = ""
    """Why it had to wait before it was due: ``scheduled`` or ``cron``; empty if it had not."""
    traits: Mapping[str, JSON] = NOTHING
    """What Goose's own features keep about it, by the feature: ``result``, ``flow``, …"""
    extra: Mapping[str, JSON] = NOTHING
    """Keys of the body this version does not know, kept as they came."""

    def __hash__(self) -> int:
        return hash(self.id)

    def evolve(self, **changes: Any) -> Job[R_co]:
        """Return a copy with *changes*."""
        changed = dataclasses.replace(self, **changes)
        if "_home" in self.__dict__:
            changed.__dict__["_home"] = self._home
        return changed

    # --- after the enqueue -----------------------------------------------------------------

    _home: ClassVar[Home]
    """The client that made it; of others the one behind ``goose.enqueue``."""

    def __getstate__(self) -> dict[str, Any]:
        # A client has connections, and stays where it is.
        return {name: value for name, value in self.__dict__.items() if name != "_home"}

    @property
    def output(self) -> R_co:
        """What stands for its result as an argument of another job, which then depends on this one.

        To type checkers it is the result; at run time it is only a note of where that will be.
        """
        return cast("R_co", Output(self.id))

    def result(self, timeout: float | timedelta | None = None) -> R_co:
        """Wait until the job has ended, and return what it returned; None if it was skipped.

        The job must have been enqueued with ``result=``. Where a client other than the one behind
        ``goose.enqueue`` made it, and it was evolved or pickled since, ask that client.

        Args:
            timeout: Seconds (or `timedelta`) to wait at most; None waits for as long as it takes,
                0 not at all.

        Raises:
            JobFailed: It is dead, or was cancelled or deleted.
            ResultTimeout: It has not ended in time.
            ResultUnavailable: It keeps no result, that is gone by now or could not be kept.
            BrokerError: The store failed.
        """
        return self._home.result(self, timeout)

    async def aresult(
        self,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - as its sync twin
    ) -> R_co:
        """Do what `result` does, for asyncio code."""
        return await self._home.aresult(self, timeout)

    def status(self) -> Status:
        """Return where the job is in its life, or how it ended, as far as anybody knows.

        Raises:
            BrokerError: The broker or the store failed.
        """
        return self._home.status(self)

    def progress(self) -> Progress | None:
        """Return what the running job said last by ``goose.current().progress(…)``.

        Raises:
            BrokerError: The store failed.
        """
        return self._home.progress(self)


class Envelope(NamedTuple):
    """A job as a broker sees it. A tuple, because nothing else frozen is made as quickly.

    At most one of `delay` and `due_at` is given; neither means ready now.
    """

    id: str
    queue: str
    body: bytes
    delay: float | None = None
    """Seconds from now by the broker's clock, at least 0."""
    due_at: float | None = None
    """Epoch seconds; an instant that has passed means now."""
    group: str | None = None

    def evolve(self, **changes: Any) -> Envelope:
        """Return a copy with *changes*."""
        return self._replace(**changes)


def job_of(fields: dict[str, Any]) -> Job[Any]:
    """Return the job of these fields, which must be right; the dictionary becomes the job's own.

    The generated ``__init__`` of a frozen class would cost as much as all the rest of a job.
    """
    # What is not in *fields* is read from the class, where a dataclass keeps its defaults.
    job: Job[Any] = object.__new__(Job)
    object.__setattr__(job, "__dict__", fields)
    return job
