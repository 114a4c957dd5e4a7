"""NOTIFY, beside the writing of jobs: one thread rings, another listens.

A transaction that notifies holds, while it commits, a lock that there is only one of in the whole
server, so writers that notify wait for each other. Here what stores jobs never does. It leaves
the queues' names with the `Bell`, whose thread sends them in a transaction that wrote
nothing, all that came together at once, and not more often than every few milliseconds. The
`Ear` of an idle worker hears them. Either may fail without harm: a worker also looks
by itself.

Source: docs/adr/0006-notify-off-the-write-path.md.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import threading
from collections.abc import Collection

import psycopg

from goose.brokers.postgres.arrays import texts
from goose.brokers.postgres.connections import Connection, Connections
from goose.brokers.postgres.faults import CAUGHT
from goose.brokers.postgres.options import Options
from goose.brokers.postgres.statements import statement
from goose.brokers.postgres.waiting import Sleepers
from goose.errors import BrokerUnavailable

_REST = 0.01
"""Seconds between two notices of one process at least."""
_IDLE = 5.0
"""Seconds after which a thread that has nothing to send ends."""
_PROBE = 15.0
"""Seconds of silence after which a listening connection is tried."""
_PAUSE = 2.0
"""Seconds between attempts to listen at most."""


class Bell:
    """Sends notices. `ring` may be called by any thread, and is quick."""

    def __init__(self, connections: Connections, options: Options) -> None:
        self._connections = connections
        self._query = statement("notify", options.schema)
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._queues: set[str] = set()
        self._work = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ring(self, queues: Collection[str]) -> None:
        """Have idle workers of *queues* told soon."""
        if self._process != os.getpid():
            self._begin()
        with self._guard:
            self._queues.update(queues)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._serve, name="goose-bell", daemon=True)
                self._thread.start()
        self._work.set()

    def close(self) -> None:
        """Let what was rung go out, and end the thread."""
        if self._process != os.getpid():
            return
        with self._guard:
            self._closed = True
            thread = self._thread
        self._work.set()
        if thread is not None:
            thread.join(1.0)

    def _serve(self) -> None:
        while True:
            rung = self._closed or self._work.wait(_IDLE)
            self._work.clear()
            with self._guard:
                queues, self._queues = self._queues, set()
                if not queues and (self._closed or not rung):
                    self._thread = None
                    return
            if queues:
                self._send(queues)
            if not self._closed:
                self._rest.wait(_REST)

    _rest = threading.Event()  # never set: a sleep that an interpreter's end does not wait for

    def _send(self, queues: Collection[str]) -> None:
        # Workers look by themselves: one that is not told is late by half a second.
        with (
            contextlib.suppress(*CAUGHT, BrokerUnavailable),
            self._connections.lend() as connection,
        ):
            connection.execute(self._query, {"queues": texts(sorted(queues))})


class Ear:
    """Listens for notices while this process has somebody who waits for jobs."""

    def __init__(self, connections: Connections, options: Options, sleepers: Sleepers) -> None:
        self._connections = connections
        self._query = f'LISTEN "{options.schema}"'.encode()
        self._sleepers = sleepers
        self._random = random.Random()
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._end = threading.Event()
        self._read, self._write = -1, -1
        self.listens = threading.Event()
        """Set while notices are heard."""
        self.connected = 0
        """How often it began to hear them."""

    def start(self) -> None:
        """Begin to listen, unless it has begun."""
        if self._process != os.getpid():
            for descriptor in (self._read, self._write):
                if descriptor >= 0:
                    os.close(descriptor)
            self._begin()
        if self._thread is None and not self._closed:
            with self._guard:
                if self._thread is None:
                    self._read, self._write = os.pipe()
                    thread = threading.Thread(target=self._serve, name="goose-ear", daemon=True)
                    thread.start()
                    self._thread = thread

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        thread = self._thread
        if thread is None or self._process != os.getpid():
            return
        self._end.set()
        os.write(self._write, b"!")
        thread.join(1.0)
        if not thread.is_alive():
            os.close(self._read)
            os.close(self._write)
            self._thread = None

    def _serve(self) -> None:
        pause = 0.1
        while not self._end.is_set():
            # Workers look by themselves meanwhile.
            with contextlib.suppress(*CAUGHT):
                connection = self._connections.connect()
                try:
                    connection.execute(self._query, prepare=False)
                    self.connected += 1
                    self.listens.set()
                    pause = 0.1
                    self._sleepers.rouse()  # for what was not heard while it was away
                    self._listen(connection)
                finally:
                    self.listens.clear()
                    with contextlib.suppress(*CAUGHT):
                        connection.close()
            self._end.wait(self._random.uniform(0.0, pause))
            pause = min(pause * 2, _PAUSE)

    def _listen(self, connection: Connection) -> None:
        """Rouse who waits for the queues that are named, until the connection fails."""
        connection.add_notify_handler(self._heard)
        poller = select.poll()
        poller.register(connection.pgconn.socket, select.POLLIN)
        poller.register(self._read, select.POLLIN)
        while not self._end.is_set():
            ready = poller.poll(_PROBE * 1000)
            if not ready:
                connection.execute("", prepare=False)
            elif not self._end.is_set():
                _take_in(connection, self._sleepers)

    def _heard(self, notice: psycopg.Notify) -> None:
        self._sleepers.rouse((notice.payload,))


def _take_in(connection: Connection, sleepers: Sleepers) -> None:
    """Read what the server sent, and rouse who waits for it."""
    connection.pgconn.consume_input()
    queues: set[str] = set()
    while notice := connection.pgconn.notifies():
        queues.add(notice.extra.decode())
    if queues:
        sleepers.rouse(queues)
