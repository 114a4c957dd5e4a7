"""Connections to one database, lent to one call at a time, each of which ends in time.

They are made where they are needed, in the caller's thread, so that an error of connecting is
the caller's to see, and that the first call after an outage finds the server. The driver's
own pool would connect in threads of its own, after growing pauses, and those threads do not
survive a fork. One that lay idle is looked at before it is lent: if the server closed it, it
is left.

No answer is waited for longer than the timeout: the server gives up first (a lock after half
of it, a statement after nine tenths) and says so, and where the server does not even do that
the connection is closed and the outcome is unknown.

Nobody counts what is lent: a place is taken as long as somebody knows its loan. So a caller that is
interrupted as he takes a connection, or gives it back, costs nobody a place.

After a fork the child begins with none. Its copies of the inherited ones are closed without a
word to the server, so those of the parent go on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any, TypeVar, cast
from weakref import WeakSet

import psycopg

from goose.brokers.postgres.arrays import teach
from goose.brokers.postgres.faults import CAUGHT
from goose.brokers.postgres.options import Options
from goose.errors import BrokerUnavailable

T = TypeVar("T")
Row = tuple[Any, ...]
_SESSION = (
    "SET default_transaction_isolation = 'read committed';"
    "SET lock_timeout = {lock}; SET statement_timeout = {statement};"
    "SET idle_in_transaction_session_timeout = {idle};"
    # The right plans do not depend on how full the tables were when they were last looked at.
    "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off;"
    # Rows are locked in the order they are named in, which is that of their ids.
    "SET enable_hashjoin = off; SET enable_mergejoin = off;"
    "SET plan_cache_mode = force_generic_plan"
)
logging.getLogger("psycopg").addHandler(logging.NullHandler())


class Connection(psycopg.Connection[Row]):
    """A connection whose waits end."""

    patience = 4.0
    """Seconds to wait for an answer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._known: set[str] = set()

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """Wait for *gen* as the driver does, but no longer than `patience`."""
        return super().wait(_bounded(gen, time.monotonic() + self.patience), *args, **options)

    def run_quickly(self, name: str, query: bytes, values: Sequence[bytes | None]) -> None:
        """Run a statement that returns no rows, beside the driver's cursors, which cost more than it.

        Args:
            name: Under which the server keeps it prepared.
            query: With ``$1``, ``$2`` … for parameters.
            values: As binary, which of a text is its UTF-8.
        """
        if name not in self._known:
            self.pgconn.send_prepare(name.encode(), query)
            self._take_answer()
            self._known.add(name)
        self.pgconn.send_query_prepared(
            name.encode(), values, param_formats=[psycopg.pq.Format.BINARY] * len(values)
        )
        self._take_answer()

    def _take_answer(self) -> None:
        """Wait for the answer to what was sent, no longer than `patience`.

        Raises:
            psycopg.Error: The server refused, or did not answer in time.
        """
        deadline = time.monotonic() + self.patience
        answer = None
        while True:
            self._wait_for_input(deadline)
            result = self.pgconn.get_result()
            if result is None:  # the server waits for the next statement
                break
            answer = result
        if answer is None or answer.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(answer or psycopg.pq.PGresult())

    def _wait_for_input(self, deadline: float) -> None:
        """Send what is left to send, and wait until a result, or the end of them, is there."""
        pgconn, poller = self.pgconn, select.poll()
        while (sending := bool(pgconn.flush())) or pgconn.is_busy():
            poller.register(
                pgconn.socket, select.POLLIN | select.POLLOUT if sending else select.POLLIN
            )
            left = deadline - time.monotonic()
            if left <= 0:
                raise psycopg.OperationalError("no answer came in time")
            if any(event & ~select.POLLOUT for _, event in poller.poll(left * 1000)):
                pgconn.consume_input()


def _bounded(gen: Generator[Any, Any, T], deadline: float) -> Generator[Any, Any, T]:
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise psycopg.OperationalError("no answer came in time")
            wanted = gen.send(ready)
    except StopIteration as stop:
        return cast("T", stop.value)


class _Loan:
    """What one call has: a place among all, and the connection, unless that is still made."""

    __slots__ = ("__weakref__", "connection")

    def __init__(self) -> None:
        self.connection: Connection | None = None


