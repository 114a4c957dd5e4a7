"""What ``goose doctor`` finds about an SQLite file and the disk it is on."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from goose.brokers.examining import Examination, Finding, Kind
from goose.brokers.sqlite.options import Options

OLD = Kind(
    "G321", "error", "SQLite is too old",
    "Statements use what it does not know.",
    "use a Python with SQLite 3.35 or later",
)  # fmt: skip
NETWORK = Kind(
    "G322", "error", "the SQLite file is on a network file system",
    "Locks do not hold there, and the file breaks.",
    "put it on a local disk; for several machines use a server",
)  # fmt: skip
NORMAL = Kind(
    "G323", "note", "synchronous=normal",
    "A power cut may take the last moments; a crash of processes takes nothing.",
    "leave it out for full durability",
)  # fmt: skip
SPACE = Kind(
    "G324", "warning", "the disk of the SQLite file is nearly full",
    "When it is full, nothing can be enqueued or settled.",
    "make room",
)  # fmt: skip
LOG = Kind(
    "G325", "warning", "SQLite's write-ahead log is large",
    "Somebody holds a read transaction open, so the log cannot be taken back into the file.",
    "end that reader",
)  # fmt: skip
KINDS = (OLD, NETWORK, NORMAL, SPACE, LOG)
ROOM = 200 << 20
"""Bytes of disk below which it is nearly full; and of a write-ahead log above which it is large."""
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "lustre"}


def examine(options: Options) -> Examination:
    """Return what there is to say about the file of *options*; its clock is this machine's."""
    return Examination(f"SQLite {sqlite3.sqlite_version}", None, [*_found(options)])


def _found(options: Options) -> Iterator[Finding]:
    if sqlite3.sqlite_version_info < (3, 35):
        yield Finding(OLD, f"version {sqlite3.sqlite_version}")
    path = Path(options.path).absolute()
    if options.synchronous == "normal":
        yield Finding(NORMAL, str(path))
    kind = file_system(path)
    if kind in _REMOTE:
        yield Finding(NETWORK, f"{path} is on {kind}", {"file_system": kind})
    free = shutil.disk_usage(path.parent).free
    if free < ROOM:
        yield Finding(SPACE, f"{free >> 20:,} MB are free", {"free": free})
    log = Path(f"{path}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size > ROOM:
        yield Finding(LOG, f"{size >> 20:,} MB", {"size": size})


def file_system(path: Path) -> str:
    """Return the kind of file system *path* is on; empty where that cannot be known."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    places = {line.split()[1].replace("\\040", " "): line.split()[2] for line in mounts}
    real = os.path.realpath(path)
    inside = [at for at in places if real.startswith(at.rstrip("/") + "/")]
    return places[max(inside, key=len)] if inside else ""
