"""Metrics, middleware, resources and brokers of one's own, under a worker from the command line."""

from __future__ import annotations

import socket
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import goose
from tests.acceptance import jobs
from tests.acceptance.command import GOOSE, Worker, environment, run
from tests.servers.ports import free_port

pytestmark = pytest.mark.processes

JOBS = "tests.acceptance.jobs"
PLUGINS = "tests.acceptance.plugins"


@pytest.fixture
def client(own_folder: Path) -> Iterator[goose.Client]:
    with goose.Client(f"sqlite:///{own_folder}/goose.db") as made:
        yield made


def enqueue_some(client: goose.Client) -> None:
    """Five that work, in two queues, one that fails twice and dies, one that is scheduled."""
    client.enqueue_many(jobs.say, [(str(n),) for n in range(4)])
    client.using(queue="mail").enqueue(jobs.say_async, "async")
    client.using(retry=goose.Retry(max_retries=1, backoff=0)).enqueue(jobs.fail)
    client.enqueue_in(3600, jobs.say)


def test_statsd_and_prometheus_at_once(client: goose.Client, own_folder: Path) -> None:
    """A real UDP listener and a real scrape see the same jobs of one worker."""
    enqueue_some(client)
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(20)
        statsd = f"statsd://127.0.0.1:{listener.getsockname()[1]}"
        flags = ["--metrics", statsd, "--metrics", f"prometheus://127.0.0.1:{port}"]
        notes = str(own_folder / "notes")
        worker = Worker(own_folder, JOBS, "--queues", "default,mail", *flags, NOTES=notes)
        try:
            scraped = scrape_until_dead(worker, port)
            counted = listen_until_dead(listener)
        finally:
            code = worker.end()
            worker.close()

    assert 0 == code
    say = {"queue": "default", "function": f"{JOBS}:say"}
    fail = {"queue": "default", "function": f"{JOBS}:fail"}
    mail = {"queue": "mail", "function": f"{JOBS}:say_async"}
    assert 4 == value(scraped, "goose_jobs_succeeded_total", say)
    assert 1 == value(scraped, "goose_jobs_succeeded_total", mail)
    assert 2 == value(scraped, "goose_jobs_failed_total", fail)
    assert 1 == value(scraped, "goose_jobs_retried_total", fail)
    assert 1 == value(scraped, "goose_jobs_dead_total", fail)
    assert 4 == value(scraped, "goose_job_execution_time_seconds_count", say)
    assert 4 == value(scraped, "goose_job_latency_seconds_count", say)
    assert 1 == value(scraped, "goose_queue_size", {"queue": "default", "state": "scheduled"})
    totals = {"processed": 7, "succeeded": 5, "failed": 2, "retried": 1, "dead": 1}
    assert totals == {name: counted[f"goose.jobs.{name}"] for name in totals}


Samples = list[tuple[str, dict[str, str], float]]


