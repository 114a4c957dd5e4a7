"""The tables, and how they come into a file.

One row per stored job, in one of four states, each with its own small index, so that
changing state touches two indexes and a finished job leaves nothing behind. Instants are
whole microseconds since the epoch.

A lone enqueue waits for the disk, and the fewer pages it writes the shorter. So it stores a
*fresh* row, which is in no index yet: one page instead of three. Fresh rows are the last ones
of the table, and whoever writes next puts them in line first (`line.place_fresh`), as does
who looks at the line. Only then is it seen whether the id was stored already.

``at`` is since when a job is in its state, but for a loan, which keeps since when the job was
ready, beside ``lent_at``. ``rank`` is the place in the line, lowest first, ties by ``seq``. A ready job's rank is the
instant it became ready, or one more than the last of its queue if the wall clock went back;
a scheduled one's is its due instant, which it keeps when promoted. A loan keeps the rank,
so that a released job is in front again. Below zero are jobs prioritised by hand; from `TURNS` on
ranks are turns of groups.

A loan is known by ``(seq, receipt)``: receipts count up for the whole file and begin at
the microsecond of its creation, so that not even a file made anew repeats one.
"""

from __future__ import annotations

import sqlite3
import time

from goose.errors import BrokerError

VERSION = 3
"""Version of the tables this Goose makes and reads."""

SCHEDULED, READY, RUNNING, DEAD, FRESH = range(5)
"""States of a job; a fresh one is ready, and not in line yet."""
TURNS = 1 << 61
"""The lowest rank that is in a turn and no instant, see `goose.brokers.sqlite.line`."""
TURN = 1 << 20
"""Ranks in one turn."""
LIVE, LOST, GONE = range(3)
"""States of a session: beating, held for dead with loans left, only its name remembered."""

_TABLES = """
CREATE TABLE IF NOT EXISTS {p}jobs (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    queue TEXT NOT NULL,
    state INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    at INTEGER NOT NULL,
    holder INTEGER,
    receipt INTEGER,
    lent_at INTEGER,
    grp TEXT,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS {p}jobs_id ON {p}jobs (id) WHERE state < 4;
CREATE INDEX IF NOT EXISTS {p}jobs_scheduled ON {p}jobs (queue, rank) WHERE state = 0;
CREATE INDEX IF NOT EXISTS {p}jobs_ready ON {p}jobs (queue, rank) WHERE state = 1;
CREATE INDEX IF NOT EXISTS {p}jobs_turns ON {p}jobs (queue, grp, rank)
    WHERE state = 1 AND rank >= {t};
CREATE INDEX IF NOT EXISTS {p}jobs_running ON {p}jobs (holder) WHERE state = 2;
CREATE INDEX IF NOT EXISTS {p}jobs_dead ON {p}jobs (queue, rank) WHERE state = 3;
CREATE TABLE IF NOT EXISTS {p}sessions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    state INTEGER NOT NULL,
    deadline REAL NOT NULL,
    boot TEXT NOT NULL,
    namespace INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    started INTEGER NOT NULL,
    ended_at INTEGER,
    UNIQUE (id, epoch)
);
CREATE TABLE IF NOT EXISTS {p}meta (version INTEGER NOT NULL, receipts INTEGER NOT NULL)
"""


def prefix(namespace: str) -> str:
    """Return what the names of the tables of *namespace* begin with."""
    return f"goose_{namespace}_" if namespace else "goose_"


def script(namespace: str) -> str:
    """Return the statements that make the tables of *namespace* from nothing."""
    p = prefix(namespace)
    first = (
        f"INSERT INTO {p}meta VALUES ({VERSION}, CAST(strftime('%s', 'now') AS INTEGER) * 1000000)"
    )
    return f"{_TABLES.format(p=p, t=TURNS).strip()};\n{first};\n"


def is_present(connection: sqlite3.Connection | sqlite3.Cursor, namespace: str) -> bool:
    """Return whether the tables are there and complete."""
    p = prefix(namespace)
    found = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (f"{p}meta",)
    ).fetchone()
    if not found:
        return False
    (version,) = connection.execute(f"SELECT max(version) FROM {p}meta").fetchone()
    if version is not None and version > VERSION:
        raise BrokerError(
            f"the tables {p}* are of version {version}, this Goose knows {VERSION}: "
            "upgrade goose-jobs in every program that uses the file"
        )
    if version is not None and version < VERSION:
        raise BrokerError(
            f"the tables {p}* are of version {version}, made before the first release; this Goose "
            f"knows {VERSION}: take another file"
        )
    return version is not None


def migrate(connection: sqlite3.Connection, namespace: str) -> None:
    """Make the tables, inside the open transaction of *connection*; harmless if they are there."""
    if is_present(connection, namespace):
        return
    p = prefix(namespace)
    for statement in _TABLES.format(p=p, t=TURNS).split(";"):
        connection.execute(statement)
    connection.execute(f"INSERT INTO {p}meta VALUES (?, ?)", (VERSION, time.time_ns() // 1000))
