"""Connections to one server, lent to one call at a time.

They are made as a pool of redis-py would, which knows addresses, passwords, TLS and Sentinel,
and are kept here, since its own lending costs as much as a command. One that lay idle is looked
at before it is lent: if the server closed it, it connects again. Where a call may be
repeated the look is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

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

from goose.brokers.pooling import Loan, Pool
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
        self._pool = Pool(limit, partial(_make, source), _disconnect)

    def take(self, *, look: bool) -> Loan[Any]:
        """Return a loan, which must be given back; its connection may still have to connect.

        Args:
            look: Whether to make sure that the server did not close it while it was idle.

        Raises:
            BrokerUnavailable: All are in use, and stay so.
        """
        loan = self._pool.take(self._patience)
        if loan is None:
            raise BrokerUnavailable(
                f"all {self._limit} connections to Redis at {self.where} were in use for "
                f"{self._patience:g} s; raise pool="
            )
        if look:
            try:
                _look(loan.connection)
            except BaseException:
                try:
                    loan.connection.disconnect()
                finally:
                    self.give(loan)
                raise
        return loan

    def spare(self, seconds: float) -> Any:
        """Return a connection beyond the limit, which waits for *seconds* at most at each step.

        It is not given back but disconnected.
        """
        settings: dict[str, Any] = dict(self._source.connection_kwargs)
        settings |= {"socket_timeout": seconds, "socket_connect_timeout": seconds}
        return self._source.connection_class(**settings)

    def give(self, loan: Loan[Any]) -> None:
        """Take back a loan; all answers on its connection were read, or it is disconnected."""
        if not self._pool.give(loan):
            loan.connection.disconnect()

    def drop(self) -> None:
        """Disconnect those that are idle."""
        for connection in self._pool.drop():
            connection.disconnect()

    def close(self) -> None:
        """Disconnect those that are idle now, and the others when they are given back."""
        for connection in self._pool.close():
            connection.disconnect()


def _make(source: ConnectionPool) -> Any:
    return source.connection_class(**source.connection_kwargs)


def _disconnect(connection: Any) -> None:
    # In a child the driver closes its copy and says nothing.
    connection.disconnect()


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
