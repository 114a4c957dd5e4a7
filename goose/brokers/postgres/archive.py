"""Jobs that are done, kept for a period in a table of their own.

Only with the option ``keep_done``. An ack moves its jobs there in the very statement that ends
their loans, so nothing is kept that was not done, and nothing done is missing. What has been
kept for long enough goes by whole partitions of six hours.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from goose.brokers.base import Session
from goose.brokers.completion import Finished
from goose.brokers.postgres.rows import micros
from goose.brokers.postgres.sessions import Sessioned
from goose.errors import BrokerError, Unsupported
from goose.jobs import Envelope

logger = logging.getLogger("goose.brokers.postgres")

_EVERY = 600.0
"""Seconds between looks at what is over."""
_LAST = ((1 << 62), "")


class Archived(Sessioned):
    """Implements `Archive`."""

    def __init__(self, place: str | None = None, **given: Any) -> None:
        super().__init__(place, **given)
        self._next_tidy = 0.0
        if self.options.keep_done:
            self.needs = max(self.needs, 3)

    @property
    def _ack_verb(self) -> str:
        """The statement that acks."""
        return "ack_keep" if self.options.keep_done else "ack"

    def open(self, session: Session, *, ttl: float) -> None:
        """See `Sessions.open`; before a worker's first ack there is a partition for it."""
        super().open(session, ttl=ttl)
        self._tidy_archive()

    def _tidy_archive(self) -> None:
        if not self.options.keep_done or time.monotonic() < self._next_tidy:
            return
        self._next_tidy = time.monotonic() + _EVERY
        try:
            self._rows("keep_done", {"keep": micros(self.options.keep_done)}, again=True)
        except BrokerError as error:
            # Without partitions the rest of the table takes them; what is over goes next time.
            logger.warning("finished jobs could not be tidied up now: %s", error)

    def finished(
        self, queue: str | None = None, *, limit: int = 100, after: Finished | None = None
    ) -> Sequence[Finished]:
        """See `Archive.finished`."""
        if not self.options.keep_done:
            raise Unsupported(
                "this broker forgets jobs that are done; add keep_done=7d to its URL, here and for "
                "workers"
            )
        at, name = (micros(after.at), after.envelope.id) if after else _LAST
        values = {"queue": queue, "at": at, "id": name, "limit": limit}
        return [
            Finished(Envelope(row[1], row[2], row[4], group=row[3]), row[0] / 1e6)
            for row in self._rows("finished", values, again=True)
        ]
