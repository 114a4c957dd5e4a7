"""Ids of jobs: unique without asking anybody, and in the order they were made."""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator

_id_lock = threading.Lock()
_id_last = 0


def new_id() -> str:
    """Return a new UUIDv7: 48 bits of milliseconds, then a counter, then chance.

    Ids made by one process sort in the order they were made. Thread-safe, and safe after
    ``fork``: 62 random bits keep two processes of the same millisecond apart.

    Source: RFC 9562, section 5.7, method 3 (sub-millisecond fraction in ``rand_a``).
    """
    return _id(int.from_bytes(os.urandom(8), "big"))


def new_ids() -> Iterator[str]:
    """Yield ids as `new_id` makes them, for the many jobs of one call.

    The system is asked for chance once for hundreds of them. What is left of it must not be kept
    for a later call: a copy of this process (by a fork, or of the whole machine) would have it, too.
    """
    while True:
        for (chance,) in struct.iter_unpack("Q", os.urandom(_AT_ONCE * 8)):
            yield _id(chance)


_AT_ONCE = 250
_VERSION = 7 << 76
_VARIANT = 2 << 62
_CHANCE = (1 << 62) - 1


def _id(chance: int) -> str:
    global _id_last
    with _id_lock:
        stamp = (time.time_ns() << 12) // 1_000_000
        _id_last = stamp = stamp if stamp > _id_last else _id_last + 1
    number = stamp >> 12 << 80 | _VERSION | (stamp & 0xFFF) << 64 | _VARIANT | chance & _CHANCE
    text = number.to_bytes(16, "big").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _unlock_after_fork() -> None:
    global _id_lock
    _id_lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock_after_fork)
