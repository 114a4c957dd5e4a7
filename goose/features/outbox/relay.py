"""Moves jobs from an outbox table to a broker.

A round looks at every queue that has rows; for each that it may hold (see `table`) it reads what
is next, hands it to the broker, and deletes what the broker has confirmed. Whatever is killed in
between, a row is there until its job is stored: moved at least once, and twice only if the
confirmation or the deletion was cut off. A broker that dedupes by the job's id makes one of two.

What goes wrong is told apart by trying:

* The broker **refuses** a row that is sent alone: the row waits, longer each time, and the others
  go on. Nothing is given up: a broker that was only full takes it later.
* The broker **cannot be reached**: the round ends, and the next comes after a pause. A body that
  breaks the connection looks the same, so another row is tried next time; once one got through,
  those that failed are tried once more and then wait like refused ones.

After a failure, as many rows as failed together are sent one by one, each once more at most.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from goose.brokers.base import Broker
from goose.errors import BrokerError, BrokerUnavailable
from goose.features.outbox.table import Figures, Row, Table
from goose.metrics import base as names
from goose.metrics.base import Metrics

logger = logging.getLogger("goose.outbox")

BATCH = 500
"""Rows moved together at most."""
FIRST = 50
"""Rows moved together before it is known how large they are."""
BYTES = 16 << 20
"""Bytes of bodies moved together, about: what a relay holds in memory."""
SHORTEST, LONGEST = 0.02, 0.5
"""Seconds between looks: the pause doubles from the first to the second while nothing is found."""
REFUSALS = 10
"""Rows refused one after the other after which it is the broker, and a pause is in order."""
SUSPECTS = 20
"""Rows passed over in a queue while nothing gets through; beyond that, the first has to wait."""
MEASURE_EVERY = 10.0
"""Seconds between two measurements."""


@dataclass(slots=True)
class _Line:
    """What a relay knows of one queue."""

    limit: int = FIRST
    """Rows to move together, by the size of the last ones."""
    leased_mono: float | None = None
    """When the lease was last asked for, if it was given."""
    careful: int = 0
    """So many rows are to be sent one by one."""
    suspects: dict[int, tuple[Row, str]] = field(default_factory=dict)
    """Rows that failed alone while nothing else got through, and how."""
    moved: list[int] = field(default_factory=list)
    """Rows that the broker has confirmed and that may still be there."""


class Relay:
    """Moves. `step` and `close` are called by one thread at a time; any number may relay at once.

    Args:
        broker: Where jobs go.
        table: Where they come from.
        metrics: What is counted and measured into.
        lease: Seconds after which another relay takes over the queues of one that died.
        mono: Monotonic seconds.
    """

    def __init__(
        self,
        broker: Broker,
        table: Table,
        *,
        metrics: Metrics,
        lease: float = 30.0,
        mono: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker = broker
        self._table = table
        self._metrics = metrics
        self._lease = lease
        self._mono = mono
        self._name = uuid.uuid4().hex
        self._lines: dict[str, _Line] = {}
        self._has_leased = False
        self._first = ""
        self._pause = SHORTEST
        self._measure_at = 0.0
        self._shown: set[str] = set()
        self._told: set[int] = set()

    def step(self, now: float) -> float:
        """Move up to a batch of every queue; return the seconds until the next look.

        Raises:
            BrokerError: Broker or database failed; what was not confirmed is still there.
        """
        if now >= self._measure_at:
            self._measure_at = now + MEASURE_EVERY
            began = self._mono()
            self.measure()
            # Counting very many rows takes a while, which is not to be most of what is done.
            self._measure_at += 20 * (self._mono() - began)
        if self.move():
            self._pause = SHORTEST
            return 0.0
        self._pause = min(self._pause * 2, LONGEST)
        return self._pause

    def move(self) -> int:
        """Move up to a batch of every queue; return how many jobs were moved.

        Raises:
            BrokerError: As `step`.
        """
        queues = self._table.queues()
        self._lines = {queue: self._lines.get(queue) or _Line() for queue in queues}
        moved = 0
        failed: list[Exception] = []
        # Begun where the last one ended: an outage must not keep any queue from its turn.
        later = [queue for queue in queues if queue >= self._first]
        for queue in [*later, *queues[: len(queues) - len(later)]]:
            try:
                moved += self._move(queue, self._lines[queue])
            except Exception as error:
                failed.append(error)
                if len(failed) > 1:  # one queue may be to blame, but hardly two
                    self._first = queue
                    raise
        if failed:
            raise failed[0]
        return moved

    def _move(self, queue: str, line: _Line) -> int:
        self._forget(line)
        if not self._holds(queue, line):
            return 0
        rows = self._table.claim(queue, limit=line.limit, without=line.suspects)
        if not rows and line.suspects:
            line.suspects.clear()  # there is no other: from the beginning
            rows = self._table.claim(queue, limit=1)
        if not rows or not self._is_fresh(line):
            return 0
        size = sum(len(row.envelope.body) for row in rows)
        line.limit = max(1, min(BATCH, BYTES * len(rows) // max(1, size)))
        try:
            self._send(rows, line)
        finally:
            count = len(line.moved)
            if count:
                self._metrics.increment(names.OUTBOX_MOVED, count, {"queue": queue})
            self._forget(line)
        return count

    def _forget(self, line: _Line) -> None:
        """Delete what was moved; should that fail, it is the first thing to be tried again."""
        self._table.delete(line.moved)
        line.moved = []

    # --- leases -----------------------------------------------------------------------------

    def _holds(self, queue: str, line: _Line) -> bool:
        now = self._mono()
        if line.leased_mono is None or now - line.leased_mono > self._lease / 4:
            holds = self._table.lease(queue, self._name, self._lease)
            line.leased_mono = now if holds else None
            self._has_leased = self._has_leased or holds
        return line.leased_mono is not None

    def _is_fresh(self, line: _Line) -> bool:
        """Say whether what was read is certainly still ours: this process may have been paused."""
        assert line.leased_mono is not None
        return self._mono() - line.leased_mono < self._lease / 2

    # --- to the broker ----------------------------------------------------------------------

    def _send(self, rows: Sequence[Row], line: _Line) -> None:
        for row in rows:
            if row.problem:
                self._set_back(row, row.problem)
        fresh = [row for row in rows if not (row.problem or row.tries)]
        if not (line.careful or line.suspects or len(fresh) == 1):
            try:
                self._pass_on(fresh, line)
                fresh = []
            except Exception as error:
                moved = set(line.moved)
                fresh = [row for row in fresh if row.seq not in moved]
                line.careful = len(fresh)
                if isinstance(error, BrokerUnavailable) or not isinstance(error, BrokerError):
                    raise
        self._send_alone(fresh, line)
        self._send_alone([row for row in rows if row.tries and not row.problem], line)

    def _send_alone(self, rows: Sequence[Row], line: _Line) -> None:
        refusals = 0
        for row in rows:
            if not self._is_fresh(line):
                return
            line.careful = max(0, line.careful - 1)
            try:
                self._pass_on([row], line)
            except BrokerUnavailable as error:
                self._suspect(row, str(error), line)
                raise
            except BrokerError as error:
                refusals += 1
                self._set_back(row, str(error))
                if refusals == REFUSALS:
                    raise
            except Exception as error:  # a defect of the broker's
                self._suspect(row, f"{type(error).__name__}: {error}", line)
                raise
            else:
                refusals = 0
                self._clear(line)

    def _suspect(self, row: Row, problem: str, line: _Line) -> None:
        if line.moved:  # others just got through
            self._set_back(row, problem)
            return
        line.suspects[row.seq] = (row, problem)
        if len(line.suspects) > SUSPECTS:
            first = next(iter(line.suspects))
            self._set_back(*line.suspects.pop(first))

    def _clear(self, line: _Line) -> None:
        """Try once more those that failed before one got through: now it is they, or it is over."""
        while line.suspects:
            row, problem = line.suspects.pop(next(iter(line.suspects)))
            try:
                self._pass_on([row], line)
            except Exception:
                self._set_back(row, problem)
                raise

    def _pass_on(self, rows: Sequence[Row], line: _Line) -> None:
        """Hand *rows* to the broker, and note those that it has confirmed."""
        for later in (False, True):
            part = [row for row in rows if _is_later(row) is later]
            if part:
                verb = self._broker.schedule if later else self._broker.enqueue
                verb([row.envelope for row in part])
                line.moved += [row.seq for row in part]

    def _set_back(self, row: Row, problem: str) -> None:
        self._table.set_back(row.seq, problem)
        queue = row.envelope.queue
        self._metrics.increment(names.OUTBOX_REFUSED, 1, {"queue": queue})
        level = logging.DEBUG if row.seq in self._told else logging.ERROR
        if len(self._told) > 10_000:
            self._told.clear()
        self._told.add(row.seq)
        logger.log(
            level, "job %s waits in the outbox: the broker refuses it: %s", row.envelope.id, problem
        )

    # --- numbers ----------------------------------------------------------------------------

    def measure(self) -> None:
        """Report how much waits, and for how long.

        Raises:
            BrokerError: The database failed.
        """
        found = {figures.queue: figures for figures in self._table.figures()}
        for queue in self._shown - found.keys():
            found[queue] = Figures(queue, 0, 0, 0.0, None)
        for queue, figures in found.items():
            states = {"waiting": figures.waiting - figures.refused, "refused": figures.refused}
            for state, count in states.items():
                self._metrics.gauge(names.OUTBOX_SIZE, count, {"queue": queue, "state": state})
            self._metrics.gauge(names.OUTBOX_OLDEST, figures.oldest, {"queue": queue})
        self._shown = set(found)

    def close(self) -> None:
        """Let others take over at once, and close the connection."""
        try:
            if self._has_leased:  # perhaps a queue in which nothing is left
                self._table.let_go(self._name)
        except BrokerError as error:
            logger.debug("the leases of %s end by themselves: %s", self._name, error)
        self._table.database.close()


def _is_later(row: Row) -> bool:
    return row.envelope.delay is not None or row.envelope.due_at is not None
