"""Carries calls to the nodes of a Cluster: whoever has the slot of a call's keys.

The map of slots is asked from any node, at the first use and whenever an answer shows that it
is out of date. A sleeper waits on a connection for each of its queues at once, since a
BLPOP cannot name keys of several slots; when one has a token, the others are closed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from redis.crc import key_slot
from redis.exceptions import AskError, RedisError

from goose.brokers.pooling import Loan
from goose.brokers.redis import faults
from goose.brokers.redis.connections import (
    Connections,
    Request,
    ensure_connected,
    server_pool,
    talk,
)
from goose.brokers.redis.links import Call, Link, lateness
from goose.brokers.redis.options import Options
from goose.brokers.redis.waiting import Alarm
from goose.errors import BrokerUnavailable

_SLOTS = 16_384
_FRESH = 0.05
"""Seconds for which a map of slots is not asked for again."""

Address = tuple[str, int]


class ClusterLink(Link):
    """Talks to the masters of a Cluster. Thread-safe."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._lock = threading.Lock()
        self._servers: dict[Address, Connections] = {options.hosts[0]: self._server}
        self._slots: list[Address | None] = []
        self._asked_mono = 0.0

    # --- slots ---------------------------------------------------------------------------

    def _server_of(self, key: str) -> Connections:
        slots = self._slots or self._refresh()
        address = slots[key_slot(key.encode())]
        if address is None:
            self._refresh()
            raise BrokerUnavailable(f"Redis at {self.where}: no node serves the slot of {key}")
        return self._at(address)

    def _at(self, address: Address) -> Connections:
        found = self._servers.get(address)
        if found is None:
            with self._lock:
                pool = server_pool(self._options, *address)
                found = self._servers.setdefault(address, self._connections(pool))
        return found

    def _refresh(self) -> list[Address | None]:
        """Ask nodes until one tells who has which slot."""
        if self._slots and time.monotonic() - self._asked_mono < _FRESH:
            return self._slots
        last: BaseException | None = None
        for address in dict.fromkeys((*self._options.hosts, *list(self._servers))):
            try:
                self._slots = _read_slots(address, self._ask_slots(self._at(address)))
                self._asked_mono = time.monotonic()
                return self._slots
            except (*faults.CAUGHT, BrokerUnavailable) as error:
                last = error
        assert last is not None
        raise faults.translated(last, self.where) from last

    def _ask_slots(self, server: Connections) -> Any:
        loan = server.take(look=True)
        answer: Any = None
        try:
            [answer] = talk(loan.connection, [(b"CLUSTER", b"SLOTS")])
        finally:
            if answer is None:
                loan.connection.disconnect()
            server.give(loan)
        if isinstance(answer, RedisError):
            raise answer
        return answer

    def reconnect(self, error: BaseException | None = None) -> None:
        """Close idle connections, and learn anew who has which slot."""
        for server in list(self._servers.values()):
            server.drop()
        # What cannot be learnt now is learnt, or fails, at the next call.
        with contextlib.suppress(BrokerUnavailable):
            self._refresh()

    def close(self) -> None:
        """Close all connections, those in use when their call is over."""
        for server in list(self._servers.values()):
            server.close()

    # --- calls ---------------------------------------------------------------------------

    def _exchange(
        self, server: Connections, calls: Sequence[Call | Request], *, look: bool
    ) -> list[Any]:
        try:
            return super()._exchange(server, calls, look=look)
        except AskError as error:
            # The slot is moving, and its new node has these keys already. It may not know the
            # script, and the leave to answer holds for one command, so it gets all of it.
            full = self._when_full
            whole = [
                call.whole(when_full=full) if isinstance(call, Call) else call for call in calls
            ]
            other = self._at((error.host, error.port))
            asking = [request for one in whole for request in ((b"ASKING",), one)]
            return super()._exchange(other, asking, look=True)[1::2]

    # --- sleep ---------------------------------------------------------------------------

    def doze(
        self, keys: Sequence[str], seconds: float, alarm: Alarm, call: Call | None = None
    ) -> tuple[bool, Any]:
        """See `Link.doze`; *keys* may be of several slots, and no call is made behind."""
        asleep: dict[int, tuple[Connections, Loan[Any]]] = {}
        try:
            for key in keys:
                server = self._server_of(key)
                loan = server.take(look=True)
                connection = loan.connection
                try:
                    ensure_connected(connection)
                    connection.send_command(b"BLPOP", key, max(seconds, 0.001))
                    asleep[connection._sock.fileno()] = server, loan  # noqa: SLF001
                except BaseException:
                    connection.disconnect()
                    server.give(loan)
                    raise
            return self._await(asleep, seconds, alarm), None
        except faults.CAUGHT as error:
            self.reconnect(error)
            raise faults.translated(error, self.where) from error
        finally:
            for server, loan in asleep.values():
                loan.connection.disconnect()
                server.give(loan)

    def _await(
        self, asleep: dict[int, tuple[Connections, Loan[Any]]], seconds: float, alarm: Alarm
    ) -> bool:
        """Return whether one of *asleep* got a token; those that answered are given back."""
        until = time.monotonic() + seconds + lateness(self._options)
        while asleep:
            ready = alarm.wait(list(asleep), until - time.monotonic())
            if alarm.rung:
                return False
            if not ready:
                raise TimeoutError(f"BLPOP of {seconds:g} s was not answered")
            found = False
            for descriptor in ready:
                server, loan = asleep[descriptor]
                found = bool(loan.connection.read_response(disable_decoding=True)) or found
                del asleep[descriptor]
                server.give(loan)
            if found:
                return True
        return False


def _read_slots(asked: Address, answer: Any) -> list[Address | None]:
    """Return the address of the master of each slot; a node may not know its own name."""
    slots: list[Address | None] = [None] * _SLOTS
    for first, last, master, *_ in answer:
        host = master[0].decode() if master[0] else ""
        address = (host if host not in ("", "?") else asked[0], int(master[1]))
        slots[first : last + 1] = [address] * (last + 1 - first)
    return slots
