"""Carries calls of scripts to the server, and its answers or errors back.

A call takes a connection, sends one command, reads one answer, and gives the connection
back: one round trip. A connection whose answer was not read to its end is closed, so that
nobody reads another's answer. Errors are dealt with as `faults` says.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis
from redis.exceptions import NoScriptError, ResponseError

from goose.brokers.dangers import tell_again
from goose.brokers.redis import faults
from goose.brokers.redis.connections import (
    Connections,
    Request,
    ensure_connected,
    make_pool,
    receive,
    send,
    talk,
)
from goose.brokers.redis.faults import Refused, Remedy
from goose.brokers.redis.options import Options
from goose.brokers.redis.scripts import WHEN_FULL, Script
from goose.brokers.redis.waiting import Alarm
from goose.errors import BrokerUnavailable
from goose.jobs import Envelope

logger = logging.getLogger("goose.brokers.redis")
PATIENCE = 1.0
"""Seconds for which a call that the server refuses for the moment is tried again."""
_LATE = 0.5
"""Part of the timeout by which the end of a sleep may be late. Together with the longest nap it is
less than the timeout, so that a silent connection is noticed no later there than anywhere."""
_TICKS = 0.25
"""Seconds by which it may be late in any case: some of the ticks in which a server counts."""
FAREWELL = 0.5
"""Seconds that each step of ending a sleep before its time may take."""
_LEFT_OVER = 60
"""Seconds until a token vanishes whose sleeper had just woken by itself."""
_SLICE = 0.02
"""Seconds between looks at the alarm where there is no socket to wait for."""


class Call(NamedTuple):
    """One call of a script; on a Cluster its first key says which server."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Any] = ()

    def request(self, *, when_full: bool) -> Request:
        """Return the command that names the script."""
        script = (self.script.when_full if when_full else None) or self.script
        return (b"EVALSHA", script.sha, len(self.keys), *self.keys, *self.args)

    def whole(self, *, when_full: bool) -> Request:
        """Return the command that has all of the script."""
        script = (self.script.when_full if when_full else None) or self.script
        return (b"EVAL", script.text, len(self.keys), *self.keys, *self.args)


def lateness(options: Options) -> float:
    """Return the seconds by which the server may be late to end a sleep."""
    return max(_LATE * options.timeout, _TICKS)


