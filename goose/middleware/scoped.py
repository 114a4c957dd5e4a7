"""Middleware for some jobs only: by queue, by function, or by whatever the job says.

::

    middleware = [only(audit, queues=["billing"]), only(app_context, functions=[send_email])]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any

from goose.calls import name_of
from goose.middleware.base import Execution, Middleware

_NOTHING: AbstractContextManager[Any] = nullcontext()


class Only:
    """Middleware around the jobs that are meant. Made by `only`."""

    def __init__(
        self,
        middleware: Middleware,
        queues: frozenset[str] | None,
        functions: frozenset[str] | None,
        when: Callable[[Execution], bool] | None,
    ) -> None:
        self._middleware = middleware
        self._queues = queues
        self._functions = functions
        self._when = when

    def __call__(
        self, execution: Execution
    ) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
        """Return the middleware's own context manager, or one that does nothing."""
        job = execution.job
        if (
            (self._queues is None or job.queue in self._queues)
            and (self._functions is None or job.fn in self._functions)
            and (self._when is None or self._when(execution))
        ):
            return self._middleware(execution)
        return _NOTHING


def only(
    middleware: Middleware,
    *,
    queues: Iterable[str] | None = None,
    functions: Iterable[Callable[..., Any] | str] | None = None,
    when: Callable[[Execution], bool] | None = None,
) -> Middleware:
    """Return *middleware* for the jobs that everything given here is true of.

    An async middleware may stand around sync functions too, if these are left out.

    Args:
        middleware: What to put around them.
        queues: Names of the queues they are in.
        functions: Functions, or their names as ``module:name``.
        when: Says whether a job is meant; its arguments are decoded already.
    """
    named = None
    if functions is not None:
        named = frozenset(fn if isinstance(fn, str) else name_of(fn) for fn in functions)
    return Only(middleware, None if queues is None else frozenset(queues), named, when)