class Connections:
    """The connections of this process to one database. Thread-safe."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._idle: list[_Loan] = []
        self._loans: WeakSet[_Loan] = WeakSet()
        """The idle ones, and those that somebody has. Not connections: an error may keep them."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def _check_process(self) -> None:
        if self._process != os.getpid():
            inherited = [loan.connection for loan in self._loans]
            self._begin()
            for connection in inherited:
                if connection is not None:
                    forsake(connection)

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """Lend a connection, in no transaction, for the block; a broken one is closed after it.

        Raises:
            BrokerUnavailable: All are in use, and stay so.
            psycopg.Error: It could not be made.
        """
        loan = self._take()
        try:
            yield self._connected(loan)
        finally:
            self._give(loan)

    def _take(self) -> _Loan:
        self._check_process()
        limit, patience = self._options.pool, self._options.timeout
        with self._lock:
            if not self._has_one() and not self._changed.wait_for(self._has_one, patience):
                raise BrokerUnavailable(
                    f"all {limit} connections to PostgreSQL at {self._options.where} were in use "
                    f"for {patience:g} s; raise pool="
                )
            if self._idle:
                return self._idle.pop()
            loan = _Loan()
            self._loans.add(loan)
            return loan

    def _has_one(self) -> bool:
        return bool(self._idle) or len(self._loans) < self._options.pool

    def _connected(self, loan: _Loan) -> Connection:
        connection = loan.connection
        if connection is not None and is_stale(connection):
            loan.connection = None
            _end(connection)
            connection = None
        if connection is None:
            connection = loan.connection = self.connect()
        return connection

    def _give(self, loan: _Loan) -> None:
        connection = loan.connection
        usable = (
            connection is not None
            and connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        )
        if connection is not None and not usable:
            _end(connection)
        with self._lock:
            # Asked under the lock: nobody would look into the idle ones after the close.
            late = self._closed
            if usable and not late:
                self._idle.append(loan)
            else:
                self._loans.discard(loan)  # an error that somebody keeps may know it
            self._changed.notify()
        if connection is not None and usable and late:
            _end(connection)

    def connect(self) -> Connection:
        """Make a connection of one's own, which this object will not know."""
        options = self._options
        pooled = options.notify == "off"
        parameters: dict[str, Any] = {
            **timeouts(options),
            **options.server,
            "prepare_threshold": None if pooled else 0,
        }
        connection = Connection.connect(autocommit=True, **parameters)
        try:
            connection.patience = options.timeout
            teach(connection.adapters)
            if not pooled:
                connection.execute(_session(options), prepare=False)
        except BaseException:
            _end(connection)
            raise
        return connection

    def drop(self) -> None:
        """Close those that are idle: the server they lead to is gone, or is another."""
        self._check_process()
        with self._lock:
            idle, self._idle = self._idle, []
            self._loans.difference_update(idle)
        for loan in idle:
            if loan.connection is not None:
                _end(loan.connection)

    def close(self) -> None:
        """Close those that are idle now, and the others when they are given back."""
        with self._lock:
            self._closed = True
        self.drop()


def timeouts(options: Options) -> Mapping[str, Any]:
    """Return libpq's parameters that bound how long nothing is heard."""
    milliseconds = str(max(1, round(options.timeout * 1000)))
    return {
        "connect_timeout": ceil(options.connect_timeout),
        # A peer that vanished without a word is noticed, also where nothing is being sent.
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": milliseconds,
    }


def _session(options: Options) -> bytes:
    milliseconds = options.timeout * 1000
    return _SESSION.format(
        lock=round(milliseconds * 0.5),
        statement=round(milliseconds * 0.9),
        idle=round(milliseconds * 2),
    ).encode()


def is_stale(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Return whether the server said something meanwhile, which can only be goodbye."""
    if connection.closed:
        return True
    poller = select.poll()
    poller.register(connection.pgconn.socket, select.POLLIN)
    return bool(poller.poll(0))


def _end(connection: Connection) -> None:
    with contextlib.suppress(*CAUGHT):
        connection.close()


_forsaken: list[object] = []
"""Kept, since the driver would complain of connections that are dropped while they seem open."""


def forsake(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Close this process's copy of a connection of the parent's."""
    _forsaken.append(connection)
    with contextlib.suppress(*CAUGHT):
        os.close(connection.pgconn.socket)