def scrape(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return [
            (sample.name, sample.labels, sample.value) for f in families for sample in f.samples
        ]


def scrape_until_dead(worker: Worker, port: int) -> Samples:
    """Scrape until the last thing to happen is seen."""
    found: list[Samples] = []

    def seen() -> bool:
        try:
            found.append(scrape(port))
        except OSError:
            return False
        names = {name for name, _, _ in found[-1]}
        done = sum(v for name, _, v in found[-1] if name == "goose_jobs_processed_total")
        scheduled = [
            v
            for name, labels, v in found[-1]
            if name == "goose_queue_size" and labels == {"queue": "default", "state": "scheduled"}
        ]
        return done >= 7 and "goose_jobs_dead_total" in names and scheduled == [1]

    worker.until(seen, "Prometheus shows a dead job and the sizes of queues")
    return found[-1]


def value(samples: Samples, name: str, labels: dict[str, str]) -> float:
    found = [v for n, given, v in samples if n == name and labels.items() <= given.items()]
    assert found, (name, labels, sorted({n for n, _, _ in samples}))
    return sum(found)


def listen_until_dead(listener: socket.socket) -> Counter[str]:
    """Add up the counters of datagrams until the dead job has come."""
    counted: Counter[str] = Counter()
    last = {"processed": 7, "dead": 1, "failed": 2}  # of one batch, but not of one datagram
    while any(counted[f"goose.jobs.{name}"] < count for name, count in last.items()):
        for line in listener.recv(65536).decode().splitlines():
            name, _, rest = line.partition(":")
            number, kind = rest.split("|")[:2]
            if kind == "c":
                counted[".".join(name.split(".")[:3])] += int(number)  # without its tags
    return counted


def test_parts_of_ones_own_by_name(client: goose.Client, own_folder: Path) -> None:
    """Middleware, a metrics backend and a resource as module:name; a failing backend costs nothing."""
    client.enqueue(jobs.send, "a")
    flags = [
        "--middleware", f"{PLUGINS}:tenant", "--middleware", f"{PLUGINS}:around",
        "--metrics", f"{PLUGINS}:Failing", "--metrics", f"{PLUGINS}:Backend",
        "--resources", f"{PLUGINS}:Pool",
    ]  # fmt: skip
    notes = own_folder / "notes"
    done = run(
        GOOSE, "worker", JOBS, *flags, "--until-empty", at=own_folder,
        env=environment(NOTES=str(notes)),
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    lines = notes.read_text().splitlines()
    told = [line for line in lines if line.startswith("metric")]
    rest = [line for line in lines if not line.startswith("metric")]
    around = ["tenant", f"before {JOBS}:send", "a ", "after 1"]
    assert ["pool open", *around, "pool closed"] == rest
    assert f"metric jobs.succeeded +1 default {JOBS}:send" in told
    assert f"metric job.execution_time s default {JOBS}:send" in told
    assert "Failing" in done.stderr
    assert ["metrics closed"] == told[-1:]
    assert [] == list(client.inspector.find())


def test_parts_of_ones_own_from_the_file(client: goose.Client, own_folder: Path) -> None:
    """The same by goose.toml and the environment."""
    (own_folder / "goose.toml").write_text(
        f'allow = "{JOBS}"\nmiddleware = ["{PLUGINS}:tenant", "{PLUGINS}:around"]\n'
    )
    client.enqueue(jobs.send, "a")
    notes = own_folder / "notes"
    env = environment(NOTES=str(notes), GOOSE_METRICS=f"{PLUGINS}:Backend")
    done = run(GOOSE, "worker", "--until-empty", at=own_folder, env=env)

    assert 0 == done.returncode, done.stderr
    lines = notes.read_text().splitlines()
    rest = [line for line in lines if not line.startswith("metric")]
    assert ["tenant", f"before {JOBS}:send", "a ", "after 1"] == rest
    assert f"metric jobs.succeeded +1 default {JOBS}:send" in lines


def test_the_example_broker_under_the_command_line(own_folder: Path) -> None:
    """`goose worker --broker myscheme://…`: installed by the example's package, shared by processes.

    `tools/setup test` installs it: pip install -e examples/custom_broker.
    """
    url = f"myscheme://{own_folder}/jobs.json"
    with goose.Client(url) as client:
        client.enqueue_many(jobs.say, [(str(n),) for n in range(20)])
        client.enqueue_in(0.2, jobs.say_async, "later")
    notes = own_folder / "notes"
    worker = Worker(own_folder, JOBS, "--broker", url, "--processes", "2", NOTES=str(notes))
    try:
        worker.until(lambda: notes.exists() and len(notes.read_text().splitlines()) == 21, "done")
        code = worker.end()
    finally:
        worker.close()

    assert 0 == code
    assert sorted([*map(str, range(20)), "later"]) == sorted(notes.read_text().splitlines())


def test_small_examples_under_the_command_line(
    client: goose.Client, own_folder: Path, root: Path
) -> None:
    """The custom metrics backend and middleware of the examples, as their docstrings say."""
    client.enqueue(jobs.say)
    env = environment(NOTES=str(own_folder / "notes"))
    env["PYTHONPATH"] += f":{root}/examples"
    done = run(
        GOOSE, "worker", JOBS, "--metrics", "custom_metrics:PrintMetrics",
        "--middleware", "custom_middleware:say", "--until-empty", at=own_folder, env=env,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert f"{JOBS}:say begins" in done.stdout
    assert "jobs.succeeded +1" in done.stdout
