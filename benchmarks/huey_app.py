"""The peer: huey on SQLite, with results off and every commit synced, as Goose's default is.

``BENCH_DB`` names the database file.
"""

from __future__ import annotations

import os

import work
from huey import SqliteHuey

huey = SqliteHuey(
    "bench",
    filename=os.environ["BENCH_DB"],
    results=False,
    fsync=True,
    journal_mode="wal",
)

noop = huey.task()(work.noop)
mark = huey.task()(work.mark)
stamp = huey.task()(work.stamp)
