"""Carries calls of scripts to the server, and its answers or errors back.

A call takes a connection of the pool, sends one command, reads one answer, and gives the
connection back: one round trip. A connection whose answer was not read to its end is closed,
so that nobody reads another's answer. Errors are dealt with as `faults` says.

After a fork the child makes connections of its own and closes its copies of the inherited
ones without a word to the server, so those of the parent go on.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import redis
from redis.backoff import NoBackoff
from redis.connection import (
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import NoScriptError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from goose.brokers.redis import faults
from goose.brokers.redis.faults import Refused, Remedy
from goose.brokers.redis.options import Options
from goose.brokers.redis.scripts import Script
from goose.brokers.redis.waiting import Alarm
from goose.errors import BrokerUnavailable

Request: TypeAlias = tuple[Any, ...]
"""A command and its arguments."""

PATIENCE = 1.0
"""Seconds for which a call that the server refuses for the moment is tried again."""
_SLICE = 0.02
"""Seconds between looks at the alarm where there is no socket to wait for."""


class Call(NamedTuple):
    """One call of a script; the first key says which server, on a Cluster."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Any] = ()

    def request(self) -> Request:
        """Return the command that names the script."""
        return (b"EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def whole(self) -> Request:
        """Return the command that has all of the script."""
        return (b"EVAL", self.script.text, len(self.keys), *self.keys, *self.args)


class Link:
    """Talks to one server, or to the master that sentinels name. Thread-safe."""

    def __init__(self, options: Options, client: redis.Redis | None = None) -> None:
        self._options = options
        self._client = client  # which would close its pool when nobody has it any more
        self._pool = client.connection_pool if client is not None else make_pool(options)
        self.where = _address(options, self._pool)
        self._slots = threading.BoundedSemaphore(options.pool)
        self._process = os.getpid()
        self._random = random.Random()

    # --- calls ---------------------------------------------------------------------------

    def run(self, call: Call, *, again: bool = False) -> Any:
        """Call a script and return its answer.

        Args:
            call: What to call.
            again: Whether a second call does no harm if nobody knows of the first.

        Raises:
            BrokerUnavailable: What happened is unknown, or it was refused for too long.
            BrokerError: It was refused.
        """
        return self._insist(call.keys[0], (call,), again)[0]

    def run_many(self, calls: Sequence[Call], *, again: bool = False) -> list[Any]:
        """Call scripts in one round trip; the first error among the answers is raised."""
        return self._insist(calls[0].keys[0], calls, again) if calls else []

    def confirmed(self, call: Call, replicas: int, seconds: float) -> tuple[Any, int]:
        """Call a script, and return its answer and how many of *replicas* have its writes."""
        wait = (b"WAIT", replicas, int(seconds * 1000))
        answer, count = self._insist(call.keys[0], (call, wait), again=True)
        return answer, int(count)

    def ask(self, requests: Sequence[Request]) -> list[Any]:
        """Send plain commands that change nothing, in one round trip; the key stands second."""
        return self._insist(requests[0][1], requests, again=True) if requests else []

    def info(self, key: str) -> Mapping[str, str]:
        """Return what INFO says of the server of *key*, and CONFIG's ``save``; what it may not, not.

        Raises:
            BrokerUnavailable: It cannot be reached.
        """
        found: dict[str, str] = {}
        with contextlib.suppress(Refused):
            [said] = self._insist(key, [(b"INFO",)], again=True)
            for line in said.decode("utf-8", "replace").splitlines():
                name, colon, value = line.partition(":")
                if colon:
                    found[name] = value.strip()
        with contextlib.suppress(Refused):
            [pair] = self._insist(key, [(b"CONFIG", b"GET", b"save")], again=True)
            found |= {"save": bytes(pair[1]).decode()} if len(pair) == 2 else {}
        return found

    def _insist(self, key: str, calls: Sequence[Call | Request], again: bool) -> list[Any]:
        deadline = time.monotonic() + PATIENCE
        pause = 0.005
        while True:
            try:
                return self._exchange(self._pool_for(key), calls)
            except faults.CAUGHT as error:
                remedy = faults.judge(error).remedy
                if remedy in (Remedy.LOST, Remedy.RECONNECT):
                    self._reconnect(error)
                if remedy is Remedy.LOST and again and not _is_timeout(error):
                    again = False
                    continue
                late = time.monotonic() + pause > deadline
                if remedy in (Remedy.LOST, Remedy.REFUSED) or late:
                    raise faults.translated(error, self.where) from error
            time.sleep(pause * self._random.uniform(0.5, 1.0))
            pause = min(pause * 2, 0.1)

    def _exchange(self, pool: ConnectionPool, calls: Sequence[Call | Request]) -> list[Any]:
        connection = self._take(pool)
        at_rest = False
        try:
            requests = [call.request() if isinstance(call, Call) else call for call in calls]
            answers = _talk(connection, requests)
            at_rest = True
            for number, call in enumerate(calls):
                if isinstance(answers[number], NoScriptError) and isinstance(call, Call):
                    # What comes after it, a WAIT, is about it and has to come again.
                    at_rest = False
                    answers[number:] = _talk(connection, [call.whole(), *requests[number + 1 :]])
                    at_rest = True
                if isinstance(answers[number], ResponseError):
                    raise answers[number]
        finally:
            if not at_rest:
                connection.disconnect()
            self._give(pool, connection)
        return answers

    # --- sleep ---------------------------------------------------------------------------

    def doze(self, keys: Sequence[str], seconds: float, alarm: Alarm) -> bool:
        """Sleep until there is a token in one of *keys*, *alarm* rings or *seconds* are over.

        Returns:
            Whether there was a token, which is taken.

        Raises:
            BrokerUnavailable: The server is not there, or silent for longer than it may.
        """
        pool = self._pool_for(keys[0])
        try:
            connection = self._take(pool)
            at_rest = False
            try:
                found = self._pop(connection, keys, max(seconds, 0.001), alarm)
                at_rest = not alarm.rung
                return found
            finally:
                # After a ring the server still holds us for waiting. If it takes a token for
                # us at this very moment, that job waits until the next worker looks anyway.
                if not at_rest:
                    connection.disconnect()
                self._give(pool, connection)
        except faults.CAUGHT as error:
            self._reconnect(error)
            raise faults.translated(error, self.where) from error

    def _pop(self, connection: Any, keys: Sequence[str], seconds: float, alarm: Alarm) -> bool:
        fileno = getattr(connection._sock, "fileno", None)  # noqa: SLF001 - to wait for it
        if fileno is None:
            deadline = time.monotonic() + seconds
            while not alarm.rung and (left := deadline - time.monotonic()) > 0:
                if _talk(connection, [(b"BLPOP", *keys, min(left, _SLICE))])[0]:
                    return True
            return False
        connection.send_command(b"BLPOP", *keys, seconds)
        if not alarm.wait(fileno(), seconds + self._options.timeout):
            if alarm.rung:
                return False
            raise redis.TimeoutError(f"BLPOP of {seconds:g} s was not answered")
        return bool(connection.read_response(disable_decoding=True))

    # --- connections ---------------------------------------------------------------------

    def _pool_for(self, key: str) -> ConnectionPool:
        return self._pool

    def _take(self, pool: ConnectionPool) -> Any:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._slots = threading.BoundedSemaphore(self._options.pool)
        if not self._slots.acquire(timeout=self._options.timeout):
            raise BrokerUnavailable(
                f"all {self._options.pool} connections to Redis at {self.where} were in use for "
                f"{self._options.timeout:g} s; raise pool="
            )
        try:
            return pool.get_connection()
        except BaseException:
            self._slots.release()
            raise

    def _give(self, pool: ConnectionPool, connection: Any) -> None:
        pool.release(connection)
        self._slots.release()

    def _reconnect(self, error: BaseException) -> None:
        """Close idle connections: after *error* they are worth no more than the one that failed."""
        self._pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        self._pool.disconnect()


def _talk(connection: Any, requests: Sequence[Request]) -> list[Any]:
    """Send *requests* at once and return the answers, errors among them."""
    if len(requests) == 1:
        connection.send_command(*requests[0])
    else:
        connection.send_packed_command(connection.pack_commands(requests))
    answers: list[Any] = []
    for _ in requests:
        try:
            answers.append(connection.read_response(disable_decoding=True))
        except ResponseError as error:
            answers.append(error)
    return answers


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, (redis.TimeoutError, TimeoutError))