class Link:
    """Talks to one server, or to the master that sentinels name. Thread-safe."""

    def __init__(self, options: Options, client: redis.Redis | None = None) -> None:
        self._options = options
        self._random = random.Random()
        self._when_full = False
        self._client = client  # which would close its pool when nobody has it any more
        pool = make_pool(options) if client is None else client.connection_pool
        self._server = self._connections(pool)
        hosts = ",".join(f"{host}:{port}" for host, port in options.hosts)
        self.where = self._server.where
        if options.kind != "single":
            self.where = f"{hosts}/{options.service}" if options.service else hosts

    def _connections(self, pool: Any) -> Connections:
        return Connections(pool, self._options.pool, self._options.timeout)

    # --- calls ---------------------------------------------------------------------------

    def run(self, call: Call, *, again: bool = False, jobs: Sequence[Envelope] = ()) -> Any:
        """Call a script and return its answer.

        Args:
            call: What to call.
            again: Whether a second call does no harm if nobody knows of the first.
            jobs: Those that are stored by it, of which the log then tells.

        Raises:
            BrokerUnavailable: What happened is unknown, or it was refused for too long.
            Refused: It was refused.
        """
        return self._insist(call.keys[0], (call,), again, jobs)[0]

    def run_many(self, calls: Sequence[Call], *, again: bool = False) -> list[Any]:
        """Call scripts in one round trip; the first error among the answers is raised."""
        return self._insist(calls[0].keys[0], calls, again) if calls else []

    def confirmed(
        self, call: Call, replicas: int, seconds: float, jobs: Sequence[Envelope]
    ) -> tuple[Any, int]:
        """Call a script that stores *jobs*; return its answer and how many of *replicas* have its writes."""
        wait = (b"WAIT", replicas, int(seconds * 1000))
        answer, count = self._insist(call.keys[0], (call, wait), again=True, jobs=jobs)
        return answer, int(count)

    def ask(self, requests: Sequence[Request]) -> list[Any]:
        """Send plain commands that change nothing, in one round trip; the key stands second."""
        return self._insist(requests[0][1], requests, again=True) if requests else []

    def time(self, key: str) -> float:
        """Return the clock of the server of *key*, in epoch seconds."""
        [(seconds, micros)] = self._insist(key, [(b"TIME",)], again=True)
        return int(seconds) + int(micros) / 1e6

    def look(self, key: str) -> Mapping[str, str]:
        """Return what INFO says of the server of *key*, and CONFIG's ``save``; what it may not, not.

        Scripts that may are from here on run also when the server's memory is full.

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
            [reply] = self._insist(key, [(b"CONFIG", b"GET", b"save")], again=True)
            for _, value in pairs(reply):
                found["save"] = value.decode()
        with contextlib.suppress(Refused):
            # What can be said to the server can be learnt only by saying it.
            self._insist(key, [(b"EVAL", WHEN_FULL + b"return 1", 0)], again=True)
            self._when_full = True
        return found

    def _insist(
        self,
        key: str,
        calls: Sequence[Call | Request],
        again: bool,
        jobs: Sequence[Envelope] = (),
    ) -> list[Any]:
        deadline = 0.0
        pause = 0.005
        sent = False  # whether something of the calls may have been
        while True:
            try:
                return self._exchange(self._server_of(key), calls, look=not again)
            except faults.CAUGHT as error:
                now = time.monotonic()
                deadline = deadline or now + PATIENCE
                remedy = faults.judge(error).remedy
                if not faults.is_unreached(error):
                    sent = sent or remedy is Remedy.LOST or len(calls) > 1
                if remedy in (Remedy.LOST, Remedy.RECONNECT):
                    self.reconnect(error)
                if remedy is Remedy.LOST and again and not _is_timeout(error):
                    again = False
                    tell_again(logger, [job.id for job in jobs])
                    continue
                if remedy in (Remedy.LOST, Remedy.REFUSED) or now + pause > deadline:
                    unsent = not sent and faults.is_unreached(error)
                    told = faults.translated(error, self.where, unsent=unsent)
                    raise told from None if unsent else error
            time.sleep(pause * self._random.uniform(0.5, 1.0))
            pause = min(pause * 2, 0.1)

    def _exchange(
        self, server: Connections, calls: Sequence[Call | Request], *, look: bool
    ) -> list[Any]:
        full = self._when_full
        requests = [
            call.request(when_full=full) if isinstance(call, Call) else call for call in calls
        ]
        loan = server.take(look=look)
        connection = loan.connection
        at_rest = False
        try:
            answers = talk(connection, requests)
            at_rest = True
            for number, call in enumerate(calls):
                if isinstance(answers[number], NoScriptError) and isinstance(call, Call):
                    at_rest = False
                    # A plain command after it, a WAIT, is about it and has to come again too.
                    todo = [number, *_plain_after(calls, number)]
                    whole = [call.whole(when_full=full), *(requests[later] for later in todo[1:])]
                    for place, answer in zip(todo, talk(connection, whole), strict=True):
                        answers[place] = answer
                    at_rest = True
                error = answers[number]
                if isinstance(error, ResponseError):
                    if (
                        number
                        and isinstance(calls[0], Call)
                        and (look or not isinstance(call, Call))
                    ):
                        raise _partly(error, self.where) from error
                    raise error
        finally:
            if not at_rest:
                connection.disconnect()
            server.give(loan)
        return answers

    # --- sleep ---------------------------------------------------------------------------

    def doze(
        self, keys: Sequence[str], seconds: float, alarm: Alarm, call: Call | None = None
    ) -> tuple[bool, Any]:
        """Sleep until there is a token in one of *keys*, *alarm* rings or *seconds* are over.

        Args:
            keys: Lists of tokens; with a *call* the last is the sleeper's own.
            seconds: How long to sleep at most.
            alarm: Ends it.
            call: Sent right behind, so that the server makes it the moment the sleep ends.

        Returns:
            Whether there was a token, which is taken; and the answer to *call*, None if it was
            not carried out.

        Raises:
            BrokerUnavailable: The server is not there, or silent for longer than it may;
                whether *call* was carried out is unknown.
        """
        server = self._server_of(keys[0])
        try:
            loan = server.take(look=True)
            connection = loan.connection
            at_rest = False
            try:
                found = self._pop(server, connection, keys, max(seconds, 0.001), alarm, call)
                at_rest = True
            finally:
                if not at_rest:
                    connection.disconnect()
                server.give(loan)
        except faults.CAUGHT as error:
            self.reconnect(error)
            raise faults.translated(error, self.where) from error
        return found

    def _pop(
        self,
        server: Connections,
        connection: Any,
        keys: Sequence[str],
        seconds: float,
        alarm: Alarm,
        call: Call | None,
    ) -> tuple[bool, Any]:
        ensure_connected(connection)
        wire = connection._sock  # noqa: SLF001 - to wait for it
        if not isinstance(wire, socket.socket):  # fakeredis has another kind
            return _pop_in_slices(connection, keys, seconds, alarm), None
        requests: list[Request] = [(b"BLPOP", *keys, seconds)]
        if call is not None:
            requests.append(call.request(when_full=self._when_full))
        send(connection, requests)
        patience = seconds + lateness(self._options)
        if not alarm.wait([wire.fileno()], patience):
            if not alarm.rung:
                raise redis.TimeoutError(f"BLPOP of {seconds:g} s was not answered")
            _end_sleep(server, keys[-1], wire)
        token, *answers = receive(connection, len(requests))
        if answers and not isinstance(answers[0], ResponseError):
            return bool(token), answers[0]
        if isinstance(token, ResponseError):
            raise token
        return bool(token), None  # a call that met an error is made once more by itself

    # --- servers -------------------------------------------------------------------------

    def _server_of(self, key: str) -> Connections:
        return self._server

    def reconnect(self, error: BaseException | None = None) -> None:
        """Close idle connections: after *error* they are worth no more than the one that failed."""
        self._server.drop()

    def close(self) -> None:
        """Close all connections, those in use when their call is over."""
        self._server.close()


def _pop_in_slices(connection: Any, keys: Sequence[str], seconds: float, alarm: Alarm) -> bool:
    """Wait for a token on a connection that cannot be waited for together with *alarm*."""
    deadline = time.monotonic() + seconds
    while not alarm.rung and (left := deadline - time.monotonic()) > 0:
        if _only(talk(connection, [(b"BLPOP", *keys, min(left, _SLICE))])):
            return True
    return False


def _end_sleep(server: Connections, key: str, wire: socket.socket) -> None:
    """Wake our own sleep by a token in *key*, and wait for its end on *wire*.

    To hang up would not do: the server may be carrying out the call behind the sleep at this
    very moment, and what it lent would be heard of by nobody.
    """
    connection = server.spare(FAREWELL)
    try:
        for answer in talk(connection, [(b"RPUSH", key, b"1"), (b"EXPIRE", key, _LEFT_OVER)]):
            if isinstance(answer, ResponseError):
                raise answer
    finally:
        connection.disconnect()
    poller = select.poll()
    poller.register(wire, select.POLLIN)
    if not poller.poll(FAREWELL * 1000):
        raise redis.TimeoutError("a sleep that was to end was not answered")


def _plain_after(calls: Sequence[Call | Request], number: int) -> list[int]:
    """Return the places after *number* that are plain commands."""
    return [n for n in range(number + 1, len(calls)) if not isinstance(calls[n], Call)]


def _partly(error: ResponseError, where: str) -> BrokerUnavailable:
    """Return what to say when calls before the one that failed were carried out."""
    return BrokerUnavailable(f"a part was carried out: {faults.translated(error, where)}")


def _only(answers: list[Any]) -> Any:
    [answer] = answers
    if isinstance(answer, Exception):
        raise answer
    return answer


def pairs(reply: Any) -> Sequence[tuple[bytes, bytes]]:
    """Return the names and values of a reply that is a map, or flat in the older protocol."""
    if isinstance(reply, dict):
        return list(reply.items())
    return list(zip(reply[::2], reply[1::2], strict=True))


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, (redis.TimeoutError, TimeoutError))
