"""How far a long job has come, so that its next run goes on from there.

A function says `goose.Execution.checkpoint` with a *cursor*: any JSON from which it can go on. That is
stored when the call returns, under ``checkpoint:{ID}``, so it survives whatever ends the run: a
deploy, an error that is retried, a crash, a kill. The next run reads it as `Execution.cursor`.

It names the instant at which its job was enqueued, so a later job of the same id begins anew. It
goes when the job is done, skipped or cancelled by a process that has seen it; a dead job keeps it, so
that a replay goes on from there, and after `KEPT` it goes by itself.

The store is written and read on threads of this module's own: a timeout or a shutdown may interrupt
a function anywhere in its own thread, and must not do so in the midst of a connection's reply.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from goose._json import JSON, dump, parse
from goose.errors import BrokerError, Undecodable
from goose.jobs import Job
from goose.stores.base import MAX_VALUE, Delete, Get, Put, Store

KEPT = 30 * 86_400.0
"""Seconds for which a cursor is kept."""
MAX_CURSOR = 1 << 18
"""Bytes of an encoded cursor at most."""
KNOWN = 100_000
"""Jobs with a cursor that one process remembers; those that end elsewhere would be remembered for ever."""
THREADS = 4
IDLE = 60.0


class Checkpoints:
    """The cursors of jobs in one process. Thread-safe.

    Args:
        store: Returns where they are kept, or raises `Unsupported`.
        on_news: Called when there is something for `step` to do.
    """

    def __init__(
        self, store: Callable[[], Store], on_news: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self.on_news = on_news
        self.threads: Executor | None = None
        """Where the store is written and read; made when first needed, if nobody has put one here."""
        self._lock = threading.Lock()
        self._kept: set[str] = set()
        """Jobs that have a cursor, as far as this process knows."""
        self._over: set[str] = set()

    def save(self, job: Job[Any], cursor: JSON) -> Future[None]:
        """Keep *cursor* for the next run of *job*; the future ends when it is stored.

        Raises:
            ValueError: It is not JSON, or too large.
        """
        try:
            value = dump({"cursor": cursor, "enqueued_at": job.enqueued_at})
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"a cursor has to be JSON: {error}") from None
        if len(value) > MAX_CURSOR:
            raise ValueError(
                f"a cursor of {len(value):,} bytes is over the limit of {MAX_CURSOR:,}; keep the data "
                "elsewhere, and in the cursor where that is"
            )
        self._remember(job.id)
        return self._run(lambda: self._put(job.id, value))

    def load(self, job: Job[Any]) -> Future[JSON]:
        """Return what the last run of *job* kept, None if there is nothing, once the future ends."""
        return self._run(lambda: self._get(job))

    def _remember(self, id_: str) -> None:
        with self._lock:
            if len(self._kept) >= KNOWN:
                self._kept.pop()  # any; its cursor goes by itself in the end
            self._kept.add(id_)

    def ended(self, ids: Iterable[str]) -> None:
        """Note that these jobs need no cursor any more; `step` removes what there is."""
        if self._kept:
            with self._lock:
                over = self._kept.intersection(ids)
                self._kept -= over
                self._over |= over
            if over:
                self.on_news()

    def step(self, _now: float) -> float:
        """Remove the cursors of jobs that have ended; return the seconds until the next call.

        Raises:
            BrokerError: Some are still there; they are removed by a later call, or go by themselves.
        """
        while self._over:
            with self._lock:
                id_ = self._over.pop()
            try:
                self._store().apply([Delete(_key(id_))])
            except BrokerError:
                with self._lock:
                    self._over.add(id_)
                raise
        return IDLE

    def close(self) -> None:
        """Let go of the threads, whatever they do."""
        if self.threads is not None:
            self.threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, task: Callable[[], Any]) -> Future[Any]:
        with self._lock:
            if self.threads is None:
                self.threads = ThreadPoolExecutor(THREADS, "goose-checkpoint")
        return self.threads.submit(task)

    def _put(self, id_: str, value: bytes) -> None:
        self._store().apply([Put(_key(id_), value, KEPT)])

    def _get(self, job: Job[Any]) -> JSON:
        [value] = self._store().apply([Get(_key(job.id))])
        if value is None:
            return None
        self._remember(job.id)
        try:
            fields = parse(value, max_bytes=MAX_VALUE)
        except Undecodable:
            return None
        return fields.get("cursor") if fields.get("enqueued_at") == job.enqueued_at else None


def _key(id_: str) -> str:
    # Ids that others made may be longer than a key.
    return f"checkpoint:{id_ if len(id_) <= 200 else hashlib.sha256(id_.encode()).hexdigest()}"
