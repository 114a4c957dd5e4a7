"""One trial of observe.py, in a process of its own: ``python observe_trial.py VARIANT JOBS``.

Prints microseconds of CPU per job, all threads together, of an embedded worker on the memory
broker that runs jobs which do nothing.
"""

from __future__ import annotations

import contextvars
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import work

import goose
from goose.brokers.memory import MemoryBroker

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id")


@contextmanager
def empty(_execution: goose.Execution) -> Iterator[None]:
    """The least a middleware can do."""
    yield


def _carry() -> Any:
    from goose.middleware.carry import Carry

    return Carry(request_id=request_id)


def _timing_log() -> Any:
    from goose.middleware.timing_log import TimingLog

    logging.getLogger("goose.timing").addHandler(logging.NullHandler())
    logging.getLogger("goose.timing").propagate = False
    logging.getLogger("goose.timing").setLevel(logging.INFO)
    return TimingLog()


def _opentelemetry() -> Any:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    trace.set_tracer_provider(TracerProvider())
    from goose.middleware.opentelemetry import process

    return process


def _sentry() -> Any:
    import sentry_sdk

    sentry_sdk.init(dsn="https://key@example.invalid/1", transport=lambda _event: None)
    from goose.middleware.sentry import report

    return report


def _django() -> Any:
    from django.conf import settings

    settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "x"}})
    from goose.middleware.django_connections import django_connections

    return django_connections


def _sqlalchemy() -> Any:
    from sqlalchemy.orm import scoped_session, sessionmaker

    from goose.middleware.sqlalchemy_sessions import SessionPerJob

    return SessionPerJob(scoped_session(sessionmaker()))


def _imported(module: str, name: str) -> Callable[[], Any]:
    return lambda: getattr(__import__(module, fromlist=[name]), name)


def _scoped() -> Any:
    from goose.middleware.scoped import only

    return only(empty, queues=["another"])


def _pipeline() -> Any:
    from goose.middleware.pipeline import Pipeline

    return Pipeline(goose.Client("memory://other"))


def _log_context() -> Any:
    from goose.middleware.log_context import LogContext

    return LogContext("request_id")


MIDDLEWARE: dict[str, Callable[[], Any]] = {
    "an empty one": lambda: empty,
    "log_context": _log_context,
    "timing_log": _timing_log,
    "carry": _carry,
    "scoped, not meant": _scoped,
    "opentelemetry": _opentelemetry,
    "sentry": _sentry,
    "django_connections": _django,
    "sqlalchemy_sessions": _sqlalchemy,
    "profiling, not asked": _imported("goose.middleware.profiling", "profiling"),
    "pipeline, no step": _pipeline,
}


def _statsd(url: str) -> Any:
    from goose.metrics.statsd import StatsD

    return StatsD(url)


def _live() -> Any:

    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    return _statsd(f"statsd://127.0.0.1:{server.getsockname()[1]}"), server


def _dead() -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return _statsd(f"statsd://127.0.0.1:{port}")


def _hanging() -> Any:
    def hang(*_: Any, **__: Any) -> Any:
        time.sleep(3600)

    socket.getaddrinfo = hang
    return _statsd("statsd://statsd.example:8125")


def _handover() -> Any:
    from goose.metrics.handover import Handover

    return Handover()


def _prometheus() -> Any:
    from prometheus_client import CollectorRegistry

    from goose.metrics.prometheus import Prometheus

    return Prometheus(registry=CollectorRegistry())


def _otel_metrics() -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from goose.metrics.opentelemetry import OpenTelemetry

    provider = MeterProvider([InMemoryMetricReader()])
    return OpenTelemetry(meter=provider.get_meter("goose"))


METRICS: dict[str, Callable[[], Any]] = {
    "for the supervisor": _handover,
    "prometheus, embedded": _prometheus,
    "opentelemetry metrics": _otel_metrics,
    "statsd": _live,
    "statsd, dead port": _dead,
    "statsd, DNS hangs": _hanging,
}
OFF = "nothing"


def main(variant: str, jobs: int) -> None:
    """Measure once."""
    broker = MemoryBroker()
    client = goose.Client(broker)
    middleware = [MIDDLEWARE[variant]()] if variant in MIDDLEWARE else []
    made = METRICS[variant]() if variant in METRICS else None
    backend, *keep = made if isinstance(made, tuple) else (made,)
    client.enqueue(work.tick)
    client.enqueue_many(work.noop, [()] * jobs)
    client.enqueue(work.tick)
    worker = goose.Worker(
        broker, allow=["work"], concurrency=1, middleware=middleware,
        metrics=[] if backend is None else [backend],
    )  # fmt: skip
    worker.start()
    ended = work.reached_end.wait(120)
    worker.stop(5)
    if not ended:
        raise SystemExit("the jobs were not done within 120 s")
    first, last = work.cpu_used
    print(1e6 * (last - first) / jobs)
    del keep


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
