"""A small file that says how a worker is, for probes that run a command.

The supervisor writes it every few seconds, whole or not at all. A probe reads it and imports
nothing of the application: see ``goose health``. A file that is missing or old says that there
is no supervisor, or one that is stuck.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

logger = logging.getLogger("goose.worker.host")

EVERY = 2.0
"""Seconds between two writes."""
MAX_AGE = 15.0
"""Seconds after which a file is old."""


class HeartbeatFile:
    """Writes the file. For one thread.

    Args:
        path: None writes nothing.
    """

    def __init__(self, path: str | None) -> None:
        self._path = Path(path) if path else None
        self._next = -math.inf
        self._failed = False

    def step(self, now: float, *, ready: bool, why: str) -> None:
        """Write, if it is time.

        Args:
            now: The monotonic time.
            ready: Whether jobs are taken.
            why: Why not.
        """
        if self._path is None or now < self._next:
            return
        self._next = now + EVERY
        content = json.dumps({"pid": os.getpid(), "at": time.time(), "ready": ready, "why": why})
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            beside.write_text(content + "\n")
            beside.replace(self._path)
        except OSError as error:
            if not self._failed:
                logger.warning("the heartbeat file cannot be written: %s", error)
            self._failed = True
        else:
            self._failed = False

    def remove(self) -> None:
        """Take the file away: the worker has ended."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def read(path: str, max_age: float = MAX_AGE) -> tuple[bool, bool, str]:
    """Return whether the worker behind *path* is alive, whether it is ready, and a reason.

    Args:
        path: Of its heartbeat file.
        max_age: Seconds after which the file is old.
    """
    try:
        found: dict[str, Any] = json.loads(Path(path).read_text())
        age = time.time() - float(found["at"])
        ready, why = bool(found["ready"]), str(found["why"])
    except FileNotFoundError:
        return False, False, f"{path} does not exist: no worker writes it"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return False, False, f"{path} cannot be read: {error}"
    if age > max_age:
        return False, False, f"{path} is {age:.0f} s old, over {max_age:g} s"
    return True, ready, why or "taking jobs"
