"""Says in a test what must, or must not, have been enqueued."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from goose import brokers, clients
from goose.brokers.base import Broker, Inspector, State
from goose.calls import Call, encode_arguments, name_of
from goose.errors import Undecodable, Unsupported
from goose.jobs import Job, decode

_PENDING = (State.READY, State.SCHEDULED, State.RUNNING)


class Asserter:
    """Looks for jobs that are stored and not dead, on one broker.

    Args:
        broker: None for the configured one, at the time of asking.
    """

    def __init__(self, broker: Broker | None = None) -> None:
        self._broker = broker

    def assert_enqueued(
        self, fn: Callable[..., Any] | Call[Any], /, *args: Any, **kwargs: Any
    ) -> Job[Any]:
        """Return the first stored call of *fn* with these arguments.

        Arguments are compared as they are stored, each by its parameter, so that ``f(1)`` and
        ``f(a=1)`` are the same. Without any, every call of *fn* will do.

        Raises:
            AssertionError: There is none; the message lists what there is.
        """
        fn, wanted = _wanted(fn, args, kwargs)
        jobs = list(self._jobs())
        for job in jobs:
            if job.fn == name_of(fn) and wanted in (None, _bound(fn, job.args, job.kwargs)):
                return job
        stored = "\n".join(f"  {job.fn} {list(job.args)} {dict(job.kwargs)}" for job in jobs)
        raise AssertionError(
            f"{_shown(fn, wanted)} was enqueued; there is\n{stored or '  nothing'}"
        )

    def refute_enqueued(
        self, fn: Callable[..., Any] | Call[Any], /, *args: Any, **kwargs: Any
    ) -> None:
        """Do nothing, unless `assert_enqueued` would find a job.

        Raises:
            AssertionError: There is one.
        """
        try:
            job = self.assert_enqueued(fn, *args, **kwargs)
        except AssertionError:
            return
        raise AssertionError(
            f"{job.fn} {list(job.args)} {dict(job.kwargs)} was enqueued, as job {job.id}"
        )

    def _jobs(self) -> Iterator[Job[Any]]:
        broker = self._broker or clients.default.broker
        if not isinstance(broker, Inspector):
            raise Unsupported(f"{brokers.name_of(broker)} cannot list its jobs")
        for state in _PENDING:
            after: str | None = None
            while True:
                page = broker.page(state, limit=200, after=after)
                for stored in page.items:
                    try:
                        yield decode(stored.envelope)
                    except Undecodable:
                        continue  # not a call of any function here
                after = page.next
                if after is None:
                    break


def _wanted(
    fn: Callable[..., Any] | Call[Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any] | None]:
    if isinstance(fn, Call):
        return fn.fn, _bound(fn.fn, *encode_arguments(fn.fn, fn.args, fn.kwargs))
    if not args and not kwargs:
        return fn, None
    return fn, _bound(fn, *encode_arguments(fn, args, kwargs))


def _bound(fn: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any] | None:
    try:
        bound = inspect.signature(fn).bind(*args, **kwargs)
    except TypeError:
        return {}  # stored for another version of the function
    bound.apply_defaults()
    return dict(bound.arguments)


def _shown(fn: Callable[..., Any], wanted: dict[str, Any] | None) -> str:
    if wanted is None:
        return f"no call of {name_of(fn)}"
    shown = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
    return f"no {name_of(fn)}({shown})"


_default = Asserter()
assert_enqueued = _default.assert_enqueued
refute_enqueued = _default.refute_enqueued
