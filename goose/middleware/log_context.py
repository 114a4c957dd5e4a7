"""Puts the running job on every log record, whichever library wrote it.

`ContextFilter` is a plain `logging.Filter`. Attached to a handler, it gives each record
that passes the attributes ``job_id``, ``function``, ``queue`` and ``attempt`` of the job
the logging code runs in, and whatever `bind` added inside it. The command line attaches
it to its own handlers; in a program of your own attach it to yours::

    handler.addFilter(ContextFilter())
    handler.setFormatter(logging.Formatter("%(levelname)s %(job_id)s %(message)s"))

Outside a job the four attributes are ``-`` (`attempt` is 0), so that a format which names
them never fails. What the logging call gave in ``extra`` is left as it is.

The middleware `LogContext` binds entries of the job's ``meta`` by name. Arguments are
never logged from here: they may be secret.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from goose.middleware.base import Execution, current

_NOTHING: Mapping[str, Any] = {}
_OUTSIDE: Mapping[str, Any] = {"job_id": "-", "function": "-", "queue": "-", "attempt": 0}

_bound: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
    "goose.log_context", default=_NOTHING
)


def fields() -> dict[str, Any]:
    """Return the fields of the running job and what is bound; outside a job only the latter.

    For loggers other than the standard library's, and for formatters that write JSON.
    """
    try:
        execution = current()
    except LookupError:
        return dict(_bound.get())
    job = execution.job
    return {
        "job_id": job.id,
        "function": job.fn,
        "queue": job.queue,
        "attempt": job.attempt,
        **_bound.get(),
    }


def bind(**more: Any) -> AbstractContextManager[None]:
    """Add *more* to every record written inside ``with``, in this thread or asyncio task.

    It is a middleware as soon as it is given the execution::

        lambda execution: bind(tenant=execution.job.meta.get("tenant"))
    """
    return _Binding(more)


class _Binding(AbstractContextManager[None]):
    """Written out, since a generator would cost twice as much for each job."""

    def __init__(self, more: Mapping[str, Any]) -> None:
        self._more = more

    def __enter__(self) -> None:
        self._token = _bound.set({**_bound.get(), **self._more})

    def __exit__(self, *_: object) -> None:
        _bound.reset(self._token)


_UNBOUND: AbstractContextManager[None] = nullcontext()
"""For the many jobs that bring nothing along; it has no state, so all can share it."""


class ContextFilter(logging.Filter):
    """Adds the running job's fields to each record; lets every record pass. Thread-safe."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields that *record* does not have yet."""
        for name, value in {**_OUTSIDE, **fields()}.items():
            record.__dict__.setdefault(name, value)
        return True


class LogContext:
    """Middleware that binds entries of the job's ``meta`` to the log records of its run.

    Args:
        keys: Names of the entries; one that a job does not have is left out. Given by
            name because ``meta`` may hold what does not belong in a log.
    """

    def __init__(self, *keys: str) -> None:
        self._keys = keys

    def __call__(self, execution: Execution) -> AbstractContextManager[None]:
        """Bind what the job's ``meta`` has of the keys."""
        meta = execution.job.meta
        if not meta:
            return _UNBOUND
        return _Binding({key: meta[key] for key in self._keys if key in meta})
