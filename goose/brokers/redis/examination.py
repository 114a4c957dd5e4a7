"""What ``goose doctor`` finds about a Redis server. A server that does not let us look says nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from goose.brokers.examining import Examination, Finding, Kind
from goose.brokers.redis.checks import OLDEST
from goose.brokers.redis.links import Link

EVICTS = Kind(
    "G311", "error", "Redis may throw jobs away",
    "With an evicting maxmemory-policy keys are deleted when memory is short, jobs among them.",
    "CONFIG SET maxmemory-policy noeviction, and in redis.conf",
)  # fmt: skip
FORGETS = Kind(
    "G312", "error", "Redis keeps nothing on disk",
    "A restart forgets every job.",
    "appendonly yes, appendfsync everysec or always",
)  # fmt: skip
SNAPSHOTS = Kind(
    "G313", "warning", "Redis only takes snapshots",
    "A crash of the server loses what was stored since the last one: minutes.",
    "appendonly yes, appendfsync everysec or always",
)  # fmt: skip
OLD = Kind(
    "G314", "error", "Redis is too old",
    "Scripts use commands it does not know.",
    "use Redis 6.2 or later, or Valkey",
)  # fmt: skip
FULL = Kind(
    "G315", "warning", "Redis's memory is nearly full",
    "When it is full, nothing can be enqueued.",
    "raise maxmemory, or see what fills it",
)  # fmt: skip
CROWDED = Kind(
    "G316", "warning", "Redis has nearly as many clients as it takes",
    "Beyond maxclients connections are refused.",
    "raise maxclients, or lower the number of processes",
)  # fmt: skip
FAILS = Kind(
    "G317", "warning", "Redis's disk writes fail",
    "It refuses to store jobs until they work again, or will lose what it has.",
    "see the server's log: a full disk, most likely",
)  # fmt: skip
KINDS = (EVICTS, FORGETS, SNAPSHOTS, OLD, FULL, CROWDED, FAILS)
NEARLY = 0.8
"""The part of a limit from which on it is nearly reached."""


def examine(link: Link, key: str, *, clustered: bool) -> Examination:
    """Return what there is to say about the server of *key*."""
    info = link.look(key)
    ahead = None
    if not clustered:  # a cluster has as many clocks as servers
        before = time.time()
        at = link.time(key)
        ahead = at - (before + time.time()) / 2
    product = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    version = info.get("valkey_version") or info.get("redis_version") or "of unknown version"
    return Examination(f"{product} {version}", ahead, [*found(info)])


def found(info: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is wrong with a server of which INFO says *info*."""
    version = info.get("redis_version", "")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        yield Finding(OLD, f"version {version or 'unknown'}")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Finding(EVICTS, f"maxmemory-policy is {policy}", {"policy": policy})
    if info.get("aof_enabled") == "0":
        saves = info.get("save")
        if saves == "":
            yield Finding(FORGETS, "no appendonly, no save")
        elif saves is not None:
            yield Finding(SNAPSHOTS, f"appendonly no, save {saves}")
    used, limit = _number(info, "used_memory"), _number(info, "maxmemory")
    if limit and used > NEARLY * limit:
        detail = f"{used >> 20:,} of {limit >> 20:,} MB"
        yield Finding(FULL, detail, {"used": used, "limit": limit})
    clients, most = _number(info, "connected_clients"), _number(info, "maxclients")
    if most and clients > NEARLY * most:
        detail = f"{clients:,} of {most:,}"
        yield Finding(CROWDED, detail, {"clients": clients, "limit": most})
    failed = [
        name
        for name in ("aof_last_write_status", "rdb_last_bgsave_status")
        if info.get(name, "ok") != "ok"
    ]
    if failed:
        yield Finding(FAILS, ", ".join(f"{name} is {info[name]}" for name in failed))


def _number(info: Mapping[str, str], name: str) -> int:
    text = info.get(name, "0")
    return int(text) if text.isdigit() else 0
