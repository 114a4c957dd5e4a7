"""What every part of the broker stands on: its options, statements and calls of the database.

A call is one statement, which the server carries out whole or not at all, in a transaction
of its own. What to do when it fails is `faults`' to say. The first call looks at the
server and makes the tables if they are missing.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from goose.brokers.dangers import tell_again
from goose.brokers.postgres import checks, schema
from goose.brokers.postgres.connections import Connection, Connections, Row
from goose.brokers.postgres.faults import CAUGHT, MISSING, Remedy, judge, translated
from goose.brokers.postgres.floors import Floors
from goose.brokers.postgres.notices import Bell, Ear
from goose.brokers.postgres.options import read
from goose.brokers.postgres.statements import script, statement
from goose.brokers.postgres.waiting import Sleepers
from goose.errors import BrokerError
from goose.jobs import Envelope

T = TypeVar("T")
logger = logging.getLogger("goose.brokers.postgres")
DEFAULT_URL = "postgresql://localhost:5432/postgres"
_AGAIN = 2.0
"""Seconds for which what did certainly not happen is tried again; a deadlock takes one to be seen."""
_PAUSE = 0.05
"""Seconds between such tries at most; by chance, so that two who collided part."""


class Access:
    """Connects at the first use; the parts of the broker derive from it."""

    needs = 1
    """The version of the tables without which it cannot work; what needs more says so."""

    def __init__(self, place: str | None = None, **given: Any) -> None:
        self.options = read(place or DEFAULT_URL, given)
        self._connections = Connections(self.options)
        self._sleepers = Sleepers()
        self._floors = Floors()
        quiet = self.options.notify == "off"
        self._bell = None if quiet else Bell(self._connections, self.options)
        self._ear = None if quiet else Ear(self._connections, self.options, self._sleepers)
        self._random = random.Random()
        self._starting = threading.Lock()
        self._started = False
        self._closed = False
        self._home = ""
        _all.add(self)

    def _start_afresh(self) -> None:
        """Forget, in a forked child, who held what in the parent."""
        self._starting = threading.Lock()
        self._floors = Floors()

    def close(self) -> None:
        """See `Broker.close`; ends every `dequeue` that blocks. The broker cannot be used again."""
        if self._closed:
            return
        self._closed = True
        self._sleepers.wake()
        for part in (self._ear, self._bell):
            if part is not None:
                part.close()
        self._connections.close()

    # --- tables --------------------------------------------------------------------------

    def migrate(self) -> None:
        """Make the tables, if they are not there; the first use does so too unless ``migrate=off``.

        Raises:
            BrokerError: The server refused; the message says what it lacks.
        """
        self._check_open()
        self._try(self._migrate, again=True)

    def migration(self) -> str:
        """Return the statements that make the tables, for a person to look at or to run."""
        return script(self.options.schema)

    def _migrate(self, _: Connection) -> None:
        connection = self._connections.connect()
        try:
            schema.migrate(connection, self.options.schema)
        finally:
            connection.close()

    def _start(self) -> None:
        """Look at the server and its tables, once."""
        with self._starting:
            if self._started:
                return
            found = self._try(self._look_at_server, again=True)
            if found < self.needs and self.options.migrate == "off":
                has = f"tables of version {found}, not {self.needs}," if found else "no tables"
                raise BrokerError(
                    f"PostgreSQL at {self.options.where} has {has} in the schema "
                    f"{self.options.schema}, and migrate=off: run `goose migrate`, as their owner"
                )
            if found < self.needs:
                self.migrate()
            self._started = True

    def _home_of_tables(self) -> str:
        """Return what tells the broker's tables from others of the same name."""
        if not self._home:
            [(self._home,)] = self._rows("home", {}, again=True)
        return self._home

    def _look_at_server(self, connection: Connection) -> int:
        """Return the version of the tables there."""
        rows = connection.execute(checks.LOOK, [list(checks.SETTINGS)]).fetchall()
        version = connection.info.server_version
        checks.check(self.options.where, version, dict(rows), strict=self.options.strict)
        return schema.version_of(connection, self.options.schema)

    # --- calls ---------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerError(
                f"the broker of PostgreSQL at {self.options.where} is closed; make another"
            )

    def _rows(
        self,
        verb: str,
        values: Mapping[str, Any],
        *,
        state: int | None = None,
        again: bool = False,
    ) -> list[Row]:
        """Run the statement named *verb* and return its rows.

        Args:
            verb: A file of ``sql/``.
            values: Its parameters.
            state: Of the jobs it is about, where it is made for one state.
            again: Whether it may be repeated when its outcome is unknown.
        """
        query = statement(verb, self.options.schema, state)

        def call(connection: Connection) -> list[Row]:
            cursor = connection.cursor(binary=True)
            cursor.execute(query, values)
            return cursor.fetchall()

        return self._call(call, again=again)

    def _run(
        self,
        verb: str,
        values: Mapping[str, Any],
        *,
        state: int | None = None,
        again: bool = False,
        jobs: Sequence[Envelope] = (),
    ) -> int:
        """As `_rows`; return how many rows it changed."""
        query = statement(verb, self.options.schema, state)
        return self._call(lambda c: c.execute(query, values).rowcount, again=again, jobs=jobs)

    def _call(
        self,
        call: Callable[[Connection], T],
        *,
        again: bool = False,
        jobs: Sequence[Envelope] = (),
    ) -> T:
        """Return what *call* does with a connection, to a server that was looked at once.

        Args:
            call: The call.
            again: Whether it may be repeated when its outcome is unknown.
            jobs: Those that are stored by it, of which the log then tells.
        """
        self._make_ready()
        return self._try(call, again=again, jobs=jobs)

    def _make_ready(self) -> None:
        self._check_open()
        if not self._started:
            self._start()

    def _try(
        self, call: Callable[[Connection], T], *, again: bool, jobs: Sequence[Envelope] = ()
    ) -> T:
        deadline = time.monotonic() + _AGAIN
        lost = False
        sent = False  # whether something of the call may have been
        while True:
            reached = False
            try:
                with self._connections.lend() as connection:
                    reached = True
                    return call(connection)
            except CAUGHT as error:
                remedy = judge(error).remedy
                sent = sent or reached
                if getattr(error, "sqlstate", None) in MISSING:
                    self._started = False  # somebody dropped the tables: the next call looks
                if remedy in (Remedy.RECONNECT, Remedy.LOST):
                    self._connections.drop()
                repeat = remedy in (Remedy.RETRY, Remedy.RECONNECT) and not lost
                if remedy is Remedy.LOST and again and not lost:
                    lost = repeat = True
                    tell_again(logger, [job.id for job in jobs])
                if not repeat or time.monotonic() > deadline:
                    raise self._said(error, unsent=not sent) from error
            time.sleep(self._random.uniform(0.0, _PAUSE))

    def _said(self, error: BaseException, *, unsent: bool = False) -> BrokerError:
        return translated(error, self.options.where, unsent=unsent)

    def _announce(self, queues: set[str], *, in_front: bool = True) -> None:
        """Wake whoever waits for jobs of *queues*, here and elsewhere."""
        if in_front:
            self._floors.clear(queues)
        self._sleepers.rouse(queues)
        if self._bell is not None:
            self._bell.ring(queues)


_all: weakref.WeakSet[Access] = weakref.WeakSet()


def _start_all_afresh() -> None:
    for access in list(_all):
        access._start_afresh()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_start_all_afresh)
