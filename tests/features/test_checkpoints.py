"""A long job goes on from its last checkpoint, whatever ended the run before."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import goose
from goose.brokers.base import State
from goose.features.checkpoints import MAX_CURSOR, Checkpoints
from goose.jobs import Job
from goose.middleware.base import Execution
from goose.stores.memory import MemoryStore
from tests.features.places import Place

WaitUntil = Callable[..., None]
KILLED = """
import os
import signal
import goose

def write(word):
    with open("steps", "a") as file:
        file.write(word + "\\n")

def count():
    me = goose.current()
    for n in range(me.cursor or 0, 5):
        write(str(n))
        me.checkpoint(n + 1)
        if n == 2:
            write("died")
            os.kill(os.getpid(), signal.SIGKILL)
"""
APP = """
import asyncio
import goose

steps = []
attempts = []
hold = True

def count(total):
    me = goose.current()
    attempts.append(me.attempt)
    for n in range(me.cursor or 0, total):
        steps.append(n)
        me.checkpoint(n + 1)

def count_slowly(total):
    me = goose.current()
    attempts.append(me.attempt)
    for n in range(me.cursor or 0, total):
        steps.append(n)
        me.checkpoint(n + 1)
        while hold and n == 2 and not me.should_stop:
            pass
        if me.should_stop:
            raise goose.Postpone(0)

async def acount(total):
    me = goose.current()
    attempts.append(me.attempt)
    for n in range(await me.acursor() or 0, total):
        steps.append(n)
        await me.acheckpoint(n + 1)
        if hold and n == 2:
            await asyncio.sleep(60)

def fail_at(place):
    me = goose.current()
    attempts.append(me.attempt)
    for n in range(me.cursor or 0, 5):
        if n == place and me.attempt == 0:
            raise ValueError
        steps.append(n)
        me.checkpoint(n + 1)

def bury_at(place):
    me = goose.current()
    for n in range(me.cursor or 0, 5):
        if n == place and hold:
            raise goose.Bury("here")
        steps.append(n)
        me.checkpoint(n + 1)
"""


@pytest.fixture(autouse=True)
def app(importable: Path) -> Any:
    """The functions of the jobs."""
    (importable / "feature_app.py").write_text(APP)
    import feature_app  # type: ignore[import-not-found]

    return feature_app


def test_a_failed_run_goes_on_from_its_cursor(place: Place, app: Any) -> None:
    """Nothing that was checkpointed is done again by the next attempt, and nothing is left behind."""
    place.client.using(retry=goose.Retry(backoff=0)).enqueue(app.fail_at, 3)
    process = place.process()
    process.run(until=lambda: len(app.steps) == 5)
    process.run()

    assert ([0, 1, 2, 3, 4], [0, 1]) == (app.steps, app.attempts)
    process.engine.checkpoints.step(0.0)
    assert [] == place.store.scan("checkpoint:")


@pytest.mark.parametrize("fn", ["count_slowly", "acount"])
def test_a_deploy_costs_no_attempt(place: Place, app: Any, wait_until: WaitUntil, fn: str) -> None:
    """A worker that is stopped gives the job back; the next one goes on where it was."""
    job = place.client.enqueue(getattr(app, fn), 6)
    first = place.worker(["feature_app"])
    first.start()
    wait_until(lambda: len(app.steps) == 3)
    first.stop(grace=0.2)
    stored = place.client.inspector.get(job.id)
    assert stored is not None
    assert stored.job is not None
    assert 0 == stored.job.attempt
    app.hold = False
    with place.worker(["feature_app"]):
        wait_until(lambda: len(app.steps) == 6)

    assert ([0, 1, 2, 3, 4, 5], [0, 0]) == (app.steps, app.attempts)


def test_a_dead_job_keeps_it_for_its_replay(place: Place, app: Any) -> None:
    """Replayed, it goes on from where it died."""
    job = place.client.enqueue(app.bury_at, 3)
    process = place.process()
    process.run()
    assert 1 == place.counts()[State.DEAD]
    app.hold = False
    place.client.inspector.replay([job.id])
    place.process().run()

    assert [0, 1, 2, 3, 4] == app.steps


@pytest.mark.processes
def test_a_killed_process_costs_no_step(
    importable: Path, root: Path, wait_until: WaitUntil
) -> None:
    """After a SIGKILL in the midst of it the next run begins with the step that was not stored."""
    steps = importable / "steps"
    (importable / "kill_app.py").write_text(KILLED)
    import kill_app  # type: ignore[import-not-found]

    with goose.Client("sqlite:///jobs.db") as client:
        client.enqueue(kill_app.count)
    command = [sys.executable, "-m", "goose", "worker", "kill_app"]
    command += ["--broker", "sqlite:///jobs.db", "--ttl", "2s"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as worker:
        try:
            wait_until(lambda: steps.exists() and steps.read_text().endswith("4\n"), seconds=50)
        finally:
            worker.terminate()
            _, said = worker.communicate(timeout=50)

    assert 0 == worker.returncode, said.decode()
    assert ["0", "1", "2", "died", "3", "4"] == steps.read_text().split()


def test_a_later_job_of_the_same_id_begins_anew() -> None:
    """A cursor belongs to one enqueue: what was left behind by another is not taken for it."""
    store = MemoryStore("memory://checkpoints")
    checkpoints = Checkpoints(lambda: store)
    job: Job[Any] = Job("x", "a:b", enqueued_at=1.0)
    checkpoints.save(job, {"row": 5}).result(5)

    assert {"row": 5} == checkpoints.load(job).result(5)
    assert checkpoints.load(job.evolve(enqueued_at=2.0)).result(5) is None
    checkpoints.close()


def test_what_is_no_cursor_is_refused() -> None:
    """It must be JSON of a bounded size; the one before stays."""
    checkpoints = Checkpoints(MemoryStore)
    job: Job[Any] = Job("x", "a:b")
    for wrong in ({1, 2}, "x" * MAX_CURSOR, float("nan")):
        with pytest.raises(ValueError, match="cursor"):
            checkpoints.save(job, wrong)  # type: ignore[arg-type]


def test_without_a_worker_it_is_kept_in_the_execution() -> None:
    """Code under test may checkpoint and look, with no store around."""
    execution = Execution(Job("x", "a:b"), (), {}, {})
    assert execution.cursor is None
    execution.checkpoint(3)
    assert 3 == execution.cursor == asyncio.run(execution.acursor())
    asyncio.run(execution.acheckpoint([4]))
    assert [4] == execution.cursor
