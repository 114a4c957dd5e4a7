"""``goose outbox``: make the table, look at it, and move what waits."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import goose
from goose.brokers.base import State
from goose.brokers.sqlite import SQLiteBroker


@pytest.fixture
def files(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose jobs go to one file and wait in another."""
    monkeypatch.setenv("GOOSE_BROKER", f"sqlite:///{own_folder}/jobs.db")
    monkeypatch.setenv("GOOSE_OUTBOX", f"sqlite:///{own_folder}/app.db")
    goose.configure()
    yield own_folder
    monkeypatch.undo()
    goose.configure()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run ``goose outbox``."""
    command = [sys.executable, "-m", "goose", "outbox", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_from_the_table_to_the_broker(files: Path) -> None:
    """The table is made, shows what waits, and is emptied into the broker."""
    assert "goose outbox migrate" in run("status").stderr or not (files / "app.db").exists()
    done = run("migrate")
    assert (0, True) == (done.returncode, "goose_outbox is there" in done.stderr), done.stderr
    with closing(sqlite3.connect(files / "app.db")) as connection:
        jobs = goose.using(outbox=connection).enqueue_many(json.dumps, [(1,), (2,)])
        connection.commit()
    [found] = json.loads(run("status", "--json").stdout)
    assert found.pop("oldest_seconds") >= 0
    assert {"queue": "default", "waiting": 2, "refused": 0, "problem": None} == found
    assert "default" in run("status").stdout

    done = run("relay", "--until-empty")
    assert 0 == done.returncode, done.stderr
    assert "moving jobs from" in done.stderr
    broker = SQLiteBroker(f"sqlite:///{files}/jobs.db")
    assert [job.id for job in jobs] == [each.envelope.id for each in broker.page(State.READY).items]
    broker.close()
    assert ([], "nothing waits") == (
        json.loads(run("status", "--json").stdout),
        run("status").stderr.partition(" in ")[0],
    )


def test_the_statements_can_be_looked_at(files: Path) -> None:
    """With --sql nothing is connected; what is printed makes the tables."""
    printed = run("migrate", "--sql", "--table", "mine").stdout
    assert not (files / "app.db").exists()
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(printed)
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert {"mine", "mine_relays", "mine_queue"} <= names


def test_what_is_missing_is_said(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL the setting is named, without a table the command, and no broker that forgets is served."""
    (files / "app.db").touch()
    done = run("relay")
    assert (4, True) == (done.returncode, "goose outbox migrate" in done.stderr), done.stderr
    done = run("relay", "--broker", "memory://")
    assert (2, True) == (done.returncode, "gone with this one" in done.stderr), done.stderr
    monkeypatch.delenv("GOOSE_OUTBOX")
    done = run("status")
    assert (2, True) == (done.returncode, "GOOSE_OUTBOX" in done.stderr), done.stderr
