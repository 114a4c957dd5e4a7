"""A worker that moves jobs from an outbox to its broker, and runs them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import goose
from goose.brokers.memory import MemoryBroker
from goose.features.outbox import Database, Relay, Table
from goose.metrics.fanout import Fanout
from tests.features.outbox.test_relay import Counting
from tests.servers.redis import RedisServer

runs: list[str] = []


def note(name: str) -> None:
    runs.append(name)
    if "OUTBOX_TEST_NOTES" in os.environ:
        with Path(os.environ["OUTBOX_TEST_NOTES"]).open("a") as notes:
            notes.write(f"{name}\n")


@pytest.fixture
def outbox(own_folder: Path) -> Iterator[str]:
    """The URL of a database with an outbox, which is configured."""
    url = f"sqlite:///{own_folder}/app.db"
    table = Table(Database(url))
    table.migrate()
    table.database.close()
    goose.configure(outbox=url)
    yield url
    goose.configure()


def put(client: goose.Client, outbox: str, *names: str) -> None:
    """Enqueue jobs in a transaction, and commit it."""
    with closing(sqlite3.connect(outbox.removeprefix("sqlite:///"))) as connection:
        client.using(outbox=connection).enqueue_many(note, [(name,) for name in names])
        connection.commit()


def test_an_embedded_worker_moves_and_counts(outbox: str, wait_until: Callable[..., None]) -> None:
    """What a transaction has left in the outbox is moved, run, counted and measured."""
    runs.clear()
    counting = Counting()
    broker = MemoryBroker()
    client = goose.Client(broker)
    put(client, outbox, "before")
    with goose.Worker(broker, allow=[__name__], metrics=[counting]):
        wait_until(lambda: runs == ["before"])
        put(client, outbox, "while it runs")
        wait_until(lambda: runs == ["before", "while it runs"])
        wait_until(lambda: counting.sums.get(("outbox.moved", "default")) == 2)
    assert ("outbox.size", "default", "waiting") in counting.gauges
    # A worker that stops waits for its relay's farewell, but not for ever.
    with closing(sqlite3.connect(outbox.removeprefix("sqlite:///"))) as relays:
        wait_until(
            lambda: (
                relays.execute("SELECT expires_at FROM goose_outbox_relays").fetchall() == [(0,)]
            )
        )


@pytest.mark.processes
def test_worker_processes_move_too(
    outbox: str, own_folder: Path, root: Path, wait_until: Callable[..., None]
) -> None:
    """``goose worker`` whose settings name an outbox needs no other relay."""
    notes = own_folder / "notes"
    environ = {
        **os.environ,
        "GOOSE_BROKER": f"sqlite:///{own_folder}/jobs.db",
        "GOOSE_OUTBOX": outbox,
        "OUTBOX_TEST_NOTES": str(notes),
        "PYTHONPATH": str(root),
    }
    put(goose.Client("sqlite:///jobs.db"), outbox, "a", "b")
    command = [sys.executable, "-m", "goose", "worker", __name__, "--processes", "2"]
    worker = subprocess.Popen(command, env=environ, cwd=own_folder)
    try:
        wait_until(lambda: notes.exists() and len(notes.read_text().split()) == 2, seconds=40)
        worker.send_signal(signal.SIGTERM)
        assert 0 == worker.wait(30)
    finally:
        worker.kill()
        worker.wait()
    assert {"a", "b"} == set(notes.read_text().split())


def test_a_body_that_makes_a_real_server_hang_up(outbox: str, own_folder: Path) -> None:
    """Redis ends the connection over a body larger than it takes; the jobs around it are moved."""
    with RedisServer(
        own_folder / "redis", config={"save": "", "proto-max-bulk-len": "1mb"}
    ) as server:
        client = goose.Client(server.url)
        broker = client.broker
        big = "x" * 1_040_000
        put(client, outbox, "a")
        with closing(sqlite3.connect(outbox.removeprefix("sqlite:///"))) as connection:
            # Longer than the limit of an argument there: a job of another program's.
            bound = goose.Client(server.url, settings=goose.Settings(max_bytes=4_000_000))
            bound.using(outbox=connection).enqueue(note, big * 2)
            connection.commit()
        put(client, outbox, "b", "c")
        relay = Relay(broker, Table(Database(outbox)), metrics=Fanout())
        for _ in range(8):
            try:
                relay.move()
            except goose.BrokerError:
                continue
        found = client.inspector.queues()
        [figures] = Table(Database(outbox)).figures()
        relay.close()
        client.close()
    assert 3 == sum(sum(stats.counts.values()) for stats in found)
    assert (1, 1) == (figures.waiting, figures.refused)
