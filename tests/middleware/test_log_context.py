"""Log context: records say which job they belong to."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from goose.jobs import Job
from goose.middleware.base import Execution, Middleware, compose
from goose.middleware.log_context import ContextFilter, LogContext, bind, fields

logger = logging.getLogger("app.of.the.user")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a handler with the filter writes."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(ContextFilter())
    handler.setFormatter(
        logging.Formatter("%(job_id)s|%(function)s|%(queue)s|%(attempt)s|%(message)s")
    )
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield text
    logger.removeHandler(handler)


def run(fn: object, *middleware: Middleware) -> None:
    job: Job[None] = Job("j1", "app:fn", queue="mail", attempt=2, meta={"tenant": "acme", "key": 1})
    compose(middleware, fn)(Execution(job, (), {}, {}))  # type: ignore[arg-type]


def test_a_record_inside_a_job_has_its_fields(log: io.StringIO) -> None:
    """Id, function, queue and attempt are on it without any middleware."""
    run(lambda: logger.info("hello"))

    assert "j1|app:fn|mail|2|hello\n" == log.getvalue()


def test_a_record_outside_a_job_has_placeholders(log: io.StringIO) -> None:
    """A format that names the fields works outside jobs as well."""
    logger.info("hello")

    assert "-|-|-|0|hello\n" == log.getvalue()


def test_extra_of_the_call_wins(log: io.StringIO) -> None:
    """What the logging call says about its record is left as it is."""
    run(lambda: logger.info("hello", extra={"job_id": "other"}))

    assert "other|app:fn|mail|2|hello\n" == log.getvalue()


def test_bound_fields_last_as_long_as_the_with() -> None:
    """Nested binds add up and end with their block."""
    seen = []

    def fn() -> None:
        with bind(tenant="acme"):
            with bind(step=1):
                seen.append(fields())
            seen.append(fields())
        seen.append(fields())

    run(fn)
    job = {"job_id": "j1", "function": "app:fn", "queue": "mail", "attempt": 2}
    assert [{**job, "tenant": "acme", "step": 1}, {**job, "tenant": "acme"}, job] == seen
    assert {} == fields()


def test_log_context_binds_the_named_meta_only() -> None:
    """Entries of meta go into the log by name; others and missing ones do not."""
    seen = []
    run(lambda: seen.append(fields()), LogContext("tenant", "missing"))

    assert "acme" == seen[0]["tenant"]
    assert {"job_id", "function", "queue", "attempt", "tenant"} == seen[0].keys()
