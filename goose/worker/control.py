"""What a supervisor and its child processes tell each other.

One socket pair per child, one line of JSON per message, each message a small frozen
dataclass. The end of the stream is a message too: a child that reads it ends at once,
because its supervisor is gone and nobody sends its heartbeats any more; a supervisor that
reads it knows that the child is ending.

A `Channel` belongs to one reader; `Channel.send` may be called from any thread.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, get_args

logger = logging.getLogger("goose.worker.control")

_PR_SET_PDEATHSIG = 1


# --- to the child --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """The first message to a child: all it needs to begin. Durations are seconds."""

    supervisor: int
    """Process id of the supervisor."""
    broker: str
    """URL."""
    modules: Sequence[str]
    config: Mapping[str, Any]
    """Fields of the child's `WorkerConfig`, queues as pairs of name and weight."""
    session: str
    epoch: int
    notes: int | None = None
    """The inherited file descriptor of its `Notes`."""
    middleware: Sequence[str] = ()
    """As ``module:name``, outermost first."""
    metrics: Sequence[str] = ()
    """As URL or ``module:name``."""
    resources: Sequence[str] = ()
    """As ``module:name``."""
    max_jobs: int | None = None
    max_rss: int | None = None
    """Bytes of resident memory."""
    reload: bool = False
    until_empty: bool = False
    log_level: str = "info"
    log_format: str = "text"
    index: int = 0
    """Which of the supervisor's children it is, from 0."""
    processes: int = 1
    """How many children the supervisor has if nobody orders another number."""
    hand_over: bool = False
    """Whether the supervisor shows this child's numbers."""
    told: Sequence[tuple[str, str]] = ()
    """The dangers that the supervisor has logged already: see `goose.brokers.dangers`."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop taking jobs, give back what is not started, wait for the rest, end."""

    grace: float
    """Seconds that running jobs have; 0 is none."""
    make_way: bool = False
    """Whether another may take the child's place before it has ended, and finds the ports free."""


@dataclass(frozen=True, slots=True)
class NewSession:
    """The broker holds the child's session for dead; this one is open and takes its place."""

    id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Count:
    """Numbers for the metrics a child has: what the supervisor did, or measured for all of them."""

    increments: Sequence[tuple[str, int, Mapping[str, str]]]
    """Name, value and tags of each."""
    gauges: Sequence[tuple[str, float, Mapping[str, str]]] = ()
    """The same for gauges."""


@dataclass(frozen=True, slots=True)
class Dump:
    """Log every running job with its stack."""


# --- to the supervisor ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything is imported and opened; the child takes jobs from now on."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The broker refused the child's session; a heartbeat now will tell."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """The child takes no more jobs and ends when those it runs are done; replace it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Empty:
    """There was nothing left to do, so the child ends for good; do not replace it."""


@dataclass(frozen=True, slots=True)
class Ordered:
    """What the child just read in the orders that concerns the worker as a whole."""

    processes: int | None
    """How many children there are to be; None is as many as the supervisor was started with."""
    log_level: str | None
    """What the supervisor is to log by; None is likewise."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the child has counted since it last said so."""

    changes: Sequence[Any]
    """As `goose.metrics.handover` makes them."""


@dataclass(frozen=True, slots=True)
class Registry:
    """What the user's own functions have counted with prometheus-client, all of it."""

    families: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last word of a child that ends in good order."""

    clean: bool
    """Whether nothing was running any more."""


@dataclass(frozen=True, slots=True)
class Fatal:
    """The child cannot begin, or not go on."""

    exit_code: int
    """What the supervisor would exit with: 2 settings, 3 modules, 4 broker, 1 anything else."""
    text: str


ToChild: TypeAlias = Bootstrap | Stop | NewSession | Count | Dump
ToSupervisor: TypeAlias = (
    Ready | Refused | Leaving | Empty | Ordered | Numbers | Registry | Stopped | Fatal
)
Message: TypeAlias = ToChild | ToSupervisor

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind for kind in (*get_args(ToChild), *get_args(ToSupervisor))
}


def encode(message: Message) -> bytes:
    """Return *message* as one line."""
    # Not `asdict`, which would copy every number first.
    said = {"kind": type(message).__name__}
    said.update((name, getattr(message, name)) for name in message.__slots__)
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Return the message in *line*.

    Raises:
        ValueError: There is none.
    """
    try:
        fields = json.loads(line)
        return _KINDS[fields.pop("kind")](**fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{line[:80]!r} is not a control message") from error


@dataclass(slots=True)
class Channel:
    """One end of the line between a supervisor and a child.

    Attributes:
        closed: Whether the other end is gone; what it sent before can still be received.
    """

    socket: socket.socket
    closed: bool = False
    _rest: bytes = b""
    _unsent: bytes = b""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.socket.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Return the two ends of a new line."""
        one, other = socket.socketpair()
        return cls(one), cls(other)

    def fileno(self) -> int:
        """Return the file descriptor, to inherit or to wait on."""
        return self.socket.fileno()

    def send(self, message: Message) -> bool:
        """Send *message* without blocking; say whether it is on its way.

        It is not when the other end is gone, or has not read for so long that nothing fits
        any more. A message that fits in part is on its way: the rest goes with the next call.
        """
        line = encode(message)
        with self._lock:
            try:
                if self._unsent:
                    self._unsent = self._unsent[self.socket.send(self._unsent) :]
                if self._unsent:
                    return False
                self._unsent = line[self.socket.send(line) :]
                return True
            except OSError:
                return False

    def receive(self, wait: float = 0.0) -> list[Message]:
        """Return the messages that are here, after at most *wait* seconds.

        A line that is no message is logged and left out.
        """
        if wait > 0:
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            poll.poll(wait * 1000)
        data = self._rest + self._read()
        *lines, self._rest = data.split(b"\n")
        return [message for line in lines if (message := _understood(line)) is not None]

    def close(self) -> None:
        """Close this end."""
        self.socket.close()

    def _read(self) -> bytes:
        chunks: list[bytes] = []
        while not self.closed:
            try:
                chunk = self.socket.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            self.closed = not chunk
            chunks.append(chunk)
        return b"".join(chunks)


def _understood(line: bytes) -> Message | None:
    try:
        return decode(line)
    except ValueError as error:
        logger.warning("%s; ignored", error)
        return None


def die_with(parent: int) -> None:
    """Make this process end with the process *parent*, which must be its parent.

    On Linux the kernel kills it as soon as the thread that started it ends; elsewhere the
    end of the control stream must do. Ends this process at once if *parent* is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It may have died before the kernel was told to watch it.
    if os.getppid() != parent:
        os._exit(1)
