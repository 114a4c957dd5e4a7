"""Loads the Lua scripts: one file for each verb, each behind what all share.

A script is called by the SHA-1 of its text (EVALSHA). A server that does not know it, because
it was restarted, was told to forget, or is another one since a failover, says so and has
done nothing; then it is called once by its whole text (EVAL), which also makes it known.
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


def _load(name: str) -> Script:
    text = f"{_COMMON}\n{(_FOLDER / f'{name}.lua').read_text('utf-8')}".encode()
    return Script(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


ACK = _load("ack")
BURY = _load("bury")
DELETE = _load("delete")
DEQUEUE = _load("dequeue")
END = _load("end")
ENQUEUE = _load("enqueue")
FIND = _load("find")
HEARTBEAT = _load("heartbeat")
INTER = _load("inter")
LAPSE = _load("lapse")
OPEN = _load("open")
PAGE = _load("page")
PRIORITISE = _load("prioritise")
PROMOTE = _load("promote")
PROMOTE_DUE = _load("promote_due")
PURGE = _load("purge")
RECOVER = _load("recover")
RELEASE = _load("release")
REPLAY = _load("replay")
REQUEUE = _load("requeue")
SCHEDULE = _load("schedule")
STATS = _load("stats")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Script))
"""Every script."""
