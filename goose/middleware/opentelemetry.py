"""Spans for OpenTelemetry, in one trace from the request that enqueues to the job that runs.

``create`` spans are made where jobs are enqueued, and their W3C trace context travels in the
job's ``meta``; ``process`` spans, their children, are made around executions. What a job
enqueues is a child of its execution. Names and attributes follow the semantic conventions for
messaging::

    before_enqueue = ["goose.middleware.opentelemetry:create"]      # in goose.toml
    middleware = ["goose.middleware.opentelemetry:process"]

Tracer provider and propagator are those your program sets up for OpenTelemetry as a whole.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from goose.errors import Control, JobTimeout, MissingDriver
from goose.jobs import Job
from goose.middleware.base import Execution

try:
    from opentelemetry import propagate, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ImportError as error:
    raise MissingDriver(
        'spans need OpenTelemetry; pip install "goose-jobs[opentelemetry]"'
    ) from error

SYSTEM = "goose"


def create(job: Job[Any]) -> Job[Any]:
    """Return *job* with a trace context of its own in ``meta``; give it as ``before_enqueue``."""
    tracer = trace.get_tracer("goose")
    attributes = _attributes(job, "create")
    name = f"create {job.queue}"
    with tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes):
        carrier: dict[str, Any] = {}
        propagate.inject(carrier)
    return job.evolve(meta={**job.meta, **carrier}) if carrier else job


@contextmanager
def process(execution: Execution) -> Generator[None]:
    """Run what is inside in a span of the trace that the job came with."""
    job = execution.job
    texts = {key: value for key, value in job.meta.items() if isinstance(value, str)}
    span = trace.get_tracer("goose").start_span(
        f"process {job.queue}",
        context=propagate.extract(texts),
        kind=SpanKind.CONSUMER,
        attributes=_attributes(job, "process"),
    )
    with trace.use_span(
        span, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        try:
            yield
        except BaseException as error:
            if isinstance(error, Control) and not isinstance(error, JobTimeout):
                # Skip and its like steer a job; nothing went wrong.
                span.set_attribute("goose.outcome", type(error).__name__.lower())
            else:
                span.set_attribute("error.type", type(error).__qualname__)
                span.record_exception(error)
                span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
            raise


def _attributes(job: Job[Any], operation: str) -> dict[str, str | int]:
    return {
        "messaging.system": SYSTEM,
        "messaging.destination.name": job.queue,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.message.id": job.id,
        "goose.function": job.fn,
        "goose.attempt": job.attempt,
    }
