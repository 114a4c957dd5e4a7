"""Real worker processes on RabbitMQ: poisoned, killed, stopped, told to end."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import goose
from goose.brokers.base import State
from goose.brokers.rabbitmq import RabbitMQBroker
from goose.jobs import decode
from tests.servers.rabbitmq import RabbitServer
from tests.worker import process_jobs as jobs
from tests.worker.test_processes import Shop

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


class RabbitShop(Shop):
    """A namespace of its own on a node."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        # So long that on a crowded machine, too, word of a death comes before its jobs are lent.
        self.url = f"{url}?namespace={uuid.uuid4().hex}&quarantine=6"
        self.broker = RabbitMQBroker(self.url)
        self.client = goose.Client(self.broker)
        self.runs_file = directory / "runs"
        self.log_file = directory / "log"
        self.workers = []

    def dead(self) -> list[goose.Job]:
        return [decode(item.envelope) for item in self.broker.page(State.DEAD).items]


@pytest.fixture
def shop(tmp_path: Path, rabbit_server: RabbitServer) -> Iterator[RabbitShop]:
    made = RabbitShop(tmp_path, rabbit_server.url)
    yield made
    made.close()


def test_until_empty_runs_everything_and_ends(shop: RabbitShop) -> None:
    """A worker that is to end when nothing is left runs all jobs, and ends well."""
    for number in range(30):
        shop.client.enqueue(jobs.quick, str(number))
    worker = shop.worker("--until-empty", "--processes", "2")
    assert 0 == shop.ended(worker)
    assert [f"quick {number}" for number in range(30)] == sorted(
        shop.runs(), key=lambda run: int(run.split()[1])
    )


def test_a_poison_job_ends_dead_and_alone(shop: RabbitShop) -> None:
    """A job that kills its process is dead after three crashes alone; no neighbour is blamed."""
    for number in range(50):
        shop.client.enqueue(jobs.quick, str(number))
        if number == 5:
            shop.client.enqueue(jobs.segfault)
    shop.worker("--processes", "2", "--concurrency", "4")
    shop.until(lambda: shop.broker.count(State.DEAD), 60)
    [job] = shop.dead()
    assert ("tests.worker.process_jobs:segfault", 3, "crashed") == (
        job.fn,
        job.crashes,
        job.failure.reason if job.failure else "",
    )
    runs = Counter(shop.runs())
    # Three alone, and at first perhaps one beside others, when nobody could be named.
    assert 3 <= runs.pop("segfault") <= 4
    shop.until(lambda: len(set(shop.runs())) == 51)
    assert not [line for line in shop.log.splitlines() if "process_jobs:quick was alone" in line]


def test_killed_processes_lose_nothing(shop: RabbitShop) -> None:
    """Jobs of a worker that is killed with its supervisor run to their end elsewhere."""
    for number in range(40):
        shop.client.enqueue(jobs.wait, str(number), 0.05)
    first = shop.worker("--concurrency", "4")
    shop.until(lambda: len([run for run in shop.runs() if run.startswith("end")]) >= 5)
    for child in shop.children(first):
        os.kill(child, signal.SIGKILL)
    first.kill()
    shop.worker("--concurrency", "4")
    ends = {f"end {number}" for number in range(40)}
    shop.until(lambda: ends <= set(shop.runs()))
    begun = Counter(run for run in shop.runs() if run.startswith("begin"))
    assert sum(begun.values()) - 40 <= 4, "more ran twice than had been started"
    assert [] == shop.dead()


def test_a_stop_gives_back_what_was_not_started(shop: RabbitShop) -> None:
    """A worker that is told to stop gives back what it held; another has it soon, unblamed."""
    shop.client.enqueue(jobs.wait, "slow", 2.0)
    for number in range(10):
        shop.client.enqueue(jobs.quick, str(number))
    first = shop.worker("--concurrency", "1")
    shop.until(lambda: "begin slow" in shop.runs())
    first.send_signal(signal.SIGTERM)
    stopped = time.monotonic()
    shop.worker("--concurrency", "1")
    shop.until(lambda: len(shop.runs()) >= 11)
    assert 0 == shop.ended(first)
    assert time.monotonic() - stopped < 20
    assert Counter(shop.runs())["begin slow"] == 1
    assert [] == shop.dead()


def test_a_hard_timeout_is_an_attempt_of_the_stuck_job(shop: RabbitShop) -> None:
    """The process of a job that does not end is killed; that is an attempt, and no crash."""
    shop.client.using(retry=goose.Retry(max_retries=0)).enqueue(jobs.loop)
    shop.worker("--concurrency", "2", "--hard-timeout", "1")
    shop.until(lambda: shop.broker.count(State.DEAD))
    [job] = shop.dead()
    assert ("timeout", 1, 0) == (
        job.failure.reason if job.failure else "",
        job.attempt,
        job.crashes,
    )


def test_a_paused_process_settles_nothing_of_others(shop: RabbitShop) -> None:
    """A process that was stopped until its connection was given up runs on, and its ack is void."""
    gate = shop.directory / "gate"
    shop.url += "&heartbeat=2"
    shop.client.enqueue(jobs.until_released, "held", str(gate))
    first = shop.worker("--concurrency", "1", "--ttl", "60")
    shop.until(lambda: "begin held" in shop.runs())
    [paused] = shop.children(first)
    os.kill(paused, signal.SIGSTOP)
    shop.worker("--concurrency", "1")
    shop.until(lambda: shop.runs().count("begin held") == 2, 40)
    os.kill(paused, signal.SIGCONT)
    shop.until(lambda: "again (worker)" in shop.log)
    gate.touch()
    shop.until(lambda: shop.runs().count("end held") == 2)
    shop.until(lambda: "was no longer ours when it ended" in shop.log)
    assert 0 == shop.broker.count(State.READY)
