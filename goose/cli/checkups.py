"""The checks of ``goose doctor``. Each yields what it finds, and changes nothing anywhere."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from goose import brokers, metrics, middleware
from goose.brokers.base import Broker, Capability, Inspector, State
from goose.calls import Offer
from goose.cli import findings
from goose.cli.findings import Finding, Kind
from goose.errors import (
    BrokerError,
    ConfigError,
    GooseError,
    SignatureMismatch,
    UnknownFunction,
    Unsupported,
)
from goose.inspecting import Inspection, StoredJob
from goose.plugins import load
from goose.settings import Settings

SKEW = 2.0
"""Seconds by which clocks may differ."""
OLD = 3600.0
"""Seconds a job may be ready."""
SAMPLE = 10_000
"""Stored jobs that are looked at, at most."""
ROOM = 200 << 20
"""Bytes of disk below which it is nearly full; and of a write-ahead log above which it is large."""
DESCRIPTORS = 256
"""Open files below which there are few."""
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "lustre"}


def configuration(chosen: Settings) -> Iterator[Finding]:
    """Look at the settings, and at what they name."""
    if "broker" not in chosen.origins:
        yield Finding(findings.DEFAULT_BROKER, brokers.redact(str(chosen.broker)))
    if chosen.timeout and chosen.hard_timeout and chosen.timeout > chosen.hard_timeout:
        detail = f"timeout {chosen.timeout:g} s, hard_timeout {chosen.hard_timeout:g} s"
        yield Finding(findings.TIMEOUT_ABOVE_HARD, detail)
    parts: list[tuple[str, Any, Any]] = [
        *(("middleware", spec, middleware.connect) for spec in chosen.middleware),
        *(("before_enqueue", spec, _loaded) for spec in chosen.before_enqueue),
        *(("resources", spec, _loaded) for spec in chosen.resources),
        *(("metrics", spec, _metrics) for spec in (*chosen.metrics, *chosen.client_metrics)),
    ]
    for name, spec, connect in parts:
        try:
            connect(spec)
        except Exception as error:  # noqa: BLE001 - whatever a module of the user's raises
            yield Finding(findings.WRONG_PART, f"{name} {spec!r}: {_said(error)}", {"name": name})


def _loaded(spec: Any) -> None:
    if isinstance(spec, str):
        load(spec, kind="object")


def _metrics(spec: Any) -> None:
    if isinstance(spec, str) and spec.startswith("prometheus:"):
        return  # to try it would take the port from a worker that runs
    close = getattr(metrics.connect(spec), "close", None)
    if close is not None:
        close()


def environment(_chosen: Settings) -> Iterator[Finding]:
    """Look at what the process is given by the system."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < DESCRIPTORS:
        yield Finding(findings.FEW_DESCRIPTORS, f"{soft} may be open", {"limit": soft})


def modules(chosen: Settings) -> tuple[Offer | None, list[Finding]]:
    """Import the modules whose functions may run; return what they offer, and what is wrong."""
    if not chosen.allow:
        return None, [Finding(findings.UNNAMED_MODULES, "nothing is named")]
    offer = Offer(chosen.allow)
    try:
        offer.load()
    except ConfigError as error:
        return None, [Finding(findings.BAD_MODULE, str(error))]
    if not offer.functions():
        return offer, [Finding(findings.EMPTY_MODULE, ", ".join(chosen.allow))]
    return offer, []


# --- the broker ------------------------------------------------------------------------------


def broker(chosen: Settings) -> tuple[Broker | None, list[Finding]]:
    """Connect to the broker; return it, and what is wrong with it."""
    found: list[Finding] = []
    where = brokers.redact(chosen.broker) if isinstance(chosen.broker, str) else "the broker"
    try:
        made = brokers.connect(chosen.broker)
        if Capability.SHARED not in made.capabilities:
            return None, [Finding(findings.PRIVATE_BROKER, where)]
        if isinstance(made, Inspector):
            made.queues()
        else:
            found.append(Finding(findings.NO_INSPECTOR, where))
        found += _server(made)
    except (ConfigError, BrokerError) as error:
        return None, [*found, Finding(_trouble(error), f"{where}: {error}")]
    return made, found


def _trouble(error: GooseError) -> Kind:
    from goose.errors import BrokerUnavailable

    return findings.UNREACHABLE if isinstance(error, BrokerUnavailable) else findings.REFUSED


def _server(made: Broker) -> list[Finding]:
    """Look at the settings of the server behind *made*, if that is of a kind known here."""
    kind = type(made).__module__
    if kind.startswith("goose.brokers.redis"):
        return [*redis(made)]
    if kind.startswith("goose.brokers.sqlite"):
        return [*sqlite(made)]
    return []


