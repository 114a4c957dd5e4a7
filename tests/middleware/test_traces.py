"""One trace from the request that enqueues to the follow-up job, across processes and brokers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import goose
from goose.errors import ConfigError
from goose.metrics.base import BUSY, EXECUTION_TIME, PROCESSED
from goose.metrics.opentelemetry import OpenTelemetry
from tests.acceptance.command import GOOSE, Worker, environment, run
from tests.servers.kinds import KINDS, address

APP = '''
"""An application with OpenTelemetry set up, as every process of it imports it."""
import json, os, sys
from pathlib import Path

import goose
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class ToFile(InMemorySpanExporter):
    """An in-memory exporter whose spans other processes can read."""

    def export(self, spans):
        with Path("spans.jsonl").open("a") as lines:
            for span in spans:
                lines.write(json.dumps({
                    "name": span.name, "pid": os.getpid(), "kind": span.kind.name,
                    "trace": span.context.trace_id, "id": span.context.span_id,
                    "parent": span.parent and span.parent.span_id,
                    "status": span.status.status_code.name, "attributes": dict(span.attributes),
                    "events": [event.name for event in span.events],
                }) + "\\n")
        return super().export(spans)


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ToFile()))
trace.set_tracer_provider(provider)


def first(name: str) -> None:
    goose.using(queue="mail").enqueue(second, name)


def second(name: str) -> None:
    if name == "bad":
        raise ValueError("bad name")


def skipped() -> None:
    raise goose.Skip("not today")


def request():
    with trace.get_tracer("web").start_as_current_span("GET /", kind=trace.SpanKind.SERVER):
        goose.enqueue(first, "ada")


if __name__ == "__main__":
    request()
'''
SETTINGS = """
allow = "traced"
queues = "default,mail"
before_enqueue = ["goose.middleware.opentelemetry:create"]
middleware = ["goose.middleware.opentelemetry:process"]
"""


def spans(folder: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "spans.jsonl").read_text().splitlines()]
    return {line["name"]: line for line in lines}


@pytest.mark.processes
@pytest.mark.parametrize("kind", KINDS)
def test_one_trace_across_processes(own_folder: Path, kind: str) -> None:
    """Request, create, process, create, process: each the parent of the next, in three processes."""
    (own_folder / "traced.py").write_text(APP)
    (own_folder / "goose.toml").write_text(SETTINGS)
    with address(kind, own_folder) as url:
        env = environment(GOOSE_BROKER=url)
        asked = run(Path(GOOSE).with_name("python"), "-m", "traced", at=own_folder, env=env)
        assert 0 == asked.returncode, asked.stderr
        done = run(GOOSE, "worker", "--until-empty", at=own_folder, env=env)
        assert 0 == done.returncode, done.stderr

    found = spans(own_folder)
    names = ["GET /", "create default", "process default", "create mail", "process mail"]
    chain = [found[name] for name in names]
    assert 1 == len({span["trace"] for span in chain})
    assert [span["id"] for span in chain[:-1]] == [span["parent"] for span in chain[1:]]
    assert chain[0]["pid"] == chain[1]["pid"] != chain[2]["pid"]
    assert ["PRODUCER", "CONSUMER"] == [chain[1]["kind"], chain[2]["kind"]]
    last = chain[-1]["attributes"]
    assert ("goose", "mail", "process") == (
        last["messaging.system"],
        last["messaging.destination.name"],
        last["messaging.operation.type"],
    )


@pytest.mark.processes
def test_a_failure_is_the_spans_and_a_skip_is_none(own_folder: Path) -> None:
    """An error has its type, its event and its status; what steers a job has an outcome only."""
    (own_folder / "traced.py").write_text(APP)
    (own_folder / "goose.toml").write_text(SETTINGS)
    code = (
        "import goose, traced\n"
        "once = goose.using(retry=goose.Retry(max_retries=0))\n"
        "once.enqueue(traced.second, 'bad')\n"
        "once.using(queue='mail').enqueue(traced.skipped)"
    )
    run(Path(GOOSE).with_name("python"), "-c", code, at=own_folder)
    worker = Worker(own_folder, "--until-empty")
    try:
        assert 0 == worker.exit_code()
    finally:
        worker.close()

    found = spans(own_folder)
    failed, skipped = found["process default"], found["process mail"]
    assert ("ERROR", "ValueError") == (failed["status"], failed["attributes"]["error.type"])
    assert ["exception"] == failed["events"]
    assert ("UNSET", "skip") == (skipped["status"], skipped["attributes"]["goose.outcome"])


def test_metrics_go_to_a_meter() -> None:
    """Counters, gauges and histograms, under their names, with their tags."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics = OpenTelemetry(meter=provider.get_meter("goose"))
    tags = {"queue": "mail", "function": "a:b"}
    metrics.increment(PROCESSED, 2, tags)
    metrics.increment(PROCESSED, 1, tags)
    metrics.gauge(BUSY, 3, {"kind": "sync"})
    metrics.timing(EXECUTION_TIME, 0.2, tags)
    data = reader.get_metrics_data()
    assert data is not None
    found = {
        metric.name: (metric.unit, metric.data.data_points[0])
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
    }
    provider.shutdown()

    assert (3, tags) == (
        found["goose.jobs.processed"][1].value,
        found["goose.jobs.processed"][1].attributes,
    )  # type: ignore[union-attr]
    assert 3 == found["goose.worker.busy"][1].value  # type: ignore[union-attr]
    unit, point = found["goose.job.execution_time"]
    assert ("s", 1, 0.2) == (unit, point.count, point.sum)  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="write opentelemetry://"):
        OpenTelemetry("opentelemetry://host")


def test_sentry_is_told_of_failures_with_their_job() -> None:
    """Failures and timeouts, once each, in the trace of the enqueue; what steers a job is no failure."""
    import sentry_sdk
    from sentry_sdk.transport import Transport

    from goose.middleware.sentry import Report, trace

    envelopes: list[Any] = []

    class Keep(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            envelopes.extend(item.payload.json for item in envelope.items)

    sentry_sdk.init(dsn="https://key@example.invalid/1", transport=Keep, traces_sample_rate=1.0)
    try:
        with sentry_sdk.start_transaction(name="GET /") as request:
            job = trace(goose.Job("7", "app:work", queue="mail"))
        for error, report in (
            (ValueError("no"), Report()),
            (goose.Skip("x"), Report()),
            (ValueError("again"), Report(retried=False)),
        ):
            execution = goose.Execution(job, (), {}, {})
            with pytest.raises(type(error)), report(execution):
                raise error
        sentry_sdk.flush()
    finally:
        sentry_sdk.init()

    events = [item for item in envelopes if item and item.get("exception")]
    transactions = [item for item in envelopes if item and item.get("type") == "transaction"]
    assert ["no"] == [event["exception"]["values"][-1]["value"] for event in events]
    assert {"goose.queue": "mail", "goose.function": "app:work"} == events[0]["tags"]
    assert "7" == events[0]["contexts"]["goose"]["job_id"]
    assert 4 == len(transactions)
    assert {request.trace_id} == {item["contexts"]["trace"]["trace_id"] for item in transactions}
