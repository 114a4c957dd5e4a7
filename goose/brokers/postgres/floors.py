"""Where looks for ready jobs may begin, while old index entries cannot be cleaned up.

Each job that was lent leaves an entry at the front of the index of ready jobs, which the server
removes as soon as no transaction might still see it. While some transaction anywhere in the
database stays open (a report, a backup, a forgotten session), none is removed, and a look from
the front reads them all: the more jobs were done, the longer it takes.

So a broker that notices that looks have become slow begins them where it found the last job.
Every now and then it looks from the front again, since jobs may be ready there too: given
back by others, moved to the front, or stored by a transaction that took long to commit. How
often depends on how long that takes, so that it costs a small part of the time, and such a
job waits for two seconds at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from goose.brokers.postgres.statements import TURNS

_BOTTOM = -(1 << 63)
SLOW = 0.005
"""Seconds after which a look from the front counts as slow."""
_SHARE = 20
"""It is left alone for so many times as long as it took …"""
_LONGEST = 2.0
"""… but not for longer than so many seconds."""


class Floors:
    """The floors of one broker object. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._floors: dict[str, int] = {}
        self._until = 0.0

    def of(self, queues: Sequence[str], *, whole: bool = False) -> tuple[list[int], bool]:
        """Return where to begin in each of *queues*, and whether that is the front of all.

        Args:
            queues: Their names.
            whole: Whether it must be.
        """
        with self._guard:
            if not whole and self._floors and time.monotonic() < self._until:
                return [self._floors.get(queue, _BOTTOM) for queue in queues], False
        return [_BOTTOM] * len(queues), True

    def learn(self, ranks: Mapping[str, int], seconds: float, *, whole: bool) -> None:
        """Note where a look found its last jobs, and how long it took.

        Args:
            ranks: Of the last job of each queue.
            seconds: How long it took.
            whole: Whether it began at the front.
        """
        with self._guard:
            # Turns of groups do not only rise: who comes after a while begins at the first there is.
            ranks = {queue: min(rank, TURNS) for queue, rank in ranks.items()}
            if not whole:
                self._floors.update(ranks)
            elif seconds > SLOW:
                self._until = time.monotonic() + min(seconds * _SHARE, _LONGEST)
                self._floors |= ranks
            else:
                self._floors = {}

    def clear(self, queues: Iterable[str]) -> None:
        """Look from the front of *queues* the next time: a job may have come there."""
        with self._guard:
            for queue in queues:
                self._floors.pop(queue, None)
