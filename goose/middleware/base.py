"""The execution a running job sees, and the chain of context managers around it.

A middleware is a callable that takes the `Execution` and returns a context manager, sync
or async. It is entered before the function is called and left after it, outermost first,
so that any context manager people already have is a middleware:
``lambda execution: app.app_context()``.

The rules are those of nested ``with`` statements:

* Before its ``yield`` a middleware may replace ``execution.args`` and ``kwargs``; after it,
  it sees and may replace ``execution.result``.
* The function's exception passes through it; one it swallows makes the job done, with the
  result as it stands. That goes for whatever is inside it, other middleware included.
* `Skip`, `Postpone` or `Bury` raised before ``yield`` end the job without calling the
  function. Any other error a middleware raises counts as the job's own, so the job is
  retried, even if the function had returned: then a note on the error says so.
* Middleware entered before the one that raised are left again, in every case.
* An async middleware works only around async functions.

Each sync execution runs in a context of its own (`contextvars`): what a function or a
middleware sets and forgets to reset is gone before the thread's next job. An async
execution has that from its asyncio task; the worker gives each one its own. When an
execution fails, its context as it was at that moment is kept (`Execution.failed_in`): the log
records about the failure are written in it, and callbacks of its policy run in it.
"""

from __future__ import annotations

import contextvars
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from goose.errors import ConfigError
from goose.jobs import JSON, Job

if TYPE_CHECKING:
    from concurrent.futures import Future

    from goose.batching import Batch


class Inside(Protocol):
    """What features do for a running function; a worker's. Any thread may call it; nothing blocks."""

    def progress(self, job: Job[Any], done: float, total: float | None, note: str) -> None:
        """Say how far *job* is."""
        ...

    def checkpoint(self, job: Job[Any], cursor: JSON) -> Future[None]:
        """Keep *cursor* for the next run of *job*; the future ends when it is stored."""
        ...

    def cursor(self, job: Job[Any]) -> Future[JSON]:
        """Return what the last run of *job* kept, once the future ends."""
        ...

    def batch(self, job: Job[Any]) -> Batch:
        """Return the batch of *job*, or raise `LookupError`."""
        ...


