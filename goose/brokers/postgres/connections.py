"""Connections to one database, lent to one call at a time, each of which ends in time.

They are made where they are needed, in the caller's thread, so that an error of connecting is
the caller's to see, and that the first call after an outage finds the server. The driver's
own pool would connect in threads of its own, after growing pauses, and those threads do not
survive a fork. One that lay idle is looked at before it is lent: if the server closed it, it
is left.

No answer is waited for longer than the timeout: the server gives up first (a lock after half
of it, a statement after nine tenths) and says so, and where the server does not even do that
the connection is closed and the outcome is unknown.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from math import ceil
from typing import Any, TypeVar, cast

import psycopg

from goose.brokers.pooling import Loan, Pool
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


class _Lent:
    """A loan for a block. Not a generator, which would give back when the collector finds it."""

    __slots__ = ("_connections", "_loan")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def __enter__(self) -> Connection:
        self._loan = self._connections.take()
        return self._loan.connection

    def __exit__(self, *_: object) -> None:
        self._connections.give(self._loan)


class Connections:
    """The connections of this process to one database. Thread-safe."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._pool = Pool(options.pool, partial(_connect, options), forsake)

    def lend(self) -> AbstractContextManager[Connection]:
        """Lend a connection, in no transaction, for the block; a broken one is closed after it.

        Raises:
            BrokerUnavailable: All are in use, and stay so.
            psycopg.Error: It could not be made.
        """
        return _Lent(self)

    def take(self) -> Loan[Connection]:
        """Return a loan with a connection, which must be given back; raises as `lend`."""
        options = self._options
        loan = self._pool.take(options.timeout)
        if loan is None:
            raise BrokerUnavailable(
                f"all {options.pool} connections to PostgreSQL at {options.where} were in use "
                f"for {options.timeout:g} s; raise pool="
            )
        try:
            if is_stale(loan.connection):
                _end(loan.connection)
                loan.connection = self.connect()
        except BaseException:
            _end(loan.connection)
            self._pool.give(loan, keep=False)
            raise
        return loan

    def give(self, loan: Loan[Connection]) -> None:
        """Take back a loan; a connection that is broken, or in a transaction, is closed."""
        connection = loan.connection
        usable = connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if not usable:
            _end(connection)
        if not self._pool.give(loan, keep=usable) and usable:
            _end(connection)

    def connect(self) -> Connection:
        """Make a connection of one's own, which this object will not know."""
        return _connect(self._options)

    def drop(self) -> None:
        """Close those that are idle: the server they lead to is gone, or is another."""
        for connection in self._pool.drop():
            _end(connection)

    def close(self) -> None:
        """Close those that are idle now, and the others when they are given back."""
        for connection in self._pool.close():
            _end(connection)


def _connect(options: Options) -> Connection:
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
