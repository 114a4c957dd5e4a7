"""What a batch knows of its members: one byte each, in shards of `SHARD`. Pure.

A member has a number, and its byte says what it is. Bytes are ordered, and whatever is
reported of a member, the greater byte wins. So it does not matter how often something is
reported, in which order, or by whom: a member that ran twice, was recovered, or was reported by a
worker that had lost it counts once, as the furthest it ever came::

    unknown < waiting < retrying < deleted < cancelled < dead < skipped < done

Only a replay goes back: what ended without success is ``waiting`` again. That the function once
succeeded nothing can undo.

A number that was given out and never used stays unknown and is no member, so nothing waits for
it. Whoever adds members says that they wait once they are stored; a member that ends before that
is known by its end.

A shard is one value: 4 bytes that say for how many seconds it is kept after each change (0: for
good), then the bytes of its members as far as any is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

SHARD = 1024
"""Members whose bytes are in one value: few enough to rewrite it for one of them, many enough that
a million make a thousand values."""
HEAD = 4

UNKNOWN: Final = 0
WAITING: Final = 1
RETRYING: Final = 2
DELETED: Final = 3
CANCELLED: Final = 4
DEAD: Final = 5
SKIPPED: Final = 6
DONE: Final = 7
KINDS: Final = 8

RENEWED: Final = -1
"""No byte: what is reported of a member that is replayed."""


def joined(value: bytes | None, reports: Mapping[int, int]) -> bytes:
    """Return a shard once *reports*, by place in the shard, are in it, too."""
    found = bytearray(value or bytes(HEAD))
    for place, kind in reports.items():
        missing = HEAD + place + 1 - len(found)
        if missing > 0:
            found += bytes(missing)
        before = found[HEAD + place]
        if kind == RENEWED:
            found[HEAD + place] = before if before >= SKIPPED else WAITING
        else:
            found[HEAD + place] = max(before, kind)
    return bytes(found)


def kinds(value: bytes | None) -> bytes:
    """Return what each member of a shard is, as far as any is known."""
    return b"" if value is None else value[HEAD:]


def is_settled(value: bytes | None) -> bool:
    """Whether no known member of a shard is still to end."""
    found = kinds(value)
    return WAITING not in found and RETRYING not in found


def count(values: Iterable[bytes | None]) -> tuple[int, ...]:
    """Return how many members of shards are of each kind, by its number."""
    totals = [0] * KINDS
    for value in values:
        found = kinds(value)
        for kind in range(WAITING, KINDS):
            totals[kind] += found.count(kind)
    return tuple(totals)


def kept_for(value: bytes | None) -> float | None:
    """Return the seconds for which a shard is kept after a change; None is for good."""
    return (int.from_bytes(value[:HEAD], "big") if value else 0) or None


def keep_for(value: bytes, seconds: float) -> bytes:
    """Return a shard that is kept for *seconds* after each change, rounded up to whole ones."""
    return min(max(1, -int(-seconds // 1)), 0xFFFFFFFF).to_bytes(HEAD, "big") + value[HEAD:]
