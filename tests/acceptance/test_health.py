"""A real worker with two processes, asked how it is in every way there is."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import goose
from goose.metrics.base import BUSY, HELD, IN_FLIGHT, PROCESSES, SERVING, SLOTS, WINDOW, Tags
from tests.acceptance import jobs
from tests.acceptance.command import GOOSE, Worker, run
from tests.servers.ports import free_port

APP = """
import time
from pathlib import Path

import goose
from prometheus_client import Counter, Gauge

mails = Counter("mails", "Mails sent")
depth = Gauge("depth", "Depth of something")

def send() -> None:
    mails.inc()
    depth.set(3)

def first() -> None:
    goose.enqueue(send)

def hold() -> None:
    while not Path("go").exists():
        time.sleep(0.01)
"""


@pytest.mark.processes
def test_a_worker_says_how_it_is(own_folder: Path, wait_until: Callable[..., None]) -> None:
    """Metrics of the application's own, a heartbeat file, stacks on SIGUSR1, and a clean end.

    Its jobs put jobs where the worker takes them from, though only a flag says where.
    """
    (own_folder / "watched.py").write_text(APP)
    port, url = free_port(), f"sqlite:///{own_folder}/other.db"
    with goose.Client(url) as client:
        client.submit(
            goose.Job(f"{name}-{n}", f"watched:{name}")
            for name, count in (("first", 4), ("hold", 2))
            for n in range(count)
        )
    worker = Worker(
        own_folder, "watched", "--broker", url, "--processes", "2", "--concurrency", "2",
        "--health", f"127.0.0.1:{port}", "--heartbeat-file", "heartbeat",
    )  # fmt: skip

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    try:
        worker.until(lambda: worker.log.count("is ready") == 2, "both are ready")
        wait_until(lambda: "\nmails_total 4.0\n" in scrape(), seconds=20, what="own measures")
        assert re.search(r'\ndepth{process="\d/\d+"} 3.0\n', scrape())
        wait_until(lambda: '\ngoose_worker_busy{kind="sync"} 2.0\n' in scrape(), seconds=20)
        assert 0 == run(GOOSE, "health", "heartbeat", "--ready", at=own_folder).returncode

        worker.process.send_signal(signal.SIGUSR1)
        for n in range(2):
            worker.says(rf"job hold-{n} of watched:hold has been running for \d+ s")
        worker.says(r"in hold\n")
        child = int(worker.says(r"worker \d \((\d+)\) runs [12] jobs?: hold-\d")[1])
        before = worker.log.count("has been running")
        os.kill(child, signal.SIGUSR1)
        worker.until(lambda: worker.log.count("has been running") > before, "one process answers")
    finally:
        (own_folder / "go").touch()
        code = worker.end()
        worker.close()
    assert 0 == code
    gone = run(GOOSE, "health", "heartbeat", at=own_folder)
    assert (1, "heartbeat does not exist: no worker writes it\n") == (gone.returncode, gone.stderr)
    assert "[]" == run(GOOSE, "queues", "--json", "--broker", url, at=own_folder).stdout.strip()


@pytest.mark.processes
def test_a_port_in_use_ends_the_worker_at_its_start(own_folder: Path) -> None:
    """Exit code 2 and the port, before anything is started."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        for flags in (("--health", place), ("--metrics", f"prometheus://{place}")):
            done = run(GOOSE, "worker", "tests.acceptance.jobs", *flags, at=own_folder)
            assert 2 == done.returncode
            assert f"port {place.rpartition(':')[2]}: Address already in use" in done.stderr


def test_an_embedded_worker_reports_its_own_gauges(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """Slots, what runs, what is held, what it serves: to every backend, without a supervisor."""
    monkeypatch.setenv("NOTES", str(own_folder / "notes"))
    seen: dict[str, list[tuple[float, Tags]]] = {}

    class Backend:
        def increment(self, name: str, value: int, tags: Tags) -> None: ...

        def timing(self, name: str, seconds: float, tags: Tags) -> None: ...

        def gauge(self, name: str, value: float, tags: Tags) -> None:
            seen.setdefault(name, []).append((value, tags))

    broker = goose.Client("memory://gauges").broker
    with goose.Worker(
        broker,
        allow=[jobs.__name__],
        queues=["default", "mail"],
        concurrency=3,
        metrics=[Backend()],
    ):
        names = {BUSY, HELD, IN_FLIGHT, PROCESSES, SERVING, SLOTS, WINDOW}
        wait_until(lambda: names <= seen.keys(), what="all gauges")

    assert {("sync", 3), ("async", 30)} == {(tags["kind"], value) for value, tags in seen[SLOTS]}
    assert {"default", "mail"} == {tags["queue"] for _, tags in seen[SERVING]}
