"""Lets context variables travel from where a job is enqueued to where it runs.

A request's id, a tenant, a locale: what a program keeps in `contextvars` is gone when the
request is, and a job runs later and elsewhere. A `Carry` notes the values of some variables in
the job's ``meta`` when it is enqueued, and sets them again around its execution::

    carry = Carry(request_id=request_id, tenant=tenant)      # in app/context.py

    before_enqueue = ["app.context:carry.note"]              # in goose.toml
    middleware = ["app.context:carry"]

A job that a job enqueues carries them on. They are on the log records of the execution as well,
those about its failure included, under the names given here.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from goose.jobs import Job
from goose.middleware.base import Execution
from goose.middleware.log_context import bind

KEY = "context"
"""Where they are in a job's ``meta``."""


class Carry:
    """Middleware, and what notes its values at the other end. Thread-safe.

    Args:
        log: Whether the values are put on log records.
        **variables: The variables by the names they travel under. Values must be JSON; one
            that is not set is left out, and then the variable is not touched.
    """

    def __init__(self, *, log: bool = True, **variables: ContextVar[Any]) -> None:
        self._log = log
        self._variables = variables

    def note(self, job: Job[Any]) -> Job[Any]:
        """Return *job* with the values of this moment; give it as ``before_enqueue``."""
        unset = object()
        found = {name: variable.get(unset) for name, variable in self._variables.items()}
        values = {name: value for name, value in found.items() if value is not unset}
        if not values:
            return job
        return job.evolve(meta={**job.meta, KEY: values})

    @contextmanager
    def __call__(self, execution: Execution) -> Generator[None]:
        """Set the variables for what runs inside; the execution's context ends with it."""
        noted = execution.job.meta.get(KEY)
        values = noted if isinstance(noted, dict) else {}
        carried = {name: values[name] for name in self._variables if name in values}
        tokens = [
            (self._variables[name], self._variables[name].set(v)) for name, v in carried.items()
        ]
        try:
            with bind(**carried if self._log else {}):
                yield
        finally:
            for variable, token in reversed(tokens):
                variable.reset(token)
