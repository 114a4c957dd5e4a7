"""Ids of jobs: unique without asking anybody, and in the order they were made."""

from __future__ import annotations

import os
import threading
import time

_id_lock = threading.Lock()
_id_last = 0


def new_id() -> str:
    """Return a new UUIDv7: 48 bits of milliseconds, then a counter, then chance.

    Ids made by one process sort in the order they were made. Thread-safe, and safe after
    ``fork``: 62 random bits keep two processes of the same millisecond apart.

    Source: RFC 9562, section 5.7, method 3 (sub-millisecond fraction in ``rand_a``).
    """
    global _id_last
    with _id_lock:
        stamp = (time.time_ns() << 12) // 1_000_000
        _id_last = stamp = stamp if stamp > _id_last else _id_last + 1
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    text = f"{(stamp >> 12) & 0xFFFF_FFFF_FFFF:012x}7{stamp & 0xFFF:03x}{tail:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _unlock_after_fork() -> None:
    global _id_lock
    _id_lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock_after_fork)
