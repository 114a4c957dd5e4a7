"""A child process as its supervisor sees it, and how one is started.

Children are started fresh, by running this Python again: never by a fork, which would copy
locks, threads and connections in whatever state they are. A child inherits two file
descriptors, its control line and its notes, and learns the rest from its `Bootstrap`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from goose.brokers.base import Session
from goose.worker.control import Bootstrap, Channel, Message
from goose.worker.notes import Notes, Running

CHILD = ("-m", "goose.worker.child")
"""What Python runs as a child."""
SPARE_SLOTS = 12_000
"""Slots a child may be given while it runs, beyond those it starts with."""


class Process(Protocol):
    """A started child process. Nothing here blocks; of a dead one only its notes are asked."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def exit_code(self) -> int | None:
        """Return None while it lives, else its code, negative for the signal that ended it."""
        ...

    def stopped(self) -> bool:
        """Say whether a signal has stopped it (``SIGSTOP``, a debugger)."""
        ...

    def cpu_seconds(self) -> float | None:
        """Return the CPU time it has used; None where that cannot be known."""
        ...

    def kill(self) -> None:
        """Send ``SIGKILL``; a process that is gone already is fine."""
        ...

    def send(self, message: Message) -> bool:
        """Send it a control message; say whether that is on its way."""
        ...

    def receive(self) -> list[Message]:
        """Return what it has sent since."""
        ...

    def last_tick(self) -> float:
        """Return when its engine was last alive (monotonic)."""
        ...

    def last_contact(self) -> float:
        """Return when the broker last answered its fetcher (monotonic)."""
        ...

    def running(self) -> list[Running]:
        """Return the jobs it runs, or ran when it ended."""
        ...

    def ended_last(self) -> list[str]:
        """Return the last jobs of slots that run nothing, whose outcome may be lost with it."""
        ...

    def close(self) -> None:
        """Let go of its notes and control line."""
        ...


Spawn = Callable[[int, Session], Process]
"""Starts the child of that number for that session; raises `OSError` when the system cannot."""


def read_stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` from the state on; empty where there is none."""
    try:
        # The name before it is in parentheses and may hold anything, parentheses too.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def describe(code: int) -> str:
    """Return what an exit code says: itself, or the name of the signal that ended the process."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


class ChildProcess:
    """A real child. Implements `Process`.

    Args:
        bootstrap: What the child is told; its `Bootstrap.notes` is filled in.
        slots: Jobs it can run at once.
        program: Arguments to Python before the number of the control line.
    """

    def __init__(
        self, bootstrap: Callable[[int], Bootstrap], slots: int, program: tuple[str, ...] = CHILD
    ) -> None:
        self._notes = Notes.create(slots, SPARE_SLOTS)
        self._channel, theirs = Channel.pair()
        try:
            # The kernel ends a child with the thread that started it: call this from one
            # that lives as long as the supervisor.
            self._popen = subprocess.Popen(
                [sys.executable, *program, str(theirs.fileno())],
                pass_fds=(theirs.fileno(), self._notes.fileno()),
                stdin=subprocess.DEVNULL,
            )
        except OSError:
            self.close()
            raise
        finally:
            theirs.close()
        self._channel.send(bootstrap(self._notes.fileno()))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def fileno(self) -> int:
        """Return the descriptor to wait on for messages and for the end."""
        return self._channel.fileno()

    @property
    def closed(self) -> bool:
        """Whether its end of the control line is gone, so that waiting on it is of no use."""
        return self._channel.closed

    def exit_code(self) -> int | None:
        """Return None while it lives, else its code."""
        return self._popen.poll()

    def stopped(self) -> bool:
        """Say whether a signal has stopped it."""
        return read_stat(self.pid)[:1] in (["T"], ["t"])

    def cpu_seconds(self) -> float | None:
        """Return user and system time of all its threads."""
        stat = read_stat(self.pid)
        if not stat:
            return None
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """Send ``SIGKILL``."""
        self._popen.kill()

    def send(self, message: Message) -> bool:
        """Send it a control message."""
        return self._channel.send(message)

    def receive(self) -> list[Message]:
        """Return what it has sent since."""
        return self._channel.receive()

    def last_tick(self) -> float:
        """Return when its engine was last alive."""
        return self._notes.last_tick

    def last_contact(self) -> float:
        """Return when the broker last answered its fetcher."""
        return self._notes.last_contact

    def running(self) -> list[Running]:
        """Return the jobs it runs, or ran when it ended."""
        return self._notes.running()

    def ended_last(self) -> list[str]:
        """Return the last jobs of slots that run nothing."""
        return self._notes.ended_last()

    def close(self) -> None:
        """Let go of its notes and control line."""
        self._notes.close()
        self._channel.close()
