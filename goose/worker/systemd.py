"""Tells systemd how a service does: ``Type=notify`` and ``WatchdogSec=``.

systemd names a socket in the environment; a text sent there is all there is to it. Without
that socket nothing happens.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Mapping

logger = logging.getLogger("goose.worker.host")


class Notifier:
    """Sends notes to systemd, each when it is due. For one thread; nothing blocks or raises.

    Args:
        environ: Where ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` are looked for.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "")
        # Half of what systemd waits, as it recommends: one late beat is no death.
        self._every = int(usec) / 2e6 if usec.isdigit() and for_us else math.inf
        self._next = -math.inf
        self._said_ready = False
        self._said = ""
        self._failed = False

    def step(self, now: float, *, started: bool, stopping: bool, status: str) -> None:
        """Say what is new.

        Args:
            now: The monotonic time.
            started: Whether the service has begun to work, ever.
            stopping: Whether it is ending.
            status: One line for ``systemctl status``.
        """
        if not self._address:
            return
        notes: list[str] = []
        if started and not self._said_ready:
            self._said_ready = True
            notes.append("READY=1")
        if status != self._said:
            self._said = status
            notes.append(f"STATUS={status}")
            if stopping:
                notes.append("STOPPING=1")
        if now >= self._next and self._every < math.inf:
            self._next = now + self._every
            notes.append("WATCHDOG=1")
        if notes:
            self._send("\n".join(notes))

    def _send(self, text: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.setblocking(False)
                line.sendto(text.encode(), self._address)
        except OSError as error:
            if not self._failed:
                logger.warning("systemd cannot be told anything: %s", error)
            self._failed = True
