"""Metrics by StatsD: short text lines in datagrams, by UDP or a unix socket, sent and forgotten.

Nothing here makes a job wait. A call formats one line and appends it to a buffer; a full
datagram (1,400 bytes, which fits every common network) is sent at once through a
non-blocking socket, what is left at most `FLUSH` seconds later by a thread of our own. The
same thread resolves the host's name, once, and again only as long as that fails. What
cannot be sent is dropped and counted (`StatsD.statistics`), never raised: no server, a
full socket, an unknown host.

Three dialects. ``plain`` is what every StatsD server reads; having no tags, it gets them
folded into the name::

    goose.<values of the constant tags>.<measure>.<values of its tags>.<values of other tags>

Constant tags come in the order given, those of a measure in the order of
`goose.metrics.catalogue` (queue, then function, then what is special to it), others by
name; a value that is missing is ``none``. ``datadog`` appends them as
``|#tag:value,…``, constant tags first; ``influx`` puts ``,tag=value`` behind the name. Times
are in milliseconds in all of them.

With a *rate* below 1 only that part of counts and times is sent, chosen by chance and marked
so that the server multiplies. After ``fork`` the child starts with an empty buffer; the
parent's lines stay the parent's.
"""

from __future__ import annotations

import logging
import math
import os
import random
import re
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from goose._events import AutoResetEvent
from goose.errors import ConfigError
from goose.metrics.base import Tags
from goose.metrics.catalogue import MEASURES
from goose.metrics.statsd_url import Place, read, read_rate, read_tags

logger = logging.getLogger("goose.metrics")

DATAGRAM = 1400
"""Bytes of the longest datagram."""
FLUSH = 0.1
"""Seconds a line waits for company at most."""
RESOLVE_AGAIN = 10.0
"""Seconds until a name that could not be resolved is tried again."""
REFUSED = 0.5
"""Seconds for which nothing is sent after the network refused a datagram."""
_WAITING = 64
"""Datagrams kept while the host's name is being resolved."""
_SERIES = 10_000
"""Formatted names kept; far above what a worker has, so that growth has an end."""
_VALUE = 200
"""Characters of the longest tag value."""

_DIALECTS = ("plain", "datadog", "influx")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.\-]")
_NOT_IN_PLAIN = re.compile(r"[^A-Za-z0-9_\-]")
_NOT_IN_DATADOG = re.compile(r"[^A-Za-z0-9_.\-:/]")


@dataclass(frozen=True, slots=True)
class StatsDStatistics:
    """What became of the lines of one `StatsD`, since it was made or forked."""

    lines: int
    """Accepted."""
    datagrams: int
    """Handed to the network; whether they arrived nobody knows."""
    errors: int
    """Datagrams the network refused; what comes in the half second after that is dropped."""
    dropped: int
    """Lines or datagrams given up: not a number, too long, or no address for too long."""


