"""What queues did over a period: added up by workers, read from the store."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from goose.errors import BrokerUnavailable, ConfigError
from goose.features.activity import Activity, read
from goose.features.activity.numbers import SLOT, Numbers, load
from goose.metrics import connect
from goose.metrics.base import DEAD, EXECUTION_TIME, PROCESSED, RETRIED, SUCCEEDED, Metrics
from goose.stores.memory import MemoryStore


class Clock:
    """Turned by hand."""

    now = 1_000_000.0 * SLOT

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The store's."""
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    """An empty one."""
    return MemoryStore(clock=clock)


def ran(activity: Activity, queue: str, times: list[float], *, retried: int = 0) -> None:
    """Count runs that took so long."""
    tags = {"queue": queue, "function": "app:f"}
    activity.timings(EXECUTION_TIME, times, tags)
    activity.increment(PROCESSED, len(times), tags)
    activity.increment(RETRIED, retried, tags)
    activity.increment(SUCCEEDED, len(times) - retried, tags)


def test_percentiles_are_right_to_five_percent() -> None:
    """Whatever the times are, a percentile differs from the exact one by less than a twentieth."""
    chance = random.Random(1)
    times = sorted(chance.lognormvariate(-3, 2) for _ in range(5000))
    numbers = Numbers()
    for one in times:
        numbers.time(one)

    for part in (0.5, 0.95, 0.99):
        exact = times[round(part * len(times)) - 1]
        found = numbers.percentile(part)
        assert found is not None
        assert 0.05 > abs(found / exact - 1), part
    assert numbers.dump() == load(numbers.dump()).dump()


def test_several_processes_add_up(store: MemoryStore) -> None:
    """What each counted is in the sum, however they come between each other."""
    backends = [Activity(open_store=lambda: store) for _ in range(4)]

    def work(activity: Activity) -> None:
        for _ in range(20):
            ran(activity, "mail", [0.1, 0.2], retried=1)
            while not activity.flush():
                pass

    threads = [threading.Thread(target=work, args=(one,)) for one in backends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    [mail] = read(store)
    assert (160, 80, 80, 0) == (mail.processed, mail.retried, mail.succeeded, mail.dead)
    assert 50.0 == mail.retried_percent
    assert mail.p50 == pytest.approx(0.1, rel=0.05)


def test_a_period_ends_and_begins(store: MemoryStore, clock: Clock) -> None:
    """Only what happened in the period counts, to a slot; each queue is apart."""
    activity = Activity(open_store=lambda: store)
    for number in range(10):
        ran(activity, "mail", [1.0] * (number + 1))
        if number == 9:
            ran(activity, "bills", [2.0])
            activity.increment(DEAD, 1, {"queue": "bills"})
        assert activity.flush()
        clock.now += SLOT
    clock.now -= SLOT

    bills, mail = read(store, period=2 * SLOT)
    assert ("bills", 1, 1) == (bills.queue, bills.processed, bills.dead)
    assert ("mail", 8 + 9 + 10) == (mail.queue, mail.processed)
    assert 55 == read(store, period=100 * SLOT)[1].processed


def test_what_cannot_be_stored_waits(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is away numbers are kept, and stored once when it is back."""
    activity = Activity(open_store=lambda: store)
    ran(activity, "mail", [1.0])
    with monkeypatch.context() as away:

        def refuse(_: object) -> None:
            raise BrokerUnavailable("no answer")

        away.setattr(store, "apply", refuse)
        assert not activity.flush()
    ran(activity, "mail", [1.0])
    assert activity.flush()

    [mail] = read(store)
    assert 2 == mail.processed


def test_it_is_a_metrics_backend(store: MemoryStore) -> None:
    """It is named by a URL, stores by itself, and what is wrong with the URL is said."""
    assert isinstance(connect("activity://?every=1s&keep=1h"), Metrics)
    backend = Activity("activity://?every=20ms", open_store=lambda: store)
    ran(backend, "mail", [1.0])
    deadline = time.monotonic() + 10
    while not read(store):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    backend.close()
    with pytest.raises(ConfigError, match="no option of activity"):
        Activity("activity://?evry=1s")
    with pytest.raises(ConfigError, match="above 0"):
        Activity("activity://?keep=0s")


def test_what_it_cannot_read_is_nothing(store: MemoryStore) -> None:
    """A value that somebody else wrote counts as none."""
    store.put("activity:{mail}:0001000000", b"nonsense")
    store.put("activity:{mail}:0001000001", b'{"times": 1}')

    assert [0] == [one.processed for one in read(store)]


@pytest.mark.processes
@pytest.mark.timeout(240)
def test_a_worker_records_for_goose_queues(own_folder: Path) -> None:
    """What a worker ran is shown by ``goose queues --stats``, for people and as JSON."""
    (own_folder / "app.py").write_text("def work(n):\n    assert n != 2\n")
    script = (
        "import goose, app; once = goose.using(retry=goose.Retry(max_retries=0));"
        "once.enqueue_many(app.work, [(n,) for n in range(4)])"
    )
    environ = os.environ | {"GOOSE_BROKER": f"sqlite:///{own_folder}/jobs.db"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=own_folder,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout

    run("-c", script)
    run("-m", "goose", "worker", "app", "--until-empty", "--metrics", "activity://")

    [told] = json.loads(run("-m", "goose", "queues", "--stats", "--json"))
    assert ("default", 4, 3, 0, 1) == (
        told["queue"], told["processed"], told["succeeded"], told["retried"], told["died"],
    )  # fmt: skip
    assert 1 == told["dead"]
    assert told["p50"] > 0
    assert "0.0 %" in run("-m", "goose", "queues", "--stats")
