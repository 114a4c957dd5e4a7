"""What every part of the broker stands on: its options, clocks, statements and the file."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from goose.brokers.sqlite import host
from goose.brokers.sqlite.line import has_fresh, place_fresh
from goose.brokers.sqlite.options import read
from goose.brokers.sqlite.registry import leave, share
from goose.brokers.sqlite.rows import micros
from goose.brokers.sqlite.schema import script
from goose.brokers.sqlite.statements import Statements
from goose.brokers.sqlite.writer import Work
from goose.errors import BrokerError

T = TypeVar("T")


class Access:
    """Opens the file's shared writer and runs work on it; the parts of the broker derive from it."""

    def __init__(
        self,
        place: str | os.PathLike[str],
        *,
        wall: Callable[[], float] = time.time,
        uptime: Callable[[], float] = host.uptime,
        **options: object,
    ) -> None:
        self.options = read(place, options)
        self._wall = wall
        self._uptime = uptime
        self._statements = Statements.of(self.options.namespace)
        self._writer = share(self.options.path, self.options.synchronous)
        self._random = random.Random()
        self._closed = False

    def migrate(self) -> None:
        """Make the file and its tables, if they are not there; any first use does so too."""
        self._write(lambda _: None)

    def migration(self) -> str:
        """See `Migrating.migration`."""
        return script(self.options.namespace)

    def close(self) -> None:
        """See `Broker.close`; ends a `dequeue` that blocks. The broker cannot be used again."""
        if self._closed:
            return
        self._closed = True
        self._writer.sleepers.wake(self)
        leave(self._writer)

    def _now(self) -> int:
        return micros(self._wall())

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerError(f"the broker of {self.options.path} is closed; make another")

    def _write(self, work: Work[T], *, durable: bool = True, single: bool = False) -> T:
        """See `Writer.run`."""
        self._check_open()
        options = self.options
        return self._writer.run(
            work, options.namespace, options.timeout, durable=durable, single=single
        )

    def _change(self, work: Work[T], *, durable: bool = True) -> T:
        """As `_write`, for what adds, takes or removes jobs: fresh ones are put in line first."""

        def in_line(connection: sqlite3.Connection) -> T:
            place_fresh(connection.cursor(), self._statements)
            return work(connection)

        return self._write(in_line, durable=durable)

    def _read(self, query: Work[T]) -> T:
        self._check_open()
        return self._writer.read(query, self.options.namespace, self.options.timeout)

    def _look(self, query: Work[T]) -> T:
        """As `_read`, for what looks at jobs: fresh ones are put in line first."""
        if self._read(lambda c: has_fresh(c.cursor(), self._statements)):
            self._change(lambda _: None, durable=False)
        return self._read(query)

    def _next_receipt(self, cursor: sqlite3.Cursor) -> int:
        """Return a number no loan of this file ever had."""
        cursor.execute(self._statements.next_receipt)
        receipt: int = cursor.execute(self._statements.receipt).fetchone()[0]
        return receipt
