"""A real Prometheus scrapes real workers: sums that are right through crashes, alarms that fire."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import goose
from goose.brokers.base import State
from goose.metrics.catalogue import MEASURES
from goose.metrics.handover import AHEAD
from tests.acceptance import jobs
from tests.acceptance.command import Worker
from tests.servers.kinds import KINDS, address
from tests.servers.ports import free_port
from tests.servers.prometheus import Prometheus, promtool
from tests.servers.redis import RedisServer

JOBS = "tests.acceptance.jobs"
SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")
NAMES = {measure.prometheus + suffix for measure in MEASURES.values() for suffix in SUFFIXES}


def expressions(dashboard: Any) -> list[str]:
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [
        expr.replace("$__rate_interval", "1m").replace('queue=~"$queue"', 'queue=~".*"')
        for expr in found
    ]


def test_the_alarms_are_right_by_promtool(root: Path) -> None:
    """promtool accepts the rules, and each is provoked, and silent when all is well."""
    folder = root / "deploy/prometheus"
    assert "11 rules found" in promtool("check", "rules", "alerts.yml", at=folder)
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yml", at=folder)
    alarms = re.findall(r"- alert: (\w+)", (folder / "alerts.yml").read_text())
    provoked = (folder / "alerts_test.yml").read_text()
    assert [] == [alarm for alarm in alarms if f'alertname="{alarm}"' not in provoked]


def test_what_is_watched_is_what_is_measured(root: Path) -> None:
    """Every measure that dashboard, alarms and the scaling name is in the catalogue."""
    for name in (
        "deploy/grafana/goose.json", "deploy/prometheus/alerts.yml", "deploy/kubernetes/keda.yaml",
        "docs/metrics.md", "docs/health.md",
    ):  # fmt: skip
        named = set(re.findall(r"\bgoose_[a-z_]+", (root / name).read_text()))
        assert named - NAMES - {"goose_graphite"} == set(), name  # a package of an example
    dashboard = (root / "deploy/grafana/goose.json").read_text()
    missing = [one for one in MEASURES.values() if one.prometheus not in dashboard]
    assert [] == missing


def children(worker: Worker) -> list[int]:
    return [int(pid) for pid in re.findall(r"worker \d \((\d+)\) is ready", worker.log)]


@pytest.mark.processes
@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_what_was_done_and_never_fall(
    own_folder: Path, root: Path, kind: str, wait_until: Callable[..., None]
) -> None:
    """Two processes, one killed three times: counters rise only, and miss at most what was just done."""
    port = free_port()
    rules = re.sub(r"for: .*", "for: 0s", (root / "deploy/prometheus/alerts.yml").read_text())
    total, notes = 3000, own_folder / "notes"
    notes.touch()
    with address(kind, own_folder) as url, goose.Client(url) as client:
        worker = Worker(
            own_folder, JOBS, "--broker", url, "--processes", "2", "--health", f"127.0.0.1:{port}",
            "--ttl", "6", NOTES=str(notes),
        )  # fmt: skip
        try:
            worker.says("worker . .* is ready")
            with Prometheus(own_folder / "prometheus", f"127.0.0.1:{port}", rules) as prometheus:
                done = lambda: notes.read_text().count("said")  # noqa: E731
                wait_until(lambda: prometheus.value("goose_broker_up") == 1, seconds=30)
                for turn in range(3):
                    client.enqueue_many(jobs.say, [()] * (total // 3))
                    goal = turn * total // 3 + total // 6
                    wait_until(lambda goal=goal: done() >= goal, seconds=40)
                    os.kill(children(worker)[-1], signal.SIGKILL)
                    worker.until(lambda n=turn + 3: len(children(worker)) >= n, "a replacement")
                client.using(queue="nobodys").enqueue(jobs.say)
                client.using(retry=goose.Retry(max_retries=0)).enqueue(jobs.fail)
                worker.until(
                    lambda: not client.inspector.count(State.READY, "default"), "all is done"
                )
                alarms = {"GooseNoWorkerOnQueue", "GooseDeadJobsGrowing"}
                wait_until(lambda: alarms <= prometheus.firing(), seconds=40, what="alarms fire")
                counted = "sum(goose_jobs_processed_total)"
                seen = prometheus.value(counted)
                assert seen is not None
                # Each job counts once, when the broker has confirmed its end. What a kill takes: jobs
                # that were counted and not handed over, and the batch just confirmed.
                assert total + 1 - 3 * (AHEAD + 200) <= seen <= total + 1
                assert 0 == prometheus.value(f"max_over_time(resets({counted}[2m:200ms])[1m:1s])")
                assert 0 == prometheus.value("max(resets(goose_jobs_succeeded_total[5m]))")
                assert 3 == prometheus.value("sum(goose_worker_deaths_total)")
                assert 2 == prometheus.value("goose_worker_processes")
                assert 1 == prometheus.value(
                    "count(goose_queue_size{queue='default',state='dead'})"
                )
                # All that anybody looks at can be asked for.
                for expression in expressions(
                    json.loads((root / "deploy/grafana/goose.json").read_text())
                ):
                    prometheus.ask("/api/v1/query", query=expression)
                declared = prometheus.ask("/api/v1/targets/metadata")
                assert {one["metric"] for one in declared} >= {
                    measure.prometheus + ("_total" if measure.kind == "counter" else "")
                    for measure in MEASURES.values()
                }
        finally:
            code = worker.end()
            worker.close()
    assert 0 == code


@pytest.mark.processes
def test_an_outage_of_the_broker_is_seen_and_is_not_death(
    own_folder: Path, wait_until: Callable[..., None]
) -> None:
    """Not ready, broker down, alive throughout; and by itself again when the broker is back."""
    import urllib.error
    import urllib.request

    port = free_port()

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    with RedisServer(own_folder / "redis", port=free_port()) as server:
        worker = Worker(own_folder, JOBS, "--broker", server.url, "--health", f"127.0.0.1:{port}")
        try:
            wait_until(lambda: get("/readyz")[0] == 200, seconds=30)
            server.kill()
            before = time.monotonic()
            while get("/readyz")[0] == 200 or "goose_broker_up 0" not in get("/metrics")[1]:
                assert 200 == get("/livez")[0]
                assert time.monotonic() < before + 40, get("/metrics")[1]
                time.sleep(0.2)
            server.start()
            wait_until(lambda: get("/readyz")[0] == 200, seconds=30, what="ready again")
            assert 200 == get("/livez")[0]
            wait_until(lambda: "goose_broker_reconnects_total{" in get("/metrics")[1], seconds=20)
        finally:
            worker.end()
            worker.close()
