"""Loads the Lua scripts: one file for each verb, each behind what all share.

A script is called by the SHA-1 of its text (EVALSHA). A server that does not know it, because
it was restarted, was told to forget, or is another one since a failover, says so and has
done nothing; then it is called once by its whole text (EVAL), which also makes it known.

A server whose memory is full refuses every write, also those that would make room. Since
version 7 a script may say that it is to run all the same: those that lend, settle and keep
sessions alive do, so that workers drain a full server.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

_FOLDER = files("goose.brokers.redis") / "lua"
_COMMON = (_FOLDER / "_common.lua").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Script:
    """One verb."""

    name: str
    text: bytes
    sha: bytes
    when_full: Script | None = None
    """The same for servers that let it run when their memory is full."""


WHEN_FULL = b"#!lua flags=allow-oom\n"


def _load(name: str, *, adds_jobs: bool = False) -> Script:
    text = f"{_COMMON}\n{(_FOLDER / f'{name}.lua').read_text('utf-8')}".encode()
    relaxed = None if adds_jobs else _script(name, WHEN_FULL + text, None)
    return _script(name, text, relaxed)


def _script(name: str, text: bytes, when_full: Script | None) -> Script:
    sha = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
    return Script(name, text, sha, when_full)


ACK = _load("ack")
BURY = _load("bury")
CLOCK = _load("clock")
DELETE = _load("delete")
DEQUEUE = _load("dequeue")
END = _load("end")
ENQUEUE = _load("enqueue", adds_jobs=True)
FIND = _load("find")
HEARTBEAT = _load("heartbeat")
INTER = _load("inter", adds_jobs=True)
KEEP = _load("keep", adds_jobs=True)
LAPSE = _load("lapse")
OPEN = _load("open")
PAGE = _load("page")
PRIORITISE = _load("prioritise")
PROMOTE = _load("promote")
PROMOTE_DUE = _load("promote_due")
PURGE = _load("purge")
RECOVER = _load("recover")
RELEASE = _load("release")
REPLAY = _load("replay", adds_jobs=True)
REQUEUE = _load("requeue")
SCAN = _load("scan")
SCHEDULE = _load("schedule", adds_jobs=True)
STATS = _load("stats")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Script))
"""Every script."""
