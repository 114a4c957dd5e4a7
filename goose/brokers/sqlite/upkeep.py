"""Upkeep: makes due jobs ready, and lets old dead ones go."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from goose.brokers.base import Promotion
from goose.brokers.sqlite.access import Access
from goose.brokers.sqlite.line import promote_due
from goose.brokers.sqlite.schema import DEAD, SCHEDULED
from goose.brokers.sqlite.statements import Inspection

_SLOW = 0.001
"""Seconds of counting dead jobs after which it pauses twenty times as long."""
_TRIM = 1000
"""Dead jobs dropped by one call at most."""


class Upkept(Access):
    """Implements `Upkeep`."""

    def __init__(self, place: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(place, **options)
        self._scheduled = Inspection.of(self.options.namespace, SCHEDULED)
        self._dead = Inspection.of(self.options.namespace, DEAD)
        self._next_trim = 0.0

    def promote_due(self, *, limit: int) -> Promotion:
        """See `Upkeep.promote_due`. `dequeue` promotes for itself, so this only keeps counts true."""
        now = self._now()
        promoted = 0
        if any(rank <= now for _, rank in self._read(self._dues)):
            promoted = self._change(lambda c: self._promote(c, limit), durable=False)
        trimmed = self._trim_if_needed(now)
        next_due = min((rank for _, rank in self._read(self._dues)), default=None)
        next_due_in = None if next_due is None else max(0.0, (next_due - self._now()) / 1e6)
        return Promotion(promoted, next_due_in, trimmed)

    def _dues(self, connection: sqlite3.Connection) -> list[tuple[str, int]]:
        """Return the queues with scheduled jobs, and when the first of each is due."""
        cursor = connection.cursor()
        queues = cursor.execute(self._scheduled.queues).fetchall()
        dues = []
        for (queue,) in queues:
            (rank,) = cursor.execute(self._statements.next_due, (queue,)).fetchone()
            if rank is not None:
                dues.append((queue, rank))
        return dues

    def _promote(self, connection: sqlite3.Connection, limit: int) -> int:
        cursor, now, promoted = connection.cursor(), self._now(), 0
        for queue, rank in sorted(self._dues(connection), key=lambda due: due[1]):
            if rank <= now and promoted < limit:
                promoted += promote_due(cursor, self._statements, queue, now, limit - promoted)
        return promoted

    # --- dead jobs -----------------------------------------------------------------------

    def _trim_if_needed(self, now: int) -> int:
        begun = time.monotonic()
        if begun < self._next_trim:
            return 0
        oldest = now - round(self.options.dead_max_age * 1e6)
        excess = self._read(lambda c: self._excess(c, oldest))
        took = time.monotonic() - begun
        self._next_trim = begun + 21 * took if took > _SLOW else 0.0
        return self._write(self._trim(excess)) if excess else 0

    def _excess(self, connection: sqlite3.Connection, oldest: int) -> list[tuple[str, int, int]]:
        """Return the queues with dead jobs to drop, and the place of the last to go."""
        cursor, found = connection.cursor(), []
        keep = self.options.dead_max_count
        for (queue,) in cursor.execute(self._dead.queues).fetchall():
            last = cursor.execute(self._dead.last_kept, (queue, keep)).fetchone()
            if cursor.execute(self._dead.is_old, (queue, oldest)).fetchone():
                last = max(last or (0, 0), (oldest, -1))
            if last:
                found.append((queue, *last))
        return found

    def _trim(self, excess: list[tuple[str, int, int]]) -> Callable[[sqlite3.Connection], int]:
        def work(connection: sqlite3.Connection) -> int:
            cursor, trimmed = connection.cursor(), 0
            for place in excess:
                if trimmed < _TRIM:
                    cursor.execute(self._dead.trim, (*place, _TRIM - trimmed))
                    trimmed += cursor.rowcount
            return trimmed

        return work
