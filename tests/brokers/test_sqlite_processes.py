"""Several processes on one file: nothing lost, nothing doubled, nobody locked out."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from goose.brokers.base import Session, Share, State
from goose.brokers.sqlite import SQLiteBroker
from goose.brokers.sqlite import broker as broker_module
from goose.jobs import Envelope

PRELUDE = """
import sys, time
from goose.brokers.base import Session, Share
from goose.brokers.sqlite import SQLiteBroker
from goose.jobs import Envelope
path, me = sys.argv[1], sys.argv[2]
broker = SQLiteBroker(path)
"""

WRITE_AND_TAKE = (
    PRELUDE
    + """
session = Session(me)
broker.open(session, ttl=60)
for number in range(30):
    broker.enqueue([Envelope(f"{me}-{number}-{n}", "mail", b"x") for n in range(3)])
    for delivery in broker.dequeue(session, [Share("mail")], limit=3, wait=0):
        print(delivery.envelope.id)
        assert not broker.ack([delivery])
    broker.heartbeat(session, ttl=60)
    broker.promote_due(limit=10)
while lent := broker.dequeue(session, [Share("mail")], limit=5, wait=0.2):
    for delivery in lent:
        print(delivery.envelope.id)
    assert not broker.ack(lent)
"""
)

WRITE_FOR_EVER = (
    PRELUDE
    + """
number = 0
while True:
    names = [f"{me}-{number}-{n}" for n in range(20)]
    broker.enqueue([Envelope(name, "mail", b"x" * 2000) for name in names])
    print(*names, flush=True)
    number += 1
"""
)

ENQUEUE_WHEN_TOLD = (
    PRELUDE
    + """
broker.migrate()
print("ready", flush=True)
for line in sys.stdin:
    broker.enqueue([Envelope(line.strip(), "mail", repr(time.time()).encode())])
"""
)


@contextmanager
def program(source: str, path: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """Run *source* in a process of its own, which ends with the block."""
    with subprocess.Popen(
        [sys.executable, "-c", source, str(path), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def integrity(path: Path) -> str:
    """Return what SQLite says of the file: ``ok`` or what is broken."""
    connection = sqlite3.connect(path)
    (told,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return str(told)


def test_eight_processes_share_a_file(tmp_path: Path) -> None:
    """All begin on a file that is not there yet; each job is taken once, and no lock is seen."""
    path = tmp_path / "jobs.db"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE_AND_TAKE, str(path), f"p{number}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    taken: list[str] = []
    for process in processes:
        out, errors = process.communicate(timeout=60)
        assert "" == errors
        taken += out.split()
    stored = [f"p{p}-{number}-{n}" for p in range(8) for number in range(30) for n in range(3)]
    assert sorted(stored) == sorted(taken)
    broker = SQLiteBroker(path)
    assert [] == list(broker.queues())
    broker.close()
    assert "ok" == integrity(path)


def test_a_kill_amid_writes_loses_nothing(tmp_path: Path) -> None:
    """However often a writer is killed, what it was told is stored is there, and the file is sound."""
    path = tmp_path / "jobs.db"
    chance = random.Random(2)
    told: set[str] = set()
    for turn in range(4):
        with program(WRITE_FOR_EVER, path, f"turn-{turn}") as process:
            assert process.stdout is not None
            told |= set(process.stdout.readline().split())
            time.sleep(chance.uniform(0, 0.1))  # any moment will do
            process.send_signal(signal.SIGKILL)
            # The last line may be cut short; a batch is told whole or not at all.
            lines = process.stdout.read().splitlines(keepends=True)
            told |= {name for line in lines if line.endswith("\n") for name in line.split()}
    broker = SQLiteBroker(path)
    session = Session("after")
    broker.open(session, ttl=60)
    found: set[str] = set()
    while lent := broker.dequeue(session, [Share("mail")], limit=500, wait=0):
        found |= {delivery.envelope.id for delivery in lent}
        broker.ack(lent)
    broker.close()
    assert told
    assert set() == told - found
    assert 0 == len(found) % 20, "a batch was stored in part"
    assert "ok" == integrity(path)


def test_a_killed_holder_is_proven_dead(tmp_path: Path) -> None:
    """The loans of a process that was killed are recovered at once, by pid and boot."""
    path = tmp_path / "jobs.db"
    broker = SQLiteBroker(path)
    broker.enqueue([Envelope("one", "mail", b"x")])
    holds = (
        PRELUDE
        + """
broker.open(Session(me), ttl=3600)
print(*[d.envelope.id for d in broker.dequeue(Session(me), [Share("mail")], limit=1, wait=0)])
sys.stdout.flush()
time.sleep(60)
"""
    )
    session = Session("after")
    broker.open(session, ttl=60)
    with program(holds, path, "holder") as process:
        assert process.stdout is not None
        assert "one" == process.stdout.readline().strip()
        assert [] == list(broker.recover(session, limit=10, proven=True))
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        orphans = broker.recover(session, limit=10, proven=True)
    assert [("one", Session("holder"))] == [(d.envelope.id, d.orphan_of) for d in orphans]
    broker.close()


def test_an_idle_worker_sees_other_processes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dequeue that waits for long lends another process's job in milliseconds, at little cost."""
    # As after a while without a job.
    monkeypatch.setattr(broker_module, "_WATCH_FIRST", broker_module._WATCH_LAST)
    path = tmp_path / "jobs.db"
    broker = SQLiteBroker(path)
    session = Session("worker")
    broker.open(session, ttl=60)
    took: list[float] = []
    with program(ENQUEUE_WHEN_TOLD, path, "client") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        for number in range(9):
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            (lent,) = broker.dequeue(session, [Share("mail")], limit=1, wait=10)
            took.append(time.time() - float(lent.envelope.body))
            broker.ack([lent])
    took.sort()
    assert took[4] < 0.020, f"half of them took over {took[4]:.3f} s"
    assert 0 == broker.count(State.RUNNING)
    cpu, begun = time.process_time(), time.monotonic()
    assert [] == list(broker.dequeue(session, [Share("mail")], limit=1, wait=0.5))
    share = (time.process_time() - cpu) / (time.monotonic() - begun)
    assert share < 0.10, f"an idle worker takes {share:.1%} of a CPU"
    broker.close()
