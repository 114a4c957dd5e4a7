"""One connection, with a thread of its own that only moves frames.

Jobs never run on that thread, so they cannot keep it from its heartbeats, and whatever thread
wants something from the server hands it over with `Wire.call`. A connection that is lost is
made again, on the next of the hosts, after a growing, jittered pause; one that is silent though
it was asked something is given up, long before heartbeats would notice.

While that thread has nothing to do, a caller may write on its own, with `Wire.do`, which saves one
of the two changes of threads that an enqueue costs. Threads in which a timeout may be raised at any
step hand over all the same. And who waits for what the connection brings may read it on its own, with
`Wire.attend`, which saves another. A lock keeps the wire's thread and such callers apart.

What the connection carries is not decided here: its `Freight` sets up channels when it is up
and picks up the pieces when it is down. All its methods are called under that lock.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pika.adapters.select_connection import IOLoop

from goose._interrupts import exposed
from goose.brokers.rabbitmq.connection import Connection, parameters
from goose.brokers.rabbitmq.driving import Bell, Freight, Waker, loop_under
from goose.brokers.rabbitmq.faults import Remedy, judge, said, tell
from goose.brokers.rabbitmq.options import Options
from goose.errors import BrokerUnavailable

logger = logging.getLogger("goose.brokers.rabbitmq")
# The driver tells every failed attempt in a dozen lines; what matters is told here.
logging.getLogger("pika").setLevel(logging.CRITICAL)

PAUSE_FIRST = 0.1
"""Seconds: ceiling of the pause before the second attempt to connect; doubles each time."""
PAUSE_LIMIT = 2.0
"""Seconds: no ceiling is above this, so that a server is in use again soon after its start."""
_STALLED = 0.5
"""Seconds a timer may be late before nothing is concluded from silence: we were asleep ourselves."""


class Wire:
    """A connection that comes back. `call`, `do` and `close` may be called from any thread.

    Args:
        options: Where to connect, and how.
        role: What the server's tools show it as.
        freight: What it is for.
        on_lost: Told of every connection that is lost, with the error.

    Attributes:
        connection: The open connection, or None; for the wire's own thread.
        error: Why there is none, if that is known.
        blocked: Whether the server has asked to publish nothing at the moment.
    """

    def __init__(
        self,
        options: Options,
        role: str,
        freight: Freight,
        on_lost: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self.connection: Any = None
        self.error: BaseException | None = None
        self.blocked = False
        self._options = options
        self._role = role
        self._freight = freight
        self._on_lost = on_lost
        self._hosts = deque(options.hosts)
        self._hosts.rotate(random.randrange(len(options.hosts)))
        self._calls: deque[Callable[[], Any]] = deque()
        self._lock = threading.Lock()
        self._driving = threading.Lock()
        """Held by who deals with the connection and what it carries."""
        self._driver = 0
        """The caller that writes now, by its thread."""
        self._attended = False
        """Whether a caller reads, instead of the wire's thread."""
        self._called = False
        self._loop: IOLoop | None = None
        self._waker: Waker | None = None
        self._thread: threading.Thread | None = None
        self._connecting = False
        self._trying: Any = None
        """Under way, and not open yet."""
        self._closing = False
        self._stopped = False
        self._failures = 0
        self._control: Any = None
        self._received = -1
        self._asked_mono: float | None = None

    def call(self, do: Callable[[], Any]) -> None:
        """Have *do* called on the wire's thread soon; starts the thread if need be."""
        self._calls.append(do)
        if self._called:
            return
        with self._lock:
            if self._called:
                return
            self._called = True
            try:
                if self._thread is None:
                    self._begin()
            except BaseException:
                self._called = False
                raise
        self._wake()

    def _begin(self) -> None:
        loop = None
        try:
            loop = self._loop = loop_under(self._driving)
            self._waker = Waker(loop, self._obey)
            self._thread = threading.Thread(
                target=self._run, args=(loop,), name=f"goose-rabbitmq-{self._role}", daemon=True
            )
            self._thread.start()
        except BaseException:
            # Of who is stopped in here nothing is left: a thread that has begun looks, and ends.
            self._loop = self._waker = self._thread = None
            if loop is not None:
                loop.close()
            raise

    def _wake(self) -> None:
        waker = self._waker
        if waker is not None:
            waker.ring()

    def do(self, do: Callable[[], Any]) -> None:
        """Do at once what `call` would have done soon, if nobody is at it and the connection is open.

        Raises:
            BrokerUnavailable: This very thread is at it: somebody was called in between.
        """
        own = threading.get_ident()
        if self._driver == own:
            error = BrokerUnavailable(
                "a signal handler or a finalizer cannot enqueue while the thread that it came into is "
                "writing to RabbitMQ: let it leave a note, and enqueue later"
            )
            error.unsent = True
            raise error
        if not self._can_do() or self._driving.locked() or own in exposed:
            self.call(do)
            return
        # By a block, which an interrupt cannot leave locked; it is free, or will be in a moment.
        with self._driving:
            if not self._can_do():
                self.call(do)
                return
            try:
                self._driver = own
                do()
            except BaseException:
                self.call(self._freight.unblocked)  # which finds out what is left of it
                raise
            finally:
                self._driver = 0

    def _can_do(self) -> bool:
        # Who was called first comes first.
        return self.connection is not None and not self._called and not self._calls

    def attend(self, bell: Bell, heard: int, seconds: float) -> bool:
        """Wait for what the connection brings and deal with it here, until there was something.

        Not for threads in which something `may_strike`: what was read and not dealt with, nobody has.

        Args:
            bell: Ends it, too.
            heard: What `Bell.rung` was when the caller last looked for what he waits for.
            seconds: After which it ends in any case.

        Returns:
            False, and at once, if the connection is not open, brings what only its own thread can
            read, or has somebody who attends to it.
        """
        with self._driving:
            connection = self.connection
            source = -1 if connection is None or self._attended else connection.lend()
            if source < 0:
                return False
            self._attended = True
        came = False
        try:
            came = bell.wait(source, heard, seconds)
        finally:
            with self._driving:
                self._attended = False
                if connection is self.connection:
                    self._read(connection, came)
        return True

    def _read(self, connection: Any, came: bool) -> None:
        try:
            if came:
                connection.read()
            connection.take_back()
        except Exception as error:  # noqa: BLE001 - it is told
            tell(self._role, error)
            self.abandon(error)

    def later(self, seconds: float, do: Callable[[], Any]) -> None:
        """Have *do* called after *seconds*; only for who deals with the connection."""
        assert self._loop is not None
        self._loop.call_later(seconds, do)
        # Which may be waiting, and for longer than that.
        if threading.current_thread() is not self._thread:
            self._wake()

    def close(self, timeout: float) -> None:
        """End the connection in good order, so that the server has all that was written."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._closing = True
            return
        self.call(self._close)
        if thread is not threading.current_thread():
            thread.join(timeout)

    # --- on its thread -------------------------------------------------------------------

    def _run(self, loop: IOLoop) -> None:
        with self._lock:
            unwanted = self._loop is not loop
        if unwanted:
            return
        loop.call_later(self._options.silence / 2, self._look)
        while not self._stopped:
            try:
                loop.start()
            except Exception as error:  # noqa: BLE001 - it is told
                tell(self._role, error)
                # A thread that ended would leave everybody waiting: another connection is better.
                with self._driving:
                    self.abandon(error)
        waker, self._waker = self._waker, None  # it knows us, and would keep its pipe with us
        assert waker is not None
        waker.leave(loop)
        loop.close()

    def _obey(self) -> None:
        # Cleared before looking: a call from here on is not forgotten.
        self._called = False
        while self._calls:
            do = self._calls.popleft()
            try:
                do()
            except Exception:
                logger.exception("a defect on the %s connection", self._role)
                self._calls.append(self._freight.unblocked)
        self.connect()

    def connect(self) -> None:
        """Begin to connect, if there is no connection and one is needed."""
        idle = self.connection is None and not self._connecting
        if idle and not self._closing and self._freight.waiting():
            self._connecting = True
            self._attempt()

    def _attempt(self) -> None:
        if self._closing:
            return
        host, port = self._hosts[0]
        self._hosts.rotate(-1)
        self._trying = Connection(
            parameters(self._options, host, port, self._role),
            on_open_callback=self._opened,
            on_open_error_callback=self._lost,
            on_close_callback=self._lost,
            custom_ioloop=self._loop,
        )

    def _opened(self, connection: Any) -> None:
        self._connecting = False
        self._trying = None
        if self._closing:
            connection.close()
            return
        if self._failures or self.error is not None:
            logger.info("connected to RabbitMQ at %s again (%s)", self._options.where, self._role)
        self.connection = connection
        self.error = None
        self.blocked = False
        self._failures = 0
        self._control = None
        self._asked_mono = None
        connection.add_on_connection_blocked_callback(lambda *_: self._block(True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._block(False))
        connection.channel(on_open_callback=self._controlled)
        self._freight.up(connection)

    def _controlled(self, channel: Any) -> None:
        self._control = channel

    def _block(self, blocked: bool) -> None:
        self.blocked = blocked
        if blocked:
            logger.warning(
                "RabbitMQ at %s takes nothing for now: it is short of memory or disk space",
                self._options.where,
            )
        else:
            logger.info("RabbitMQ at %s takes jobs again", self._options.where)
            self._freight.unblocked()

    def _lost(self, connection: Any, error: BaseException) -> None:
        if self.connection is not None and connection is not self.connection:
            return
        was_open = self.connection is not None
        self._connecting = False
        self._trying = None
        self.connection = None
        self.blocked = False
        if self._closing:
            self._freight.down(error)
            self._stop()
            return
        if was_open or self.error is None:
            logger.warning(
                "the %s connection to RabbitMQ at %s is lost, or cannot be made: %s",
                self._role, self._options.where, said(error),
            )  # fmt: skip
        self.error = error
        if was_open:
            self._on_lost(error)
        self._freight.down(error)
        if self._freight.waiting():
            ceiling = min(PAUSE_FIRST * 2.0 ** min(self._failures, 10), PAUSE_LIMIT)
            refused = judge(error).remedy is Remedy.REFUSED
            self._failures += 1
            self._connecting = True
            self.later(PAUSE_LIMIT if refused else random.uniform(0.0, ceiling), self._attempt)

    def _look(self, due: float | None = None) -> None:
        """Ask for a sign of life where one is due, and give up a connection without one."""
        if self._calls:  # of one that was interrupted before it could say so
            self._obey()
        if self._closing:
            return
        now = time.monotonic()
        stalled = due is not None and now - due > _STALLED
        every = self._options.silence / 2
        connection = self.connection
        if connection is not None and not self.blocked and self._freight.waiting():
            heard = connection.bytes_received != self._received
            self._received = connection.bytes_received
            if heard or stalled:
                self._asked_mono = None if heard else self._asked_mono and now
            elif self._asked_mono is None:
                if self._control is not None and self._control.is_open:
                    self._control.basic_qos(prefetch_count=1)
                    self._asked_mono = now
            elif now - self._asked_mono >= self._options.silence:
                self.abandon(TimeoutError(f"no answer for {self._options.silence:g} s"))
        else:
            self._asked_mono = None
        self.later(every, lambda: self._look(now + every))

    def abandon(self, error: Exception) -> None:
        """Give the connection up without a word: whoever is at the other end does not listen."""
        if self.connection is not None:
            # There is no public way that does not wait for an answer.
            self.connection._terminate_stream(error)  # noqa: SLF001

    def _close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self.connection is not None and self.connection.is_open:
            self.connection.close()
        elif self._trying is None:
            self._stop()

    def _stop(self) -> None:
        assert self._loop is not None
        self._stopped = True
        self._loop.stop()