def redis(made: Any) -> Iterator[Finding]:
    """Look at a Redis server."""
    link, key = made._ready(), made._keys.home.prefix  # noqa: SLF001 - the broker has no other door
    info = link.look(key)
    if not made._keys.clustered:  # noqa: SLF001 - a cluster has as many clocks as servers
        before = time.time()
        ((seconds, micros),) = link._insist(key, [(b"TIME",)], again=True)  # noqa: SLF001
        skew = int(seconds) + int(micros) / 1e6 - (before + time.time()) / 2
        if abs(skew) > SKEW:
            yield Finding(findings.CLOCK_SKEW, f"by {skew:+.1f} s", {"seconds": skew})
    version = info.get("redis_version", "")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < (6, 2):
        yield Finding(findings.REDIS_OLD, f"version {version or 'unknown'}")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Finding(findings.REDIS_EVICTS, f"maxmemory-policy is {policy}", {"policy": policy})
    if info.get("aof_enabled") == "0":
        saves = info.get("save")
        if saves == "":
            yield Finding(findings.REDIS_FORGETS, "no appendonly, no save")
        elif saves is not None:
            yield Finding(findings.REDIS_SNAPSHOTS, f"appendonly no, save {saves}")
    used, limit = _number(info, "used_memory"), _number(info, "maxmemory")
    if limit and used > 0.8 * limit:
        detail = f"{used >> 20:,} of {limit >> 20:,} MB"
        yield Finding(findings.REDIS_FULL, detail, {"used": used, "limit": limit})
    clients, most = _number(info, "connected_clients"), _number(info, "maxclients")
    if most and clients > 0.8 * most:
        detail = f"{clients:,} of {most:,}"
        yield Finding(findings.REDIS_CROWDED, detail, {"clients": clients, "limit": most})


def _number(info: Any, name: str) -> int:
    text = info.get(name, "0")
    return int(text) if text.isdigit() else 0


def sqlite(made: Any) -> Iterator[Finding]:
    """Look at an SQLite file and its disk."""
    if sqlite3.sqlite_version_info < (3, 35):
        yield Finding(findings.SQLITE_OLD, f"version {sqlite3.sqlite_version}")
    options = made.options
    path = Path(options.path).absolute()
    if options.synchronous == "normal":
        yield Finding(findings.SQLITE_NORMAL, str(path))
    kind = _file_system(path)
    if kind in _REMOTE:
        yield Finding(findings.SQLITE_NETWORK, f"{path} is on {kind}", {"file_system": kind})
    free = shutil.disk_usage(path.parent).free
    if free < ROOM:
        yield Finding(findings.SQLITE_SPACE, f"{free >> 20:,} MB are free", {"free": free})
    log = Path(f"{path}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size > ROOM:
        yield Finding(findings.SQLITE_LOG, f"{size >> 20:,} MB", {"size": size})


def _file_system(path: Path) -> str:
    """Return the kind of file system *path* is on; empty where that cannot be known."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    places = {line.split()[1].replace("\\040", " "): line.split()[2] for line in mounts}
    real = os.path.realpath(path)
    inside = [at for at in places if real.startswith(at.rstrip("/") + "/")]
    return places[max(inside, key=len)] if inside else ""


# --- what is stored --------------------------------------------------------------------------


def queues(chosen: Settings, inspection: Inspection) -> Iterator[Finding]:
    """Look at how full the queues are, and whether anybody is meant to empty them."""
    served = {share.queue for share in chosen.worker_queues}
    for stats in inspection.queues():
        waiting = sum(stats.counts.get(state, 0) for state in (State.READY, State.SCHEDULED))
        about = {"queue": stats.queue}
        if waiting and stats.queue not in served:
            detail = f"{waiting:,} in {stats.queue}"
            yield Finding(findings.UNSERVED_QUEUE, detail, {**about, "jobs": waiting})
        if stats.oldest is not None and stats.oldest > OLD:
            detail = f"the oldest in {stats.queue} for {stats.oldest / 3600:.1f} h"
            yield Finding(findings.OLD_JOBS, detail, {**about, "seconds": stats.oldest})
        if dead := stats.counts.get(State.DEAD):
            yield Finding(findings.DEAD_JOBS, f"{dead:,} in {stats.queue}", {**about, "jobs": dead})


def _seen(inspection: Inspection, state: State, queue: str, limit: int) -> Iterator[StoredJob]:
    """Yield jobs in *state*, none where the broker cannot show any."""
    with suppress(Unsupported):
        yield from inspection.find(state, queue, limit=limit)


def jobs(chosen: Settings, inspection: Inspection, offer: Offer | None) -> Iterator[Finding]:
    """Look at whether stored jobs can be run by the modules of *offer*."""
    served = {share.queue for share in chosen.worker_queues}
    unknown: Counter[str] = Counter()
    mismatched: Counter[tuple[str, str]] = Counter()
    broken: Counter[str] = Counter()
    seen = 0
    for queue in sorted(served):
        for state in (State.READY, State.SCHEDULED, State.RUNNING):
            for stored in _seen(inspection, state, queue, SAMPLE - seen):
                seen += 1
                if stored.job is None:
                    broken[stored.problem] += 1
                    continue
                if offer is None:
                    continue
                try:
                    offer.resolve(stored.job.fn).decode(stored.job.args, stored.job.kwargs)
                except UnknownFunction:
                    unknown[stored.job.fn] += 1
                except SignatureMismatch as error:
                    mismatched[stored.job.fn, str(error)] += 1
    for fn, count in unknown.most_common():
        yield Finding(
            findings.UNKNOWN_FUNCTION, f"{count:,} of {fn}", {"function": fn, "jobs": count}
        )
    for (fn, why), count in mismatched.most_common():
        yield Finding(
            findings.WRONG_ARGUMENTS,
            f"{count:,} of {fn}: {why}",
            {"function": fn, "jobs": count},
        )
    for why, count in broken.most_common():
        yield Finding(findings.UNDECODABLE, f"{count:,}: {why}", {"jobs": count})


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, GooseError) else f"{type(error).__name__}: {error}"