def _address(options: Options, pool: ConnectionPool) -> str:
    if options.kind != "single":
        hosts = ",".join(f"{host}:{port}" for host, port in options.hosts)
        return f"{hosts}/{options.service}" if options.service else hosts
    said = pool.connection_kwargs
    return str(said.get("path") or f"{said.get('host', 'localhost')}:{said.get('port', 6379)}")


def settings(options: Options) -> dict[str, Any]:
    """Return what redis-py's connections are made with."""
    found: dict[str, Any] = {
        "username": options.username,
        "password": options.password,
        "socket_timeout": options.timeout,
        "socket_connect_timeout": options.connect_timeout,
        "socket_keepalive": True,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),  # what may be tried again is decided here
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
    """Return a pool of connections to the server, or to the master of the service."""
    common = settings(options)
    if options.kind == "sentinel":
        timeouts = {name: value for name, value in common.items() if name.startswith("socket_")}
        own = {
            "username": options.sentinel_username,
            "password": options.sentinel_password,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
        }
        sentinels: Any = Sentinel  # which has no types
        manager = sentinels(options.hosts, sentinel_kwargs={**timeouts, **own})
        return SentinelConnectionPool(
            options.service, manager, ssl=options.tls, db=options.db, **common
        )
    common["db"] = options.db
    kind: Any
    if options.path is not None:
        del common["socket_keepalive"]
        kind = UnixDomainSocketConnection
        return ConnectionPool(connection_class=kind, path=options.path, **common)
    host, port = options.hosts[0]
    kind = SSLConnection if options.tls else Connection
    return ConnectionPool(connection_class=kind, host=host, port=port, **common)
