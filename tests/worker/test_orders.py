"""Real worker processes that are told to be more, fewer, louder or quieter while they work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from goose.brokers.base import State
from goose.features.controls.roll import WorkerRecord
from goose.jobs import decode
from tests.worker import process_jobs as jobs
from tests.worker.test_processes import Shop, gone

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

SOON = 15.0
"""Seconds that a crowded machine may take for what takes one."""


class Fleet(Shop):
    """A shop whose workers are given orders."""

    def set(self, **values: Any) -> None:
        """Order this for all workers."""
        self.client.controls.set("*", **values)

    def listed(self) -> list[WorkerRecord]:
        """Return the processes that say they are at work."""
        return self.client.controls.workers()

    def begins(self, *flags: str) -> subprocess.Popen[bytes]:
        """Start a worker, and wait until one of its processes takes jobs."""
        ready = self.ready
        worker = self.worker(*flags)
        self.until(lambda: self.ready > ready)
        return worker

    @property
    def ready(self) -> int:
        """How many processes were ready so far."""
        return self.log.count("is ready") if self.log_file.exists() else 0

    def supervisor_says(self, level: str) -> int:
        """Return how many lines of this level the supervisors have written."""
        return len(re.findall(rf"^\S+ \S+ {level} +supervisor ", self.log, re.MULTILINE))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


def test_from_one_to_three_and_back_under_load(shop: Fleet) -> None:
    """Every job runs once: what surplus processes run they finish, what they hold they give back."""
    worker = shop.begins("--concurrency", "2")
    names = [str(n) for n in range(400)]
    for at in range(0, len(names), 200):
        ready = shop.ready
        shop.set(processes=3)
        shop.until(lambda ready=ready: shop.ready == ready + 2, SOON)
        assert 3 == len(shop.children(worker))
        shop.client.enqueue_many(jobs.wait, [(name, 0.05) for name in names[at : at + 200]])
        # All of them are in the middle of something when it is over.
        shop.until(lambda at=at: len(shop.runs()) > 2 * at + 100)
        shop.client.controls.reset()
        shop.until(lambda: len(shop.children(worker)) == 1, SOON)
    shop.until(lambda: shop.count(State.READY) + shop.count(State.RUNNING) == 0, 60)
    worker.terminate()

    assert 0 == shop.ended(worker)
    assert Counter(f"{word} {name}" for word in ("begin", "end") for name in names) == Counter(
        shop.runs()
    )
    assert 5 == shop.ready
    assert "died" not in shop.log
    assert "took over" not in shop.log


def test_the_numbers_of_processes_that_came_and_went_are_kept(shop: Fleet) -> None:
    """Counts of all that ever worked are added up; only those at work have gauges."""
    worker = shop.begins("--concurrency", "2", "--metrics", "prometheus://127.0.0.1:0")
    port = re.findall(r"serving /metrics.* on 127.0.0.1:(\d+)", shop.log)[0]

    def number(name: str) -> float:
        """Return the sum of all samples of this name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))

    shop.set(processes=3)
    shop.until(lambda: number("goose_worker_processes") == 3, SOON)
    shop.client.enqueue_many(jobs.wait, [(str(n), 0.05) for n in range(100)])
    shop.until(lambda: len(shop.runs()) > 50)
    shop.client.controls.reset()
    shop.until(lambda: len(shop.runs()) == 200)
    shop.until(lambda: number("goose_worker_processes") == 1, SOON)
    shop.until(lambda: number("goose_jobs_processed_total") == 100, SOON)

    assert 0 == number("goose_worker_deaths_total")
    worker.terminate()
    assert 0 == shop.ended(worker)


def test_a_job_shorter_than_the_grace_is_not_cut_short(shop: Fleet) -> None:
    """A surplus process takes nothing more and stays until what it runs has ended."""
    worker = shop.begins("--processes", "2", "--concurrency", "1")
    gates = [shop.directory / name for name in ("a", "b")]
    for gate in gates:
        shop.client.enqueue(jobs.until_released, gate.name, str(gate))
    shop.until(lambda: len(shop.runs()) == 2)
    shop.set(processes=1)
    shop.until(lambda: "1 instead of 2" in shop.log, SOON)
    shop.client.enqueue(jobs.quick, "next")
    last = {int(pid) for pid in re.findall(r"worker 2 \((\d+)\) is ready", shop.log)}
    [drains] = [gate for gate in gates if shop.pid_of(f"begin {gate.name}") in last]
    [stays] = [gate for gate in gates if gate != drains]
    drains.touch()
    shop.until(lambda: all(gone(pid) for pid in last), SOON)
    assert f"end {drains.name}" == shop.runs()[-1]  # so it did not take the next one
    stays.touch()
    shop.until(lambda: "quick next" in shop.runs())
    worker.terminate()

    assert 0 == shop.ended(worker)
    assert 5 == len(shop.runs())


def test_what_outlives_the_grace_runs_again_unblamed(shop: Fleet) -> None:
    """A job in C code ends with its surplus process, and is taken by one that stays."""
    worker = shop.begins("--processes", "2", "--grace", "0.5s", "--concurrency", "1")
    shop.until(lambda: shop.ready == 2)
    stuck = [shop.client.enqueue(jobs.stubborn, name) for name in ("a", "b")]
    shop.until(lambda: len(shop.runs()) == 2)
    shop.set(processes=1)
    shop.until(lambda: len(shop.children(worker)) == 1, SOON)
    shop.until(lambda: shop.count(State.READY) == 1, SOON)

    for job in stuck:
        found = shop.broker.find(job.id)
        assert found is not None
        stored = decode(found.envelope)
        assert (0, 0, 0) == (stored.attempt, stored.crashes, stored.suspicions)
    assert worker.poll() is None