@dataclass(slots=True, eq=False)
class Execution:
    """One run of one delivery, as middleware and the running function see it."""

    job: Job[Any]
    args: tuple[Any, ...]
    """Positional arguments, decoded by the function's annotations."""
    kwargs: dict[str, Any]
    resources: Mapping[type, Any]
    """What the worker opened for its jobs, by type."""
    result: Any = None
    """What the function returned, once it has."""
    started_mono: float = field(default_factory=time.monotonic)
    stop_requested: bool = False
    """Set by the worker; read it as `should_stop`."""
    returned: bool = False
    """Whether the function has returned; middleware may still raise."""
    failed_in: contextvars.Context | None = None
    """The context in which it failed; what is said about that is said in there."""
    inside: Inside | None = None
    """What features do for it; None where it runs without a worker."""
    kept: JSON = None
    """The last cursor of this run."""
    knows_cursor: bool = False
    """Whether `kept` is what a next run would find."""
    own_connection: Any = None
    """Set by the worker while a transactional function runs; read it as `connection`."""

    @property
    def connection(self) -> Any:
        """The connection whose transaction ends with this job: of psycopg, or of `sqlite3`.

        What is written by it is committed in one step with the job's end, and rolled back if
        the function raises. It cannot be committed otherwise.

        Raises:
            LookupError: The function is not ``@goose.job(transactional=True)``, or has ended.
        """
        if self.own_connection is None:
            raise LookupError(
                f"{self.job.fn} has no connection of its own: declare it with "
                "@goose.job(transactional=True), and use the connection while it runs"
            )
        return self.own_connection

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far this job is, for ``job.progress()``, the command line and consoles.

        Cheap, and never waits for anything: call it as often as you like. What is said last is
        written a few times a second at most, and kept for a day.

        Args:
            done: How much is done, at least 0, in any unit.
            total: How much that will be in the end, above 0; None if it is not known.
            note: What it is doing, in a few words.

        Raises:
            ValueError: *done* or *total* is out of its range.
        """
        if not 0 <= done < math.inf or not (total is None or 0 < total < math.inf):
            raise ValueError(f"progress({done!r}, {total!r}): give numbers, 0 or more out of more")
        if self.inside is not None:
            self.inside.progress(self.job, done, total, note)

    @property
    def cursor(self) -> Any:
        """What the last `checkpoint` of this job kept, in this run or one before; None if there is none.

        The first look of a run asks the store, and waits for it; see `acursor` for async functions.

        Raises:
            BrokerError: The store failed.
            Unsupported: There is no store.
        """
        if not self.knows_cursor and self.inside is not None:
            self.kept = self.inside.cursor(self.job).result()
            self.knows_cursor = True
        return self.kept

    def checkpoint(self, cursor: JSON) -> None:
        """Keep *cursor*, from which the next run of this job can go on, should this one be interrupted.

        It is stored when this returns, in a few milliseconds; see `acheckpoint` for async functions.

        Args:
            cursor: Any JSON up to 256 KiB, such as the id of the last row that is done.

        Raises:
            ValueError: *cursor* is not JSON, or too large.
            BrokerError: The store failed; the last cursor is perhaps still the one before.
            Unsupported: There is no store.
        """
        if self.inside is not None:
            self.inside.checkpoint(self.job, cursor).result()
        self.kept, self.knows_cursor = cursor, True

    async def acursor(self) -> Any:
        """Return `cursor` without blocking the event loop."""
        if not self.knows_cursor and self.inside is not None:
            self.kept = await _awaited(self.inside.cursor(self.job))
            self.knows_cursor = True
        return self.kept

    async def acheckpoint(self, cursor: JSON) -> None:
        """Keep *cursor* as `checkpoint`, without blocking the event loop."""
        if self.inside is not None:
            await _awaited(self.inside.checkpoint(self.job, cursor))
        self.kept, self.knows_cursor = cursor, True

    @property
    def batch(self) -> Batch:
        """The batch that this job is a member or a callback of; members can be added to it.

        Raises:
            LookupError: It is of none.
        """
        if self.inside is None:
            raise LookupError(f"job {self.job.id} runs without a worker, so it is of no batch")
        return self.inside.batch(self.job)

    @property
    def attempt(self) -> int:
        """Executions of this job that ended in an error before this one."""
        return self.job.attempt

    @property
    def deadline(self) -> datetime | None:
        """When this run's time is over, aware, in UTC; None without a timeout."""
        remaining = self.remaining
        return None if remaining is None else datetime.fromtimestamp(time.time() + remaining, UTC)

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, below 0 after it; None without a timeout."""
        if self.job.timeout is None:
            return None
        return self.started_mono + self.job.timeout - time.monotonic()

    @property
    def should_stop(self) -> bool:
        """Whether the function should come to an end soon.

        True once the worker shuts down, the session was lost (another worker may run this
        job now), or the time is over.
        """
        remaining = self.remaining
        return self.stop_requested or (remaining is not None and remaining <= 0)


async def _awaited(future: Future[Any]) -> Any:
    """Return what *future* is of, once it is there."""
    if future.done():  # it needs no event loop then, so a simulator can drive the function itself
        return future.result()
    from asyncio import wrap_future  # not every program's

    return await wrap_future(future)


Middleware: TypeAlias = Callable[
    [Execution], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]
]

_current: contextvars.ContextVar[Execution] = contextvars.ContextVar("goose.current")


def current() -> Execution:
    """Return the execution this code runs in.

    Raises:
        LookupError: It does not run inside a job.
    """
    try:
        return _current.get()
    except LookupError:
        raise LookupError("goose.current() works only inside a running job") from None


Run: TypeAlias = Callable[[Execution], None]
AsyncRun: TypeAlias = Callable[[Execution], Awaitable[None]]


def compose(middleware: Sequence[Middleware], fn: Callable[..., Any]) -> Run:
    """Return what runs *fn* inside *middleware*, outermost first; built once per function."""

    def call(execution: Execution) -> None:
        _current.set(execution)
        try:
            execution.result = fn(*execution.args, **execution.kwargs)
        except BaseException:
            execution.failed_in = contextvars.copy_context()
            raise
        if execution.result is not None:
            _refuse_awaitable(execution)
        execution.returned = True

    if not middleware:  # the usual case is spared two calls
        return lambda execution: contextvars.copy_context().run(call, execution)
    run: Run = call
    for enter in reversed(middleware):
        run = _around(enter, run)

    def begin(execution: Execution) -> None:
        _current.set(execution)
        try:
            run(execution)
        except Exception as error:
            _note(execution, error)
            raise

    # Costs hardly more than a reset, and nothing can leak into the thread's next job.
    return lambda execution: contextvars.copy_context().run(begin, execution)


def _around(enter: Middleware, inner: Run) -> Run:
    def around(execution: Execution) -> None:
        try:
            with _sync(enter(execution), enter):
                inner(execution)
        except BaseException:
            # Not inner's, whose context said more, but what this one raised itself.
            if execution.failed_in is None:
                execution.failed_in = contextvars.copy_context()
            raise

    return around


def compose_async(middleware: Sequence[Middleware], fn: Callable[..., Awaitable[Any]]) -> AsyncRun:
    """Return what `compose` does, for an async *fn*; sync middleware are entered too."""

    async def call(execution: Execution) -> None:
        try:
            execution.result = await fn(*execution.args, **execution.kwargs)
        except BaseException:
            execution.failed_in = contextvars.copy_context()
            raise
        execution.returned = True

    run: AsyncRun = call
    for enter in reversed(middleware):
        run = _around_async(enter, run)

    async def begin(execution: Execution) -> None:
        token = _current.set(execution)
        try:
            await run(execution)
        except Exception as error:
            _note(execution, error)
            raise
        finally:
            _current.reset(token)

    return begin


def _around_async(enter: Middleware, inner: AsyncRun) -> AsyncRun:
    async def around(execution: Execution) -> None:
        try:
            manager = enter(execution)
            if isinstance(manager, AbstractAsyncContextManager):
                async with manager:
                    await inner(execution)
            else:
                with _sync(manager, enter):
                    await inner(execution)
        except BaseException:
            if execution.failed_in is None:
                execution.failed_in = contextvars.copy_context()
            raise

    return around


def _sync(manager: object, enter: Middleware) -> AbstractContextManager[Any]:
    """Return *manager* if ``with`` can enter it; else say what is wrong with *enter*."""
    if isinstance(manager, AbstractContextManager):
        return manager
    if isinstance(manager, AbstractAsyncContextManager):
        raise ConfigError(
            f"middleware {enter!r} is async, but the job's function is not: "
            "make the function async or the middleware sync"
        )
    raise ConfigError(
        f"middleware {enter!r} returned a {type(manager).__name__}, not a context manager: "
        "decorate it with @contextlib.contextmanager, or return one"
    )


def _refuse_awaitable(execution: Execution) -> None:
    """Raise if a sync function returned what has still to be awaited: it has done nothing yet.

    Raises:
        TypeError: It did; the result is dropped.
    """
    result = execution.result
    if not hasattr(type(result), "__await__"):
        return
    execution.result = None
    if isinstance(result, Coroutine):
        result.close()  # so that Python does not complain as well that nobody awaited it
    raise TypeError(
        f"{execution.job.fn} is not async, but returned a {type(result).__name__}, which nobody "
        "awaits: declare it with `async def` and await inside it"
    )


def _note(execution: Execution, error: Exception) -> None:
    """Say on an error raised after the function was done that a retry runs it again."""
    if execution.returned:
        error.add_note(
            "Raised by middleware after the function had returned; a retry runs it again."
        )
