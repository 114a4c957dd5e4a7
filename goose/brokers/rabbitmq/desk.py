"""Asks the server and declares things there, one after the other, for threads that wait.

It has a channel of its own on somebody's wire, because whatever the server refuses there costs
that channel. Everything asked here may be asked twice: what a lost connection left without an
answer is asked again on the next one, until the caller's deadline.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from goose._events import AutoResetEvent
from goose.brokers.rabbitmq.faults import Remedy, judge, translated
from goose.brokers.rabbitmq.options import Options
from goose.brokers.rabbitmq.wire import Wire
from goose.errors import BrokerError, BrokerUnavailable


class _Errand:
    """One question."""

    __slots__ = ("answer", "began", "deadline", "done", "error", "name", "words")

    def __init__(self, name: str, words: dict[str, Any], deadline: float) -> None:
        self.name = name
        self.words = words
        self.began = time.monotonic()
        self.deadline = deadline
        self.done = AutoResetEvent()
        self.answer: Any = None
        self.error: BaseException | None = None

    def end(self, answer: Any = None, error: BaseException | None = None) -> None:
        self.answer, self.error = answer, error
        self.done.set()


class Desk:
    """Runs errands on a channel of *wire*. `ask` is for any thread but the wire's own."""

    def __init__(self, options: Options, wire: Wire) -> None:
        self._options = options
        self._wire = wire
        self._line: deque[_Errand] = deque()
        self._current: _Errand | None = None
        self._connection: Any = None
        self._channel: Any = None
        self._opening = False

    def ask(self, name: str, deadline: float | None = None, **words: Any) -> Any:
        """Call the channel's method *name* and return the server's answer.

        Args:
            name: Of a method of the driver's channel.
            deadline: Monotonic; in ``timeout`` by default.
            words: Its arguments.

        Raises:
            BrokerUnavailable: No answer came before the deadline.
            ChannelClosedByBroker: The server refused, and says why.
        """
        errand = _Errand(name, words, deadline or time.monotonic() + self._options.timeout)
        self._wire.call(lambda: self._accept(errand))
        if not errand.done.wait(errand.deadline - time.monotonic()):
            raise self.late(name)
        if errand.error is not None:
            raise errand.error
        return errand.answer

    def late(self, what: str) -> BrokerError:
        """Return what to tell one whose deadline has come before the answer to *what*."""
        where, error = self._options.where, self._wire.error
        if error is not None:
            return translated(error, where)
        return BrokerUnavailable(
            f"RabbitMQ at {where} did not answer {what} within {self._options.timeout:g} s"
        )

    # --- the wire's thread ---------------------------------------------------------------

    def waiting(self) -> bool:
        """Say whether anything is asked."""
        return self._current is not None or bool(self._line)

    def up(self, connection: Any) -> None:
        """Go on with a new connection."""
        self._connection = connection
        self._run()

    def down(self, error: BaseException, patience: float) -> None:
        """Wait for another connection, for errands younger than *patience* seconds."""
        self._connection = self._channel = None
        self._opening = False
        self._take_back()
        now = time.monotonic()
        kept = deque(errand for errand in self._line if now - errand.began < patience)
        for errand in self._line:
            if now - errand.began >= patience:
                errand.end(error=translated(error, self._options.where))
        self._line = kept

    def _take_back(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            self._line.appendleft(current)

    def _accept(self, errand: _Errand) -> None:
        self._line.append(errand)
        self._run()

    def _run(self) -> None:
        now = time.monotonic()
        while self._line and self._line[0].deadline < now:
            self._line.popleft()
        if not self._line or self._current is not None:
            return
        if self._connection is None or not self._connection.is_open:
            return
        if self._channel is None:
            if not self._opening:
                self._opening = True
                self._connection.channel(on_open_callback=self._opened)
            return
        errand = self._current = self._line.popleft()
        try:
            getattr(self._channel, errand.name)(
                callback=lambda frame: self._answered(errand, frame), **errand.words
            )
        except Exception as error:  # noqa: BLE001 - the caller's words, so the caller's error
            self._current = None
            errand.end(error=error)
            self._run()

    def _opened(self, channel: Any) -> None:
        self._opening = False
        self._channel = channel
        channel.add_on_close_callback(self._closed)
        self._run()

    def _answered(self, errand: _Errand, frame: Any) -> None:
        errand.end(frame.method)
        if errand is self._current:
            self._current = None
            self._run()

    def _closed(self, channel: Any, error: BaseException) -> None:
        if channel is not self._channel:
            return
        self._channel = None
        if judge(error).remedy is Remedy.RETRY and getattr(error, "reply_code", 0) != 404:
            self._take_back()
        elif self._current is not None:
            current, self._current = self._current, None
            current.end(error=error)
        self._run()
