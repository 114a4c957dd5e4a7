"""Ports for servers that tests start."""

from __future__ import annotations

import random
import socket

_PORTS = range(15_000, 32_000)
"""Below those that the kernel gives to outgoing connections (32,768 and up, unless told otherwise): one of those
may be taken by any client at all before the server that it was meant for has started."""
_draw = random.SystemRandom()
"""Not of the seed that a test sets: processes side by side should not draw the same."""
_given: set[int] = set()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on at this moment, and no caller here got."""
    while True:
        port = _draw.choice(_PORTS)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