class StatsD:
    """Sends metrics to a StatsD server. Thread-safe; no call blocks or raises for the network.

    Args:
        url: ``statsd://host:port?prefix=goose&tags=env:prod,region:eu&dialect=datadog``; host
            and port default to 127.0.0.1 and 8125. ``statsd:///run/statsd.sock`` is a unix
            socket for datagrams. What it says wins over the arguments below.
        prefix: Put before every name, with a dot; may be empty.
        tags: Constant tags, given with every line.
        dialect: ``plain``, ``datadog`` or ``influx``.
        rate: The part of counts and times that is sent, above 0 and at most 1.

    Raises:
        ConfigError: The URL's scheme, port, or an option is wrong.
    """

    never_blocks = True

    def __init__(
        self,
        url: str = "statsd://",
        *,
        prefix: str = "goose",
        tags: Mapping[str, str] | None = None,
        dialect: str = "plain",
        rate: float = 1.0,
    ) -> None:
        self._address, options = read(url)
        self._rate = read_rate(options.get("rate", rate))
        self._marked = "" if self._rate == 1 else f"|@{_decimal(self._rate, 6)}"
        self._prefix = _NOT_IN_NAMES.sub("_", options.get("prefix", prefix)).strip(".")
        self._tags = read_tags(options["tags"]) if "tags" in options else dict(tags or {})
        self._dialect = options.get("dialect", dialect)
        if self._dialect not in _DIALECTS:
            raise ConfigError(
                f"StatsD dialect {self._dialect!r} is not one of {', '.join(_DIALECTS)}"
            )
        self._series: dict[tuple[object, ...], tuple[str, str]] = {}
        self._socket: socket.socket | None = None
        self._reset()
        _alive.add(self)

    def _reset(self) -> None:
        """Begin with nothing buffered and no thread: when made, and in a forked child."""
        self._lock = threading.Lock()
        self._buffer: list[bytes] = []
        self._size = 0
        self._waiting: deque[bytes] = deque()
        self._refused_until = 0.0
        self._lines = self._datagrams = self._errors = self._dropped = 0
        self._thread: threading.Thread | None = None
        self._news = AutoResetEvent()
        self._resolved = threading.Event()
        self._closing = threading.Event()
        if self._socket is not None:
            self._resolved.set()

    # --- the three verbs -----------------------------------------------------------------

    def increment(self, name: str, value: int, tags: Tags) -> None:
        """Count *value* more of *name*."""
        if self._rate < 1 and random.random() >= self._rate:
            return
        head, tail = self._names(name, tags)
        self._add(f"{head}:{value}|c{self._marked}{tail}".encode())

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        """Say that *name* is *value* now."""
        head, tail = self._names(name, tags)
        line = f"{head}:{_decimal(value, 6)}|g{tail}"
        if value < 0 and self._dialect != "datadog":
            # A signed number is a change, not a value: go to 0 first. One string, so that
            # both lines travel in one datagram, in order.
            line = f"{head}:0|g{tail}\n{line}"
        self._add(line.encode() if math.isfinite(value) else b"")

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        """Record one duration of *seconds*, sent in milliseconds to the microsecond."""
        if self._rate < 1 and random.random() >= self._rate:
            return
        head, tail = self._names(name, tags)
        line = f"{head}:{_decimal(seconds * 1000, 3)}|ms{self._marked}{tail}"
        self._add(line.encode() if math.isfinite(seconds) else b"")

    # --- life ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what is buffered now, if the host's address is known."""
        with self._lock:
            self._pack()
            self._send()

    def close(self) -> None:
        """Send what is buffered and let the socket go; what comes later is dropped.

        Waits at most half a second, and only for an address that is not known yet.
        """
        with self._lock:
            unsent = bool(self._buffer or self._waiting)
        if unsent:
            self._resolved.wait(0.5)
        with self._lock:
            self._pack()
            self._send()
            self._dropped += len(self._waiting)
            self._waiting.clear()
            self._closing.set()
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        self._news.set()

    def statistics(self) -> StatsDStatistics:
        """Return what became of the lines so far."""
        with self._lock:
            return StatsDStatistics(self._lines, self._datagrams, self._errors, self._dropped)

    # --- lines ---------------------------------------------------------------------------

    def _names(self, name: str, tags: Tags) -> tuple[str, str]:
        """Return what stands before and after the value; formatted once per series."""
        key = (name, *tags.items())
        try:
            return self._series[key]
        except KeyError:
            if len(self._series) >= _SERIES:
                self._series.clear()
            made = self._series[key] = self._format(_NOT_IN_NAMES.sub("_", name), tags)
            return made

    def _format(self, name: str, tags: Tags) -> tuple[str, str]:
        measure = MEASURES.get(name)
        known = measure.tags if measure else [key for key in ("queue", "function") if key in tags]
        order = [*known, *sorted(tags.keys() - set(known))]
        pairs = [*self._tags.items(), *((key, tags[key]) for key in order if key in tags)]
        if self._dialect == "datadog":
            tail = ",".join(f"{_clean(key)}:{_value(value)}" for key, value in pairs)
            return ".".join(filter(None, (self._prefix, name))), f"|#{tail}" if tail else ""
        if self._dialect == "influx":
            # A colon in a tag would end the name.
            tail = "".join(f",{_clean(key)}={_clean(value)}" for key, value in pairs)
            return ".".join(filter(None, (self._prefix, name))) + tail, ""
        constant = (_clean(value) for value in self._tags.values())
        # A tag of the measure that is missing keeps its place, or the next would slip into it.
        values = (_clean(tags.get(key, "")) for key in order)
        return ".".join(filter(None, (self._prefix, *constant, name, *values))), ""

    def _add(self, line: bytes) -> None:
        """Buffer *line*; nothing (not a number) and lines too long to send are dropped."""
        with self._lock:
            if not line or len(line) > DATAGRAM or self._closing.is_set():
                self._dropped += 1
                return
            self._lines += 1
            if self._size + len(line) > DATAGRAM:
                self._pack()
                self._send()
            if not self._buffer:
                self._news.set()
            self._buffer.append(line)
            self._size += len(line) + 1
            if self._thread is None:
                self._start()

    def _start(self) -> None:
        """Start the thread. Lock held."""
        self._thread = threading.Thread(target=self._run, name="goose-statsd", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._thread = None  # if it has begun after all, it looks, and ends
            raise

    def _pack(self) -> None:
        """Make the buffer a datagram. Lock held."""
        if self._buffer:
            if len(self._waiting) == _WAITING:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(b"\n".join(self._buffer))
            self._buffer.clear()
            self._size = 0

    def _send(self) -> None:
        """Send the datagrams, without blocking. Lock held."""
        while self._socket is not None and self._waiting:
            datagram = self._waiting.popleft()
            if self._refused_until and time.monotonic() < self._refused_until:
                self._dropped += 1
                continue
            try:
                self._socket.send(datagram)
                self._datagrams += 1
            except BlockingIOError:
                self._errors += 1
            except OSError:
                # No route, no server, or the refusal of an earlier datagram.
                self._errors += 1
                # Nobody listens: to be told so for each datagram would cost more than a server.
                self._refused_until = time.monotonic() + REFUSED
                if isinstance(self._address, str):
                    self._disconnect()

    def _disconnect(self) -> None:
        """Have the thread connect again: a unix socket is gone with its server. Lock held."""
        assert self._socket is not None
        self._socket.close()
        self._socket = None
        self._resolved.clear()

    # --- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        with self._lock:
            unwanted = self._thread is not threading.current_thread()
        if unwanted:
            return
        closing, news = self._closing, self._news
        while not closing.is_set():
            news.wait()
            if self._socket is None and not closing.is_set():
                self._resolve()
            closing.wait(FLUSH)
            if not closing.is_set():
                self.flush()

    def _resolve(self) -> None:
        """Find the address and connect to it, trying again until that works or `close`."""
        said = False
        while not self._closing.is_set():
            try:
                connected = _connect(self._address)
            except (OSError, UnicodeError) as error:
                if not (said or self._closing.is_set()):
                    place = self._address
                    shown = place if isinstance(place, str) else f"{place[0]}:{place[1]}"
                    logger.warning("no metrics to StatsD at %s until it is there: %s", shown, error)
                said = True
                self._closing.wait(RESOLVE_AGAIN)
                continue
            with self._lock:
                if self._closing.is_set():
                    connected.close()
                else:
                    self._socket = connected
            self._resolved.set()
            return


def _connect(place: Place) -> socket.socket:
    if isinstance(place, str):
        return _connected(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), place)
    host, port = place
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    # A local StatsD mostly listens on IPv4 alone, while localhost may name ::1 first.
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    return _connected(socket.socket(family, kind, protocol), address)


def _connected(made: socket.socket, address: object) -> socket.socket:
    try:
        made.setblocking(False)
        made.connect(address)  # type: ignore[arg-type]
    except OSError:
        made.close()
        raise
    return made


def _decimal(value: float, places: int) -> str:
    """Return *value* without exponent or needless zeros; not every server reads ``1e-05``."""
    return f"{value:.{places}f}".rstrip("0").rstrip(".")


def _clean(value: str) -> str:
    return _NOT_IN_PLAIN.sub("_", value[:_VALUE]) or "none"


def _value(value: str) -> str:
    return _NOT_IN_DATADOG.sub("_", value[:_VALUE]) or "none"


_alive: weakref.WeakSet[StatsD] = weakref.WeakSet()


def _after_fork() -> None:
    for statsd in list(_alive):
        statsd._reset()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_after_fork)
