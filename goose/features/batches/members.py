"""What a batch knows of its members: one byte for each, in shards of `SHARD`. Pure.

A member has a number, and its byte says how far it is. Bytes are ordered, and whatever is
reported of a member, the greater byte wins. So it does not matter how often something is
reported, in which order, or by whom: a member that ran twice, was recovered, or was reported by a
worker that had lost it counts once, as the furthest it ever came::

    unknown < waiting < retrying < deleted < cancelled < dead    of one generation
                                                 …               of the next one
                                                 … < skipped < done

A dead member that is replayed begins a new *generation*, in which it may die again; what is still
said of the old one is older than that, and changes nothing. ``skipped`` and ``done`` are final:
no copy that ends otherwise can undo that the function once succeeded.

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

GENERATIONS = 16
_FINAL = {SKIPPED: 0xFE, DONE: 0xFF}
_KIND = bytes(
    SKIPPED if state == _FINAL[SKIPPED] else DONE if state == _FINAL[DONE] else state & 7
    for state in range(256)
)
"""From each byte to what it says."""


def state(kind: int, generation: int) -> int:
    """Return the byte of a member that is *kind*, having been replayed *generation* times."""
    # Beyond the last one that can be told apart, a replay may be seen late, and its end is not.
    return _FINAL.get(kind) or min(generation, GENERATIONS - 1) << 3 | kind


def joined(value: bytes | None, states: Mapping[int, int]) -> bytes:
    """Return a shard once *states*, by place in the shard, are reported, too."""
    found = bytearray(value or bytes(HEAD))
    for place, byte in states.items():
        missing = HEAD + place + 1 - len(found)
        if missing > 0:
            found += bytes(missing)
        found[HEAD + place] = max(found[HEAD + place], byte)
    return bytes(found)


def kinds(value: bytes | None) -> bytes:
    """Return what each member of a shard is, as far as any is known."""
    return b"" if value is None else value[HEAD:].translate(_KIND)


def is_settled(value: bytes | None) -> bool:
    """Whether no known member of a shard is still to end."""
    found = kinds(value)
    return WAITING not in found and RETRYING not in found


def count(values: Iterable[bytes | None]) -> tuple[int, ...]:
    """Return how many members of shards are of each kind, by its number."""
    totals = [0] * 8
    for value in values:
        found = kinds(value)
        for kind in range(WAITING, DONE + 1):
            totals[kind] += found.count(kind)
    return tuple(totals)


def kept_for(value: bytes | None) -> float | None:
    """Return the seconds for which a shard is kept after a change; None is for good."""
    return (int.from_bytes(value[:HEAD], "big") if value else 0) or None


def keep_for(value: bytes, seconds: float) -> bytes:
    """Return a shard that is kept for *seconds* after each change, rounded up to whole ones."""
    return min(max(1, -int(-seconds // 1)), 0xFFFFFFFF).to_bytes(HEAD, "big") + value[HEAD:]
