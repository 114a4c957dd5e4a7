"""Where commands end in what a Redis client sends."""

from __future__ import annotations


def command_length(data: bytes) -> int:
    """Return how many bytes the first command of *data* has, 0 if it is not complete."""
    end = data.find(b"\r\n")
    if end < 0:
        return 0
    if data[:1] != b"*":
        return end + 2  # an inline command
    at = end + 2
    for _ in range(int(data[1:end])):
        end = data.find(b"\r\n", at)
        if end < 0:
            return 0
        at = end + 2 + int(data[at + 1 : end]) + 2
    return at if at <= len(data) else 0
