"""What this host knows about time and about its processes.

Sessions are measured by the clock that counts since boot, in suspend too: every process
of the host reads the same value, and nobody can set it, so that a jump of the wall clock
kills no session. It is stored with the boot's id; a session of another boot is dead.

A process is its pid, its start time, and the pid namespace both were read in; with all
three it can be said for certain that a process is gone, which needs no waiting.

Where ``/proc`` is missing (macOS, BSD) the wall clock stands in, all boots look alike and
no death can be proven: sessions then end by silence only, and a jump of the wall clock by
more than a session's time to live ends them all at once. Containers that share a file must
share the host's time namespace, as they do unless told otherwise.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Process:
    """A process of some host, so that it can be recognised later."""

    boot: str
    """Id of the boot; empty where the system has none."""
    namespace: int
    """Inode of the pid namespace; 0 if unknown."""
    pid: int
    started: int
    """Clock ticks between boot and the start of the process; 0 if unknown."""

    def is_gone(self) -> bool:
        """Whether this process has certainly ended; False when it cannot be told."""
        here = current()
        if not here.boot:
            return False
        if self.boot != here.boot:
            return True
        if not here.namespace or self.namespace != here.namespace or not self.started:
            return False
        started = _started(self.pid)
        return started is None or started not in (0, self.started)


def uptime() -> float:
    """Return seconds since boot, including suspend; epoch seconds where boots have no id."""
    if not _boot():
        return time.time()
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def current() -> Process:
    """Return this very process."""
    return _process(os.getpid())


@cache
def _process(pid: int) -> Process:
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return Process(_boot(), namespace, pid, _started(pid) or 0)


@cache
def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Return when *pid* started, in ticks since boot; None if it is gone, 0 if unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the program's name in parentheses and may hold anything.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        # /proc may be missing, or hide the processes of other users.
        return None if _is_free(pid) else 0
    if fields[0] in (b"Z", b"X"):
        return None  # ended, only not yet waited for
    return int(fields[19])


def _is_free(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is there, and another user's
    return False


# A grandchild may get the pid of an ancestor that has ended.
os.register_at_fork(after_in_child=_process.cache_clear)
