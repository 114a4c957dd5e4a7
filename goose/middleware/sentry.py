"""Reports to Sentry what jobs fail with, and how long they take.

``report`` is the middleware: an isolation scope and a transaction for each execution, tagged
with the job. ``trace``, given as ``before_enqueue``, has the transaction belong to the trace of
the request that enqueued. Your program calls ``sentry_sdk.init`` itself.

`Skip`, `Postpone` and `Bury` are not failures. Arguments are not sent.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from goose.errors import Control, JobTimeout, MissingDriver
from goose.jobs import Job
from goose.middleware.base import Execution
from goose.retries import Retry

try:
    import sentry_sdk
except ImportError as error:
    raise MissingDriver(
        'reports to Sentry need its SDK; pip install "goose-jobs[sentry]"'
    ) from error

KEY = "sentry"
"""Where the trace is in a job's ``meta``."""


def trace(job: Job[Any]) -> Job[Any]:
    """Return *job* with the current trace in its ``meta``."""
    headers = {
        "sentry-trace": sentry_sdk.get_traceparent(),
        "baggage": sentry_sdk.get_baggage(),
    }
    found = {name: value for name, value in headers.items() if value}
    return job.evolve(meta={**job.meta, KEY: found}) if found else job


class Report:
    """Middleware that reports failures and durations. Thread-safe.

    Args:
        retried: Whether failures that a retry follows are reported, too; else only the last.
    """

    def __init__(self, *, retried: bool = True) -> None:
        self._retried = retried

    @contextmanager
    def __call__(self, execution: Execution) -> Generator[None]:
        """Report what goes wrong inside."""
        job = execution.job
        with sentry_sdk.isolation_scope() as scope:
            scope.set_tag("goose.queue", job.queue)
            scope.set_tag("goose.function", job.fn)
            scope.set_context("goose", {"job_id": job.id, "attempt": job.attempt})
            noted = job.meta.get(KEY)
            transaction = sentry_sdk.continue_trace(
                dict(noted) if isinstance(noted, dict) else {}, op="queue.process", name=job.fn
            )
            with sentry_sdk.start_transaction(transaction) as span:
                span.set_data("messaging.message.id", job.id)
                span.set_data("messaging.destination.name", job.queue)
                span.set_data("messaging.message.retry.count", job.attempt)
                try:
                    yield
                except BaseException as error:
                    if self._reported(job, error):
                        sentry_sdk.capture_exception(error)
                    if not isinstance(error, Control) or isinstance(error, JobTimeout):
                        span.set_status("internal_error")
                    raise

    def _reported(self, job: Job[Any], error: BaseException) -> bool:
        if isinstance(error, Control) and not isinstance(error, JobTimeout):
            return False
        try:
            retry = Retry.from_wire(job.retry)
        except ValueError:  # the worker says so, and uses the default as well
            retry = Retry()
        verdict = retry.ending(error)
        if verdict == "succeed":
            return False
        return self._retried or verdict == "give_up" or retry.exhausted(job.attempt + 1)


report = Report()
"""A `Report` with the default options."""
