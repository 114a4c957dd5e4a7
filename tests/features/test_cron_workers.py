"""Workers fire cron entries: real processes that are killed, and the configuration's entries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import goose
from goose.brokers.memory import MemoryBroker
from goose.errors import ConfigError, Unsupported
from goose.stores.memory import MemoryStore
from goose.worker.embedded import Worker

ROOT = Path(__file__).parents[2]
APP = """
import os
from pathlib import Path
import goose

def note(word: str, *, copies: int = 1) -> None:
    due = goose.current().job.meta["cron_due"]
    with Path("runs").open("a") as file:
        file.write(f"{word} {due}\\n")
"""
EVERY_SECOND = """
broker = "{url}"
[cron.tick]
expression = "* * * * * *"
function = "tick_app:note"
args = ["tick"]
catch_up = "all"
"""


@pytest.mark.processes
@pytest.mark.parametrize("server", ["sqlite", "redis"])
def test_no_second_is_lost_when_workers_are_killed(
    server: str, own_folder: Path, wait_until: Callable[..., None], request: Any
) -> None:
    """Two workers fire every second, the first is killed, another comes: each second is one job.

    The kill may have one instant made twice and one job run twice, no more.
    """
    url = "sqlite:///jobs.db"
    if server == "redis":
        url = f"{request.getfixturevalue('redis_url')}?namespace=ticks"
    (own_folder / "tick_app.py").write_text(APP)
    (own_folder / "goose.toml").write_text(EVERY_SECOND.format(url=url))

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "goose", "worker", "tick_app", "--ttl", "2s"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (own_folder / "log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stderr=log)

    def runs() -> list[str]:
        path = own_folder / "runs"
        return path.read_text().splitlines() if path.exists() else []

    workers = [start(), start()]
    try:
        wait_until(lambda: len(set(runs())) >= 2, seconds=40)
        workers[0].send_signal(signal.SIGKILL)
        workers.append(start())
        seen = len(set(runs()))
        wait_until(lambda: len(set(runs())) >= seen + 3, seconds=40)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(20)

    counts = Counter(runs())
    dues = sorted(datetime.fromisoformat(run.split()[1]).timestamp() for run in counts)
    # The last ones may be on their way; before them there is no gap.
    assert [dues[0] + n for n in range(len(dues) - 2)] == dues[:-2]
    assert max(counts.values()) <= 2
    assert sum(count == 2 for count in counts.values()) <= 2


@pytest.fixture
def app(importable: Path) -> Path:
    """A folder with a module of jobs, where the configuration is read."""
    (importable / "cron_app.py").write_text(APP)
    (importable / "other_cron_app.py").write_text(APP)
    goose.configure()
    return importable


def test_an_embedded_worker_registers_what_is_configured(
    app: Path, wait_until: Callable[..., None]
) -> None:
    """Entries of goose.toml come into the store by themselves, with options and zone, and fire."""
    (app / "goose.toml").write_text(
        """
        [cron.often]
        expression = "* * * * * *"
        function = "cron_app:note"
        args = ["word"]
        kwargs = { copies = 2 }
        queue = "default"
        retry = { max_retries = 3 }
        timeout = "5m"

        [cron.daily]
        expression = "@daily"
        function = "cron_app:note"
        args = ["x"]
        timezone = "Europe/Berlin"
        catch_up = "skip"

        [cron.elsewhere]
        expression = "@daily"
        function = "not_here:note"
        """
    )
    broker = MemoryBroker()
    client = goose.Client(broker)
    with Worker(broker, allow=["cron_app"]):
        wait_until((app / "runs").exists, seconds=20)
        daily, often = client.crons.list()

    assert ("daily", "Europe/Berlin", "skip") == (daily.name, daily.timezone, daily.catch_up)
    assert ({"copies": 2}, 300.0, {"max_retries": 3}) == (
        often.job.kwargs,
        often.job.timeout,
        often.job.retry,
    )
    # Its store is closed with it, and that of the client is not.
    assert 2 == len(client.crons.list())


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('function = "cron_app:note"', "expression is missing"),
        ('expression = "@daily"', "function is missing"),
        ('expression = "@daily"\nfunction = "cron_app:nope"', "cron_app:nope"),
        ('expression = "@daily"\nfunction = "cron_app:note"\nargs = [1]', "word"),
        ('expression = "0 0 30 2 *"\nfunction = "cron_app:note"\nargs = ["x"]', "0 0 30 2"),
        ('expresion = "@daily"', "did you mean 'expression'"),
        (
            'expression = "@daily"\nfunction = "cron_app:note"\nargs = ["x"]\ncatch_up = "no"',
            "'skip'",
        ),
        ('expression = "@daily"\nfunction = "cron_app:note"\nargs = ["x"]\ntimeout = "x"', "5m"),
    ],
)
def test_a_wrong_entry_ends_the_start(app: Path, table: str, told: str) -> None:
    """What is wrong in a file is told by the start of a worker, with the file and the entry."""
    (app / "goose.toml").write_text(f"[cron.report]\n{table}\n")
    worker = Worker(MemoryBroker(), allow=["cron_app"])
    with pytest.raises(ConfigError, match=r"goose\.toml: cron\.report") as caught:
        worker.start()

    assert told in str(caught.value)


def test_the_setting_must_be_tables(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries come from a file, or as JSON from the environment; anything else is refused."""
    monkeypatch.setenv("GOOSE_CRON", '{"a": {"expression": "@daily"}}')
    assert {"a": {"expression": "@daily"}} == goose.settings.load().cron
    for wrong in ("[1]", '{"a": 1}', "x"):
        monkeypatch.setenv("GOOSE_CRON", wrong)
        with pytest.raises(ConfigError, match="GOOSE_CRON"):
            goose.settings.load()


def test_entries_without_a_store_end_the_start(app: Path) -> None:
    """Configured entries need a store; where none is configured a storeless broker is fine."""
    real = MemoryBroker()
    names = [name for name in dir(real) if not name.startswith("_") and name != "open_store"]
    storeless: Any = type("Storeless", (), {name: getattr(real, name) for name in names})()
    with Worker(storeless, allow=["cron_app"]) as worker:
        assert worker.is_empty()

    entry = '[cron.x]\nexpression = "@daily"\nfunction = "cron_app:note"\nargs = ["x"]\n'
    (app / "goose.toml").write_text(entry)
    goose.configure()
    worker = Worker(storeless, allow=["cron_app"])
    with pytest.raises(Unsupported, match="Storeless has no store"):
        worker.start()
    (app / "goose.toml").write_text(f'store = "memory://cron-apart"\n{entry}')
    goose.configure()
    deadline = time.monotonic() + 20
    with Worker(storeless, allow=["cron_app"]):
        while not MemoryStore("memory://cron-apart").scan("cron:"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
