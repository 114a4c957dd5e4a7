"""Connections to one server, lent to one call at a time.

They are made as a pool of redis-py would, which knows addresses, passwords, TLS and Sentinel,
and are kept here, since its own lending costs as much as a command. One that lay idle is looked
at before it is lent: if the server closed it, it connects again. Where a call may be
repeated the look is left out.

Nobody counts what is lent: a place is taken as long as somebody knows its `Loan`. So a caller
that is interrupted as he takes a connection, or gives it back, costs nobody a place.

After a fork the child begins with none. Its copies of the inherited ones are closed without a
word to the server, so those of the parent go on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias
from weakref import WeakSet

from redis.backoff import NoBackoff
from redis.connection import (
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from goose.brokers.redis.options import Options
from goose.errors import BrokerUnavailable

try:
    import hiredis
except ImportError:  # it comes with goose-jobs[redis], but nothing depends on it
    _pack = None
else:
    _pack = hiredis.pack_command

Request: TypeAlias = tuple[Any, ...]
"""A command and its arguments: bytes, text or numbers."""


class Loan:
    """What one call has: a connection, which may still have to connect, and a place among all."""

    __slots__ = ("__weakref__", "connection")

    def __init__(self, connection: Any) -> None:
        self.connection = connection


class Connections:
    """The connections of this process to one server. Thread-safe.

    Args:
        source: Makes them.
        limit: How many there may be.
        patience: Seconds to wait for one.
    """

    def __init__(self, source: ConnectionPool, limit: int, patience: float) -> None:
        said = source.connection_kwargs
        self.where = str(
            said.get("path") or f"{said.get('host', 'localhost')}:{said.get('port', 6379)}"
        )
        self._source = source
        self._limit = limit
        self._patience = patience
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._idle: list[Loan] = []
        self._loans: WeakSet[Loan] = WeakSet()
        """The idle ones, and those that somebody has. Not connections: they may be kept by themselves."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def take(self, *, look: bool) -> Loan:
        """Return a loan, which must be given back.

        Args:
            look: Whether to make sure that the server did not close it while it was idle.

        Raises:
            BrokerUnavailable: All are in use, and stay so.
        """
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            if not self._has_one() and not self._changed.wait_for(self._has_one, self._patience):
                raise BrokerUnavailable(
                    f"all {self._limit} connections to Redis at {self.where} were in use for "
                    f"{self._patience:g} s; raise pool="
                )
            if self._idle:
                loan = self._idle.pop()
            else:
                loan = Loan(self._source.connection_class(**self._source.connection_kwargs))
                self._loans.add(loan)
                look = False
        if look:
            try:
                _look(loan.connection)
            except BaseException:
                loan.connection.disconnect()
                self.give(loan)
                raise
        return loan

    def _has_one(self) -> bool:
        return bool(self._idle) or len(self._loans) < self._limit

    def spare(self, seconds: float) -> Any:
        """Return a connection beyond the limit, which waits for *seconds* at most at each step.

        It is not given back but disconnected.
        """
        settings: dict[str, Any] = dict(self._source.connection_kwargs)
        settings |= {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        return self._source.connection_class(**settings)

    def give(self, loan: Loan) -> None:
        """Take back a loan; all answers on its connection were read, or it is disconnected."""
        with self._lock:
            # Asked under the lock: nobody would look into the idle ones after the close.
            late = self._closed
            if not late:
                self._idle.append(loan)
            self._changed.notify()
        if late:
            loan.connection.disconnect()

    def drop(self) -> None:
        """Disconnect those that are idle."""
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            idle, self._idle = self._idle, []  # so that nobody takes one meanwhile
        for loan in idle:
            loan.connection.disconnect()

    def close(self) -> None:
        """Disconnect those that are idle now, and the others when they are given back."""
        with self._lock:
            self._closed = True
        self.drop()


def _look(connection: Any) -> None:
    try:
        if _is_connected(connection) and connection.can_read():
            connection.disconnect()  # what there is to read belongs to nobody
    except (RedisError, OSError):
        connection.disconnect()


def _is_connected(connection: Any) -> bool:
    try:
        return bool(connection.is_connected)
    except AttributeError:  # before redis-py 8
        return getattr(connection, "_sock", None) is not None


def ensure_connected(connection: Any) -> None:
    """Connect if need be; sending does so too, but not to the master that sentinels name."""
    if not _is_connected(connection):
        connection.connect()


def talk(connection: Any, requests: Sequence[Request]) -> list[Any]:
    """Send *requests* at once and return the answers, errors among them."""
    send(connection, requests)
    return receive(connection, len(requests))


def send(connection: Any, requests: Sequence[Request]) -> None:
    """Send *requests* at once; each will have an answer."""
    try:
        packed = _packed(connection, requests)
    except UnicodeEncodeError:  # an id of another program, of bytes that are no text
        packed = _packed(connection, [tuple(map(_as_bytes, request)) for request in requests])
    ensure_connected(connection)
    connection.send_packed_command(packed, check_health=False)


def receive(connection: Any, count: int) -> list[Any]:
    """Return the next *count* answers, errors among them."""
    answers: list[Any] = []
    for _ in range(count):
        try:
            answers.append(connection.read_response(disable_decoding=True))
        except ResponseError as error:
            answers.append(error)
    return answers


def _packed(connection: Any, requests: Sequence[Request]) -> Sequence[bytes]:
    if _pack is None:
        parts: Sequence[bytes] = connection.pack_commands(requests)
        return parts
    if len(requests) == 1:
        return (_pack(requests[0]),)
    return (b"".join([_pack(request) for request in requests]),)


def _as_bytes(part: Any) -> Any:
    return part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part


def settings(options: Options) -> dict[str, Any]:
    """Return what redis-py's connections are made with."""
    found: dict[str, Any] = {
        "username": options.username,
        "password": options.password,
        "socket_timeout": options.timeout,
        "socket_connect_timeout": options.connect_timeout,
        "socket_keepalive": True,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),  # what may be tried again is decided by `links`
    }
    if options.tls:
        found |= {
            "ssl_cert_reqs": "required" if options.tls_verify else "none",
            "ssl_check_hostname": options.tls_verify,
            "ssl_ca_certs": options.tls_ca,
            "ssl_certfile": options.tls_cert,
            "ssl_keyfile": options.tls_key,
        }
    return found


def make_pool(options: Options) -> ConnectionPool:
    """Return what makes connections to the server, or to the master of the service."""
    common = settings(options)
    kind: Any
    if options.kind == "sentinel":
        own = {
            "username": options.sentinel_username,
            "password": options.sentinel_password,
            "socket_timeout": options.connect_timeout,
            "socket_connect_timeout": options.connect_timeout,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
        }
        kind = Sentinel  # which has no types
        manager = kind(options.hosts, sentinel_kwargs=own)
        kind = SentinelConnectionPool
        pool: ConnectionPool = kind(
            options.service, manager, ssl=options.tls, db=options.db, **common
        )
        return pool
    common["db"] = options.db
    if options.path is not None:
        del common["socket_keepalive"]
        kind = UnixDomainSocketConnection
        return ConnectionPool(connection_class=kind, path=options.path, **common)
    return server_pool(options, *options.hosts[0])


def server_pool(options: Options, host: str, port: int) -> ConnectionPool:
    """Return what makes connections to one server."""
    kind = SSLConnection if options.tls else Connection
    return ConnectionPool(
        connection_class=kind, host=host, port=port, db=options.db, **settings(options)
    )
