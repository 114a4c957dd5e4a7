"""Upkeep: makes due jobs ready, lets old dead ones go, and cleans up what done ones left behind.

The server's own cleaning comes by once a minute, in which a busy queue leaves a million dead
rows. So a worker whose user owns the tables has them cleaned up sooner: once the server counts
enough of them, which it does a second late, or once this process has left enough by itself. While
a transaction elsewhere stays open for long nothing can be, and it is tried less and less often.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from goose.brokers.base import Promotion
from goose.brokers.postgres.archive import Archived
from goose.brokers.postgres.rows import micros
from goose.errors import BrokerError

logger = logging.getLogger("goose.brokers.postgres")

_SLOW = 0.02
"""Seconds of looking for dead jobs to drop after which it pauses fifty times as long."""
_WASTE = 20_000
"""Dead rows that are worth cleaning up."""
_LOOK = 1.0
"""Seconds between looks at how many there are."""
_REST = 9.0
"""Times as long as it took is a pause at least, so that it costs each process a tenth of its time."""
_TRIM = 1000
"""Dead jobs dropped by one call at most."""


class Upkept(Archived):
    """Implements `Upkeep`."""

    def __init__(self, place: str | None = None, **given: Any) -> None:
        super().__init__(place, **given)
        self._next_trim = 0.0
        self._next_look = 0.0
        self._rest_until = 0.0
        self._settled = 0
        """Jobs settled here since the last look; roughly, since threads may count at once."""

    def promote_due(self, *, limit: int) -> Promotion:
        """See `Upkeep.promote_due`. `dequeue` promotes for itself when it is idle."""
        due_in, some_dead = self._dues()
        promoted = 0
        if due_in is not None and due_in <= 0:
            promoted = self._promote(limit)
            due_in, some_dead = self._dues()
        trimmed = self._trim() if some_dead else 0
        self._clean_up()
        self._tidy_archive()
        return Promotion(promoted, None if due_in is None else max(0.0, due_in), trimmed)

    def _dues(self) -> tuple[float | None, bool]:
        """Return the seconds until the next job is due, and whether there are dead ones."""
        [(due_in, some_dead)] = self._rows("next_due", {}, again=True)
        return None if due_in is None else due_in / 1e6, some_dead

    def _promote(self, limit: int) -> int:
        rows = self._rows("promote_due", {"limit": limit}, again=True)
        if rows:
            self._announce({queue for queue, _ in rows})
        return len(rows)

    def _trim(self) -> int:
        begun = time.monotonic()
        if begun < self._next_trim:
            return 0
        options = self.options
        values = {
            "keep": options.dead_max_count,
            "age": micros(options.dead_max_age),
            "limit": _TRIM,
        }
        trimmed = self._run("trim", values, again=True)
        took = time.monotonic() - begun
        self._next_trim = begun + 51 * took if took > _SLOW else 0.0
        return trimmed

    def _clean_up(self) -> None:
        begun = time.monotonic()
        # A job leaves two rows: as it was stored, and as it was lent.
        enough = 2 * self._settled >= _WASTE
        if begun < (self._rest_until if enough else self._next_look):
            return
        if enough:
            self._settled = 0
        self._next_look = begun + self._random.uniform(_LOOK, 2 * _LOOK)
        rows = self._rows("waste", {}, again=True)
        if not rows or not (enough or rows[0][0] >= _WASTE):
            return
        try:
            self._run("vacuum", {})
        except BrokerError as error:
            # What a large table needs longer for is left to the server's own cleaning.
            logger.info("the table of the jobs could not be cleaned up now: %s", error)
        ended = time.monotonic()
        self._rest_until = ended + _REST * (ended - begun)
        self._next_look = max(self._rest_until, ended + 2 * _LOOK)
