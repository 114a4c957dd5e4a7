"""Real worker processes on SQLite: killed, stopped, poisoned, told to end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import goose
from goose.brokers.base import State
from goose.brokers.sqlite import SQLiteBroker
from goose.jobs import decode
from goose.worker.process import read_stat
from tests.worker import process_jobs as jobs

pytestmark = [pytest.mark.processes, pytest.mark.timeout(90)]

ROOT = Path(__file__).parents[2]
GOOSE = [sys.executable, "-c", "from goose.cli import main; main()"]
MODULE = "tests.worker.process_jobs"


class Shop:
    """A database, a file of runs, and ``goose worker`` processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"sqlite:///{directory}/goose.db"
        self.broker = SQLiteBroker(self.url)
        self.client = goose.Client(self.broker)
        self.runs_file = directory / "runs"
        self.log_file = directory / "log"
        self.workers: list[subprocess.Popen[bytes]] = []

    def worker(self, *flags: str, module: str = MODULE) -> subprocess.Popen[bytes]:
        """Start ``goose worker`` with these flags."""
        command = [*GOOSE, "worker", module, "--broker", self.url, *flags]
        environment = {**os.environ, "RUNS": str(self.runs_file), "PYTHONPATH": str(ROOT)}
        with self.log_file.open("ab") as log:
            started = subprocess.Popen(command, cwd=self.directory, env=environment, stderr=log)
        self.workers.append(started)
        return started

    def runs(self) -> list[str]:
        """Return what the jobs noted, without process ids."""
        return [line.rpartition(" ")[0] for line in self._lines()]

    def pid_of(self, run: str) -> int:
        """Return the process that noted *run* last."""
        return int([line for line in self._lines() if line.startswith(run)][-1].split()[-1])

    def _lines(self) -> list[str]:
        return self.runs_file.read_text().splitlines() if self.runs_file.exists() else []

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def until(self, condition: Callable[[], Any], seconds: float = 30.0) -> None:
        """Wait for *condition*; fail with the workers' log."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"waited {seconds} s in vain; runs: {self.runs()}\n{self.log}")
            time.sleep(0.02)

    def count(self, state: State) -> int:
        return self.broker.count(state)

    def ended(self, worker: subprocess.Popen[bytes], seconds: float = 30.0) -> int:
        """Return the exit code of *worker*."""
        self.until(lambda: worker.poll() is not None, seconds)
        return worker.returncode

    def children(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """Return the processes of *worker*."""
        stats = (
            (int(path.name), read_stat(int(path.name))) for path in Path("/proc").glob("[0-9]*")
        )
        return [
            pid for pid, stat in stats if stat and stat[0] != "Z" and int(stat[1]) == worker.pid
        ]

    def close(self) -> None:
        print(self.log)  # pytest shows it when the test failed
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.broker.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    made.close()


def dead_job(shop: Shop, job_id: str) -> goose.Job[Any]:
    found = shop.broker.find(job_id)
    assert found is not None
    assert found.state is State.DEAD
    return decode(found.envelope)


def gone(pid: int) -> bool:
    return read_stat(pid)[:1] in ([], ["Z"], ["X"])


def test_the_collector_leaves_alone_what_a_worker_began_with(shop: Shop) -> None:
    """Modules and all else that a worker process has loaded are not looked at while jobs run."""
    shop.client.enqueue(jobs.frozen)
    shop.worker("--until-empty")
    shop.until(shop.runs)

    assert ["frozen True"] == shop.runs()


def test_until_empty_runs_everything_and_ends(shop: Shop) -> None:
    """Two processes run each job once, sync and async, and the exit code is 0."""
    shop.client.enqueue_many(jobs.quick, [(str(n),) for n in range(50)])
    shop.client.enqueue(jobs.sleepy, "z", 0.01)
    worker = shop.worker("--until-empty", "--processes", "2")

    assert 0 == shop.ended(worker)
    expected = sorted([*(f"quick {n}" for n in range(50)), "begin z", "end z"])
    assert expected == sorted(shop.runs())
    assert f"sqlite:///{shop.directory}/goose.db" in shop.log


def test_the_job_of_a_killed_child_runs_again_at_once(shop: Shop) -> None:
    """SIGKILL of the child: its job is taken over without waiting for any ttl."""
    gate = shop.directory / "gate"
    job = shop.client.enqueue(jobs.until_released, "a", str(gate))
    worker = shop.worker("--concurrency", "2")
    shop.until(lambda: shop.runs() == ["begin a"])
    os.kill(shop.pid_of("begin a"), signal.SIGKILL)
    killed = time.monotonic()
    shop.until(lambda: shop.runs() == ["begin a", "begin a"])
    assert time.monotonic() - killed < 10
    found = shop.broker.find(job.id)
    assert found is not None
    assert decode(found.envelope).crashes == 1
    gate.touch()
    shop.until(lambda: shop.broker.find(job.id) is None)
    worker.terminate()

    assert 0 == shop.ended(worker)
    assert ["begin a", "begin a", "end a"] == shop.runs()


@pytest.mark.parametrize("poison", [jobs.vanish, jobs.segfault])
def test_poison_is_dead_after_three_crashes(shop: Shop, poison: Any) -> None:
    """A job that ends its process, by any code or signal, hurts nobody else."""
    killer = shop.client.enqueue(poison)
    good = [shop.client.enqueue(jobs.wait, str(n), 0.02) for n in range(20)]
    worker = shop.worker("--concurrency", "4")
    shop.until(lambda: shop.count(State.DEAD) == 1, 60)
    shop.until(lambda: all(shop.broker.find(job.id) is None for job in good), 60)
    worker.terminate()

    assert 0 == shop.ended(worker)
    job = dead_job(shop, killer.id)
    assert job.crashes == 3
    assert job.failure is not None
    assert "crashed" == job.failure.reason
    assert shop.count(State.DEAD) == 1
    assert {f"end {n}" for n in range(20)} <= set(shop.runs())


def test_an_endless_loop_ends_at_its_hard_timeout(shop: Shop) -> None:
    """It fails like any job that takes too long; its neighbour runs again unblamed."""
    looping = shop.client.using(retry=goose.Retry(max_retries=0)).enqueue(jobs.loop)
    gate = shop.directory / "gate"
    worker = shop.worker("--hard-timeout", "1.5s", "--concurrency", "2")
    shop.until(lambda: "loop" in shop.runs())
    time.sleep(0.8)  # so that the neighbour's own time is not over by then
    neighbour = shop.client.enqueue(jobs.until_released, "n", str(gate))
    shop.until(lambda: shop.count(State.DEAD) == 1)
    found = shop.broker.find(neighbour.id)
    gate.touch()
    shop.until(lambda: shop.broker.find(neighbour.id) is None)
    worker.terminate()

    assert 0 == shop.ended(worker)
    assert found is not None
    innocent, guilty = decode(found.envelope), dead_job(shop, looping.id)
    assert (0, 0, 0) == (innocent.attempt, innocent.crashes, innocent.suspicions)
    assert (1, 0) == (guilty.attempt, guilty.crashes)
    assert 1 == shop.runs().count("loop")
    assert "ran over its time and did not end" in shop.log


def test_a_stopped_child_is_replaced_and_its_job_runs_again(shop: Shop) -> None:
    """SIGSTOP past the ttl leaves a dead process, not a zombie that may wake up."""
    gate = shop.directory / "gate"
    shop.client.enqueue(jobs.until_released, "a", str(gate))
    worker = shop.worker("--ttl", "2")
    shop.until(lambda: shop.runs() == ["begin a"])
    first = shop.pid_of("begin a")
    os.kill(first, signal.SIGSTOP)
    shop.until(lambda: shop.runs() == ["begin a", "begin a"])
    assert gone(first)
    gate.touch()
    worker.terminate()

    assert 0 == shop.ended(worker)
    assert ["begin a", "begin a", "end a"] == shop.runs()


def test_a_worker_that_was_stopped_whole_comes_back_as_another_session(shop: Shop) -> None:
    """Supervisor and child stopped past the ttl lose the job, change nothing about it, and go on."""
    gate = shop.directory / "gate"
    job = shop.client.enqueue(jobs.until_released, "a", str(gate))
    zombie = shop.worker("--ttl", "2", "--queues", "default,other")
    shop.until(lambda: shop.runs() == ["begin a"])
    frozen = [zombie.pid, *shop.children(zombie)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    heir = shop.worker("--ttl", "2", "--queues", "default")
    shop.until(lambda: shop.runs() == ["begin a", "begin a"])
    for pid in reversed(frozen):
        os.kill(pid, signal.SIGCONT)
    shop.until(lambda: "a new one begins" in shop.log)
    gate.touch()
    shop.until(lambda: shop.runs().count("end a") == 2)
    shop.until(lambda: shop.broker.find(job.id) is None)
    shop.client.using(queue="other").enqueue(jobs.quick, "b")
    shop.until(lambda: "quick b" in shop.runs())
    assert shop.children(zombie) == frozen[1:]
    heir.terminate()
    zombie.terminate()

    assert (0, 0) == (shop.ended(heir), shop.ended(zombie))


def test_terminate_lets_running_jobs_end(shop: Shop) -> None:
    """SIGTERM: what runs ends within the grace, what waits is given back, and the exit code is 0."""
    for n in range(8):
        shop.client.enqueue(jobs.wait, str(n), 0.5)
    worker = shop.worker("--concurrency", "2")
    shop.until(lambda: "begin 0" in shop.runs())
    worker.terminate()

    assert 0 == shop.ended(worker)
    runs = shop.runs()
    begun = [run for run in runs if run.startswith("begin")]
    assert len(begun) == len(runs) - len(begun)
    assert (8 - len(begun), 0) == (shop.count(State.READY), shop.count(State.RUNNING))


def test_what_outlives_the_grace_is_given_back_unblamed(shop: Shop) -> None:
    """A job in C code cannot be interrupted; the process ends, and the job costs nothing."""
    job = shop.client.enqueue(jobs.stubborn, "a")
    worker = shop.worker("--grace", "0.5s")
    shop.until(lambda: shop.runs() == ["begin a"])
    begun = time.monotonic()
    worker.terminate()

    assert 0 == shop.ended(worker)
    assert time.monotonic() - begun < 5.5
    found = shop.broker.find(job.id)
    assert found is not None
    assert found.state is State.READY
    stored = decode(found.envelope)
    assert (0, 0, 0) == (stored.attempt, stored.crashes, stored.suspicions)


def test_the_end_comes_in_time_without_a_broker(shop: Shop) -> None:
    """With the database locked away nothing can be given back, and the worker ends all the same."""
    shop.client.enqueue(jobs.stubborn, "a")
    worker = shop.worker("--grace", "0.2s")
    shop.until(lambda: shop.runs() == ["begin a"])
    with contextlib.closing(sqlite3.connect(shop.directory / "goose.db")) as lock:
        lock.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        worker.terminate()

        assert 1 == shop.ended(worker)
        assert time.monotonic() - begun < 5.2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_everything_now(shop: Shop, number: int, code: int) -> None:
    """Nothing is waited for, and no process is left."""
    shop.client.enqueue(jobs.stubborn, "a")
    worker = shop.worker()
    shop.until(lambda: shop.runs() == ["begin a"])
    child = shop.pid_of("begin a")
    worker.send_signal(number)
    shop.until(lambda: "stopping" in shop.log)
    begun = time.monotonic()
    worker.send_signal(number)

    assert code == shop.ended(worker)
    assert time.monotonic() - begun < 3
    shop.until(lambda: gone(child))


def test_a_storm_of_signals_does_not_hang(shop: Shop) -> None:
    """SIGTERM a thousand times a second ends the worker, whatever it is in the middle of."""
    shop.client.enqueue_many(jobs.quick, [(str(n),) for n in range(200)])
    worker = shop.worker()
    shop.until(lambda: len(shop.runs()) > 10)
    deadline = time.monotonic() + 10
    while worker.poll() is None and time.monotonic() < deadline:
        worker.terminate()
        time.sleep(0.001)

    assert worker.poll() in (0, 143)


def test_children_die_with_their_supervisor(shop: Shop) -> None:
    """SIGKILL of the supervisor ends every child, even one whose job never returns."""
    shop.client.enqueue(jobs.loop)
    worker = shop.worker("--processes", "2")
    shop.until(lambda: shop.runs() == ["loop"] and len(shop.children(worker)) == 2)
    children = shop.children(worker)
    worker.kill()
    worker.wait()

    shop.until(lambda: all(gone(pid) for pid in children), 10)


def test_a_terminated_child_is_replaced(shop: Shop) -> None:
    """SIGTERM to a child alone ends it in order; the supervisor starts another."""
    worker = shop.worker()
    shop.until(lambda: "is ready" in shop.log)
    [child] = shop.children(worker)
    os.kill(child, signal.SIGTERM)
    shop.until(lambda: shop.log.count("is ready") == 2)

    assert worker.poll() is None
    assert "died" not in shop.log


def test_interrupt_of_the_whole_group_is_decided_by_the_supervisor(shop: Shop) -> None:
    """Ctrl-C reaches the children too, and they leave it to the supervisor."""
    shop.client.enqueue(jobs.wait, "a", 1.0)
    worker = shop.worker()
    shop.until(lambda: shop.runs() == ["begin a"])
    for pid in [*shop.children(worker), worker.pid]:
        os.kill(pid, signal.SIGINT)

    assert 0 == shop.ended(worker)
    assert ["begin a", "end a"] == shop.runs()


def test_children_are_recycled_after_their_jobs(shop: Shop) -> None:
    """With max-jobs a process makes room for another, and nothing runs twice."""
    for n in range(40):
        shop.client.enqueue(jobs.wait, str(n), 0.05)
    worker = shop.worker("--max-jobs", "10", "--concurrency", "2", "--until-empty")

    assert 0 == shop.ended(worker)
    assert sorted(f"end {n}" for n in range(40)) == sorted(
        run for run in shop.runs() if run.startswith("end")
    )
    assert "max-jobs 10" in shop.log
    assert len(set(re.findall(r"worker 1 \((\d+)\) is ready", shop.log))) >= 3


def test_changed_source_restarts_the_children(shop: Shop) -> None:
    """With reload the next job runs the new code."""
    source = shop.directory / "fresh.py"
    source.write_text("def f() -> None:\n    print('old', flush=True)\n")
    worker = shop.worker("--reload", module="fresh")
    shop.until(lambda: "is ready" in shop.log)
    source.write_text("def f() -> None:\n    print('new!', flush=True)\n")
    shop.until(lambda: shop.log.count("is ready") == 2)
    worker.terminate()

    assert 0 == shop.ended(worker)
    assert "fresh.py has changed" in shop.log


@pytest.mark.parametrize(
    ("flags", "module", "code", "said"),
    [
        ((), "no_such_module", 3, "no_such_module"),
        (("--concurrency", "many"), MODULE, 2, "--concurrency"),
        (("--queues", ""), MODULE, 2, "--queues"),
        (("--broker", "rediss:/x"), MODULE, 2, "--broker"),
        (("--broker", "memory://"), MODULE, 2, "inside one process"),
        (("--middleware", "nowhere:x"), MODULE, 2, "nowhere"),
        (("--no-such-flag",), MODULE, 2, "no-such-flag"),
        (("--broker", "sqlite:////proc/nowhere/x.db", "--wait-broker", "1s"), MODULE, 4, "nowhere"),
    ],
)
def test_exit_codes_of_a_start_that_fails(
    shop: Shop, flags: tuple[str, ...], module: str, code: int, said: str
) -> None:
    """What cannot begin ends with the documented code and a line that names the cause."""
    worker = shop.worker(*flags, module=module)

    assert code == shop.ended(worker)
    assert said in shop.log
    assert "Traceback" not in shop.log


def test_json_logs_are_one_object_per_line(shop: Shop) -> None:
    """With the JSON format every line parses and names its process."""
    import json

    shop.client.enqueue(jobs.fail)
    worker = shop.worker("--log-format", "json", "--until-empty")

    assert 0 == shop.ended(worker)
    lines = [json.loads(line) for line in shop.log.splitlines()]
    assert {"supervisor", "worker-1"} >= {line["process"] for line in lines} >= {"supervisor"}