def test_an_order_outlives_the_processes_that_read_it(shop: Fleet) -> None:
    """All of them are killed; as many come back, log as ordered, and so does their supervisor."""
    worker = shop.begins()
    shop.set(processes=2, log_level="debug")
    shop.until(lambda: shop.ready == 2, SOON)
    for _ in range(2):
        first, debug = shop.children(worker), shop.supervisor_says("DEBUG")
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        shop.until(lambda first=first: all(gone(pid) for pid in first))
        shop.until(lambda: len(shop.children(worker)) == 2, SOON)
        shop.until(lambda debug=debug: shop.supervisor_says("DEBUG") >= debug + 2)

    def levels() -> dict[int, str]:
        """Return what those that live log by: records of the dead stay for a while."""
        return {record.pid: record.log_level for record in shop.listed()}

    shop.until(lambda: [levels().get(pid) for pid in shop.children(worker)] == ["debug"] * 2, SOON)
    worker.terminate()

    assert 0 == shop.ended(worker)
    assert 1 == shop.log.count("2 instead of 1")


def test_the_supervisor_logs_as_ordered_and_as_before(shop: Fleet) -> None:
    """Louder by order, and by its own setting again once that is withdrawn."""
    worker = shop.worker("--log-level", "warning")

    def replaced(level: str) -> None:
        """Have the one process replaced, once all log by *level*."""
        shop.until(lambda: {record.log_level for record in shop.listed()} == {level}, SOON)
        [child] = shop.children(worker)
        os.kill(child, signal.SIGTERM)
        shop.until(lambda: child not in {record.pid for record in shop.listed()} and shop.listed())
        shop.until(lambda: gone(child), SOON)

    replaced("warning")
    assert (0, 0) == (shop.supervisor_says("DEBUG"), shop.supervisor_says("INFO"))
    shop.set(log_level="debug")
    replaced("debug")
    shop.until(lambda: shop.supervisor_says("DEBUG") and shop.supervisor_says("INFO") > 2, SOON)
    shop.client.controls.reset()
    shop.until(lambda: {record.log_level for record in shop.listed()} == {"warning"}, SOON)
    said = shop.supervisor_says("DEBUG"), shop.supervisor_says("INFO")
    replaced("warning")
    worker.terminate()

    assert 0 == shop.ended(worker)
    assert said == (shop.supervisor_says("DEBUG"), shop.supervisor_says("INFO"))


def test_a_worker_that_starts_later_obeys_and_says_so(shop: Fleet) -> None:
    """What is set holds for it too; the list shows how many processes there are to be."""
    shop.set(processes=2)
    worker = shop.begins("--processes", "4")
    shop.until(lambda: len(shop.children(worker)) == 2, SOON)
    shop.until(lambda: [record.processes for record in shop.listed()] == [2, 2], SOON)
    shop.client.controls.reset(shop.listed()[0].name)  # nothing is set by that name
    assert 2 == len(shop.children(worker))
    shop.client.controls.reset()
    shop.until(lambda: [record.processes for record in shop.listed()] == [4] * 4, SOON)

    assert 4 == len(shop.children(worker))


def test_until_empty_ends_with_more_and_with_fewer_processes(shop: Fleet) -> None:
    """Nothing is left behind by those that came or went."""
    gate = shop.directory / "gate"
    shop.client.enqueue(jobs.until_released, "gate", str(gate))
    shop.client.enqueue_many(jobs.wait, [(str(n), 0.05) for n in range(100)])
    worker = shop.begins("--until-empty", "--concurrency", "2")
    shop.set(processes=3)
    shop.until(lambda: shop.ready == 3, SOON)
    shop.set(processes=2)
    shop.until(lambda: "2 instead of 3" in shop.log, SOON)
    shop.client.enqueue_many(jobs.wait, [(str(n), 0.05) for n in range(100, 150)])
    gate.touch()

    assert 0 == shop.ended(worker)
    assert sorted(["end gate", *(f"end {n}" for n in range(150))]) == sorted(
        run for run in shop.runs() if run.startswith("end")
    )
    assert 0 == shop.count(State.READY) + shop.count(State.RUNNING)


def test_an_order_is_obeyed_within_a_second(shop: Fleet) -> None:
    """Also right after the opposite was; the best of several, for others use this machine too."""
    worker = shop.begins()
    took = []
    for count in (2, 1, 2, 1, 2, 1):
        shop.set(processes=count, log_level="debug" if count == 2 else "info")
        begun = time.time()
        told = f"by order: {count} instead of"
        seen = shop.log.count(told)
        shop.until(lambda told=told, seen=seen: shop.log.count(told) > seen, SOON)
        took.append(time.time() - begun)
    worker.terminate()

    assert 0 == shop.ended(worker)
    # The order for two is read by one process, which looked just before: it is never in luck.
    assert min(took[2::2]) < 1.0
    assert max(took) < SOON / 3
