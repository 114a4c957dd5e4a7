"""What a channel has been lent and has not settled, so that many are settled with few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Tags:
    """Delivery tags of one channel in the order of their loans. For the wire's thread."""

    def __init__(self) -> None:
        self._open: dict[int, None] = {}

    def lend(self, tag: int) -> None:
        """Note that *tag*, the highest yet, is lent."""
        self._open[tag] = None

    def clear(self) -> None:
        """Begin anew, with another channel."""
        self._open.clear()

    def settle(self, tags: Sequence[int], say: Any) -> None:
        """Have *say* called with as few tags as will do, and whether those below are meant, too."""
        for tag in tags:
            self._open.pop(tag, None)
        oldest = next(iter(self._open), None)
        ordered = sorted(tags)
        below = 0
        if oldest is None:
            below = len(ordered)
        else:
            while below < len(ordered) and ordered[below] < oldest:
                below += 1
        if below:
            say(ordered[below - 1], True)
        for tag in ordered[below:]:
            say(tag, False)
