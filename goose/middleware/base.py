"""The execution a running job sees, and the chain of context managers around it.

A middleware is a callable that takes the `Execution` and returns a context manager, sync
or async. It is entered before the function is called and left after it, outermost first,
so that any context manager people already have is a middleware:
``lambda execution: app.app_context()``.

Before its ``yield`` a middleware may change ``execution.args`` and ``kwargs``; after it,
it sees and may replace ``execution.result``. The function's exception passes through it;
one it swallows makes the job done. `Skip`, `Postpone` or `Bury` raised before ``yield``
end the job without calling the function. Any other error a middleware raises counts as
the job's own. An async middleware works only around async functions.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
)
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from goose.errors import ConfigError
from goose.jobs import Job


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


def compose(middleware: Sequence[Middleware], fn: Callable[..., Any]) -> Callable[[Execution], Any]:
    """Return what runs *fn* for an execution inside *middleware*, outermost first.

    With no middleware that is one plain call. Built once per function, not per job.
    """

    def bare(execution: Execution) -> Any:
        token = _current.set(execution)
        try:
            execution.result = fn(*execution.args, **execution.kwargs)
        finally:
            _current.reset(token)

    def wrapped(execution: Execution) -> Any:
        token = _current.set(execution)
        try:
            with ExitStack() as stack:
                for enter in middleware:
                    manager = enter(execution)
                    if not isinstance(manager, AbstractContextManager):
                        raise ConfigError(
                            f"middleware {enter!r} is async, but {fn!r} is not: "
                            "make the function async or the middleware sync"
                        )
                    stack.enter_context(manager)
                execution.result = fn(*execution.args, **execution.kwargs)
        finally:
            _current.reset(token)

    return wrapped if middleware else bare


def compose_async(
    middleware: Sequence[Middleware], fn: Callable[..., Awaitable[Any]]
) -> Callable[[Execution], Awaitable[None]]:
    """Return what `compose` does, for an async *fn*; sync middleware are entered too."""

    async def wrapped(execution: Execution) -> None:
        token = _current.set(execution)
        try:
            async with AsyncExitStack() as stack:
                for enter in middleware:
                    manager = enter(execution)
                    if isinstance(manager, AbstractAsyncContextManager):
                        await stack.enter_async_context(manager)
                    else:
                        stack.enter_context(manager)
                execution.result = await fn(*execution.args, **execution.kwargs)
        finally:
            _current.reset(token)

    return wrapped
