"""Deploys: workers replaced one by one while jobs keep coming."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import goose
from goose.brokers.sqlite import SQLiteBroker
from tests.chaos import jobs
from tests.chaos.fleet import Fleet, wait_until
from tests.chaos.history import check, read_marks
from tests.chaos.remains import left


@pytest.mark.processes
@pytest.mark.timeout(180)
def test_a_rolling_restart_loses_nothing_and_runs_nothing_twice(own_folder: Path) -> None:
    """Six workers end by SIGTERM under load; every job runs exactly once, every exit code is 0."""
    url = f"sqlite:///{own_folder}/rolling.db"
    broker = SQLiteBroker(url)
    client = goose.Client(broker)
    names = [f"j{n}" for n in range(6_000)]

    with Fleet(own_folder, url, ["--concurrency", "4", "--grace", "10"]) as fleet:
        codes = []
        for start in range(0, 6_000, 1_000):
            client.enqueue_many(jobs.work, [(name, 0.01) for name in names[start : start + 1_000]])
            fleet.start()
            wait_until(
                lambda: len(fleet.living()) < 2 or bool(fleet.children(fleet.living()[-1])),
                20,
                "it works",
            )
            wait_until(lambda seen=start: len(read_marks(fleet.marks)) > seen // 2, 30, "jobs run")
            if len(fleet.living()) > 1:
                oldest = fleet.living()[0]
                oldest.send_signal(signal.SIGTERM)
                codes.append(oldest.wait(30))
        wait_until(lambda: left(broker) == 0, 60, "everything drains")
        codes += fleet.stop()
        runs = read_marks(fleet.marks)
    broker.close()
    verdict = check(names, runs, [])

    assert {0} == set(codes)
    assert ([], 0, len(names)) == (verdict.lost, verdict.duplicates, len(runs))
