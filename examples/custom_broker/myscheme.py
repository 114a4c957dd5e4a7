"""A broker for Goose in one file: all jobs in one JSON file that processes share.

``myscheme:///var/lib/app/jobs.json`` names the file. Every verb takes a lock, reads the
whole file, changes it in memory and puts a new file in its place in one step, so a process
may be killed at any moment and each job is still in exactly one state. That is slow with
many jobs, and easy to believe.

A job is a small record::

    {"queue", "body", "group", "due": epoch s, "place": n, "dead": bool,
     "holder": session or None, "receipt": n}

It is ready if it is due, not dead and has no holder; jobs are lent by due time, then by
place. So scheduling needs no promotion, and a released job, which keeps both, is back at
the front by itself. The loan's receipt counts up and never comes twice: a settle with
another one changes nothing.

Beside the nine verbs of a broker it has sessions, because several processes use it and one
of them may die. `Inspector` is left out: the file can be read with any tool for JSON.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from goose.brokers.base import Capability, Delivery, Session, Share, order
from goose.errors import BrokerError, BrokerUnavailable, ConfigError, SessionLost
from goose.jobs import Envelope

State = dict[str, Any]
Record = dict[str, Any]

LOOK_EVERY = 0.01
"""Seconds between two looks at the file while a dequeue waits."""
FORGET_AFTER = 86400.0
"""Seconds for which a session that has ended is remembered."""


class FileBroker:
    """Jobs in the JSON file that *url* names; it and its folder are made on first use."""

    capabilities = frozenset(Capability)

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.netloc or parts.path in ("", "/"):
            raise ConfigError(f"{url!r} names no file: write myscheme:///folder/jobs.json")
        options = dict(parse_qsl(parts.query))
        path, namespace = Path(unquote(parts.path)), options.pop("namespace", "")
        if options:
            raise ConfigError(f"{url!r} has options other than namespace: {', '.join(options)}")
        self._path = path.with_stem(f"{path.stem}-{namespace}") if namespace else path
        self._woken = threading.Event()

    # --- the file ------------------------------------------------------------------------

    @contextmanager
    def _state(self) -> Iterator[State]:
        """Lend the state under the lock, and store what became of it unless that raises."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The lock hangs on this opening, so it keeps out threads as well as processes.
            with self._path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                before = self._path.read_text() if self._path.exists() else ""
                state = json.loads(before) if before else {"jobs": {}, "sessions": {}, "count": 0}
                yield state
                after = json.dumps(state)
                if after != before:
                    self._replace(after)
        except OSError as error:
            raise BrokerUnavailable(f"{self._path} cannot be used: {error}") from error

    def _replace(self, text: str) -> None:
        new = self._path.with_suffix(".new")
        with new.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)  # a reader, or a crash, sees the old file or the new one
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    # --- storing -------------------------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        with self._state() as state:
            for envelope in envelopes:
                if envelope.id not in state["jobs"]:
                    store(state, envelope)

    schedule = enqueue  # an envelope without a time is due now

    # --- lending -------------------------------------------------------------------------

    def dequeue(
        self, session: Session, queues: Sequence[Share], *, limit: int, wait: float
    ) -> Sequence[Delivery]:
        names = order(queues, random.Random())
        gives_up = time.monotonic() + wait
        while True:
            seen = self._version()
            with self._state() as state:
                check(state, session)
                ready = [(i, r) for i, r in waiting(state, names) if r["due"] <= time.time()]
                if ready:
                    return [lend(state, i, record, session) for i, record in ready[:limit]]
                next_due = min((r["due"] for _, r in waiting(state, names)), default=float("inf"))
            while self._version() == seen and time.time() < next_due:
                if self._woken.wait(min(LOOK_EVERY, max(0.0, gives_up - time.monotonic()))):
                    self._woken.clear()
                    return []
                if time.monotonic() >= gives_up:
                    return []

    def _version(self) -> object:
        if not self._path.exists():
            return None
        stat = self._path.stat()
        return stat.st_ino, stat.st_mtime_ns  # numbers of removed files are used again

    # --- settling ------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        with self._state() as state:
            lost = []
            for delivery in deliveries:
                if give_back(state, delivery):
                    del state["jobs"][delivery.envelope.id]
                else:
                    lost.append(delivery)
            return lost

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        with self._state() as state:
            return [d for d in deliveries if not give_back(state, d)]

    def requeue(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        return self._replace_jobs(deliveries, dead=False)

    def bury(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        return self._replace_jobs(deliveries, dead=True)

    def _replace_jobs(
        self, deliveries: Sequence[tuple[Delivery, Envelope]], *, dead: bool
    ) -> Sequence[Delivery]:
        with self._state() as state:
            lost = []
            for delivery, envelope in deliveries:
                if give_back(state, delivery):
                    store(state, envelope, dead=dead)
                else:
                    lost.append(delivery)
            return lost

    # --- sessions ------------------------------------------------------------------------

    def open(self, session: Session, *, ttl: float) -> None:
        with self._state() as state:
            sessions, now = state["sessions"], time.time()
            for key in [k for k, s in sessions.items() if s["until"] < now - FORGET_AFTER]:
                if not any(r["holder"] == key for r in state["jobs"].values()):
                    del sessions[key]
            if session.key in sessions:
                raise BrokerError(f"session {session.key} exists or existed; open a later epoch")
            sessions[session.key] = {"until": now + ttl, "alive": True}

    def heartbeat(self, session: Session, *, ttl: float) -> None:
        with self._state() as state:
            check(state, session)["until"] = time.time() + ttl

    def end(self, session: Session) -> bool:
        with self._state() as state:
            if any(r["holder"] == session.key for r in state["jobs"].values()):
                return False
            if session.key in state["sessions"]:
                state["sessions"][session.key]["alive"] = False
            return True

    def recover(
        self, session: Session, *, limit: int, proven: bool = False, dead: Session | None = None
    ) -> Sequence[Delivery]:
        with self._state() as state:
            check(state, session)
            now = time.time()
            # Who is late itself has heard as little of the others as they of it.
            judges = dead is None and not proven and state["sessions"][session.key]["until"] > now
            for key, other in state["sessions"].items():
                silent = judges and other["until"] <= now
                if key != session.key and (silent or (dead and key == dead.key)):
                    other["alive"] = False
            gone = {key for key, other in state["sessions"].items() if not other["alive"]}
            if dead:
                gone &= {dead.key}
            return take_over(state, session, gone, limit)

    def held(self, session: Session) -> Sequence[Delivery]:
        with self._state() as state:
            check(state, session)
            own = [(i, r) for i, r in state["jobs"].items() if r["holder"] == session.key]
            return [loan(job_id, record, session) for job_id, record in own]

    def audit(self, session: Session, *, limit: int) -> Sequence[Delivery]:
        with self._state() as state:
            check(state, session)
            holders = {r["holder"] for r in state["jobs"].values() if r["holder"]}
            return take_over(state, session, holders - set(state["sessions"]), limit)

    # --- life ----------------------------------------------------------------------------

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """Nothing is held open between two calls."""


# What happens to the state, under the lock ---------------------------------------------------


def count(state: State) -> int:
    """Return a number that was never returned before."""
    state["count"] += 1
    return int(state["count"])


def store(state: State, envelope: Envelope, *, dead: bool = False) -> None:
    now = time.time()
    due = now if envelope.due_at is None else max(now, envelope.due_at)
    state["jobs"][envelope.id] = {
        "queue": envelope.queue,
        "body": base64.b64encode(envelope.body).decode(),
        "group": envelope.group,
        "due": due if envelope.delay is None else now + envelope.delay,
        "place": count(state),
        "dead": dead,
        "holder": None,
        "receipt": 0,
    }


def waiting(state: State, queues: Iterable[str]) -> list[tuple[str, Record]]:
    """Return the jobs that nobody holds, queue by queue, each in its order."""
    rank = {queue: number for number, queue in reversed(list(enumerate(queues)))}
    found = [
        (i, r)
        for i, r in state["jobs"].items()
        if r["queue"] in rank and not r["dead"] and r["holder"] is None
    ]
    return sorted(
        found, key=lambda item: (rank[item[1]["queue"]], item[1]["due"], item[1]["place"])
    )


def check(state: State, session: Session) -> Record:
    """Return the living session's record; in the same step as whatever is done with it."""
    record: Record | None = state["sessions"].get(session.key)
    if record is None or not record["alive"]:
        raise SessionLost(f"session {session.key} is dead or was never opened")
    return record


def lend(
    state: State, job_id: str, record: Record, session: Session, orphan_of: Session | None = None
) -> Delivery:
    record["holder"], record["receipt"] = session.key, count(state)
    return loan(job_id, record, session, orphan_of)


def loan(
    job_id: str, record: Record, session: Session, orphan_of: Session | None = None
) -> Delivery:
    body = base64.b64decode(record["body"])
    envelope = Envelope(job_id, record["queue"], body, group=record["group"])
    return Delivery(envelope, record["receipt"], session, record["due"], orphan_of)


def give_back(state: State, delivery: Delivery) -> bool:
    """End a loan, if it is still good: its receipt is the job's, and its session lives."""
    record = state["jobs"].get(delivery.envelope.id)
    if record is None or record["holder"] is None or record["receipt"] != delivery.receipt:
        return False
    if not state["sessions"].get(record["holder"], {"alive": False})["alive"]:
        return False
    record["holder"] = None
    return True


def take_over(state: State, session: Session, gone: set[str], limit: int) -> list[Delivery]:
    orphans = [(i, r) for i, r in state["jobs"].items() if r["holder"] in gone][:limit]
    found = []
    for i, record in orphans:
        name, _, epoch = record["holder"].rpartition("/")
        found.append(lend(state, i, record, session, Session(name, int(epoch))))
    return found
