"""An outbox table as its relay sees it: which queues wait, whose they are, and what is next.

What waits is chosen by being there, oldest ``seq`` first, and never by "``seq`` greater than the
last one moved": numbers are given out when rows are inserted and seen when their transactions
commit, so a later number may be seen first, and whoever goes on from it never looks at the earlier
one again. A row that was moved is deleted, so what is there has not been moved.

One relay at a time moves a queue. It holds a lease, which it renews while there is work and which
ends by the database's clock should it die. A relay that slept through the end of its lease may
still send what it had read; that is a second copy of jobs, never a loss, and it deletes only what
it has sent.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goose.errors import ConfigError
from goose.features.outbox.databases import Database
from goose.features.outbox.dialects import TABLE, check_table, dialect_of
from goose.features.outbox.outbox import missing
from goose.jobs import Envelope, check_queue
from goose.within import Caller, Rows, Statement

AGAIN = 10
"""Rows that were refused before and are tried again, at most, in each round."""
LONGEST_WAIT = 300.0
"""Seconds a row that the broker refuses waits for its next try, at most; doubles from one."""


@dataclass(frozen=True, slots=True)
class Row:
    """A job that waits to be moved."""

    seq: int
    envelope: Envelope
    tries: int = 0
    """How often the broker has refused it."""
    problem: str = ""
    """Why it cannot be a job; empty if it can."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One queue of an outbox at one moment."""

    queue: str
    waiting: int
    """Rows in all."""
    refused: int
    """Those among them that the broker has refused before."""
    oldest: float
    """Seconds since the oldest was inserted."""
    problem: str | None
    """What the broker said when it last refused one."""


class Table:
    """The table *name* in *database*. For one thread at a time.

    Every method raises `BrokerUnavailable` if the database cannot be reached, and `BrokerError`
    if it refuses or the table is missing.
    """

    def __init__(self, database: Database, name: str = TABLE) -> None:
        self.database = database
        self.name = check_table(name)
        self._dialect = dialect_of(database.dialect)
        self._present = False

    def migration(self) -> list[str]:
        """Return the statements that make the tables, if they are missing."""
        return self._dialect.script(self.name)

    def migrate(self) -> None:
        """Make the tables; harmless if they are there, and safe while others use them."""
        self.database.create(self.migration())

    def queues(self) -> list[str]:
        """Return the queues that have rows, by name."""
        self._look_for_it()
        # From one to the next: each step is one look at the index, however many rows there are.
        found: list[str] = []
        query = "SELECT min(queue) FROM {t}"
        while True:
            [(name,)] = self._look(query, {"last": found[-1]} if found else {})
            if name is None:
                return found
            found.append(name)
            query = "SELECT min(queue) FROM {t} WHERE queue > %(last)s"

    def lease(self, queue: str, holder: str, seconds: float) -> bool:
        """Have *holder* hold *queue* for so long from now; say whether it does, or another."""
        values = {"queue": queue, "holder": holder, "lease": round(seconds * 1e6)}
        query = "SELECT holder, expires_at > {now} FROM {t}_relays WHERE queue = %(queue)s"
        # Looked at first, so that those who wait for their turn write nothing.
        for who, holds in self._look(query, {"queue": queue}):
            if holds and who != holder:
                return False

        def plan(_: Caller) -> Generator[Statement, Rows, bool]:
            yield self._statement(self._dialect.lease, values)
            query = "SELECT holder FROM {t}_relays WHERE queue = %(queue)s"
            rows = yield self._statement(query, {"queue": queue})
            return bool(rows) and rows[0][0] == holder

        return self.database.change(plan)

    def claim(self, queue: str, *, limit: int, without: Iterable[int] = ()) -> list[Row]:
        """Return the next rows of *queue* to move, in the order they were inserted.

        After them come up to `AGAIN` of those that were refused and have waited: they must not
        stand in the way of the others. The caller holds the lease. What another transaction is just
        deleting or changing is left out.
        """
        avoided = ", ".join(map(str, [0, *without]))
        # A locking read sees rows as they are now, where another could see them as they were
        # before the previous holder deleted them; and it waits for nobody.
        select = (
            "SELECT seq, id, queue, grp, body, delay, due_at, stored_at, tries, {now} FROM {t} "
            f"WHERE queue = %(queue)s AND seq NOT IN ({avoided}) AND "
        )
        fresh = f"retry_at IS NULL ORDER BY seq LIMIT {limit} {{locking}}"
        again = f"retry_at <= {{now}} ORDER BY retry_at LIMIT {AGAIN} {{locking}}"

        def plan(_: Caller) -> Generator[Statement, Rows, list[tuple[Any, ...]]]:
            first = yield self._statement(select + fresh, {"queue": queue})
            second = yield self._statement(select + again, {"queue": queue})
            return [*first, *second]

        return [_row(*found) for found in self.database.change(plan)]

    def delete(self, seqs: Sequence[int]) -> None:
        """Delete rows that were moved."""
        if seqs:
            self._change(f"DELETE FROM {{t}} WHERE seq IN ({', '.join(map(str, seqs))})", {})

    def set_back(self, seq: int, problem: str) -> None:
        """Have a row that was refused wait, longer each time, and say why."""
        self._change(
            "UPDATE {t} SET tries = tries + 1, problem = %(problem)s, "
            "retry_at = {now} + CASE WHEN tries > 8 THEN %(longest)s ELSE "
            "1000000 * CASE tries WHEN 0 THEN 1 WHEN 1 THEN 2 WHEN 2 THEN 4 WHEN 3 THEN 8 "
            "WHEN 4 THEN 16 WHEN 5 THEN 32 WHEN 6 THEN 64 ELSE 128 END END WHERE seq = %(seq)s",
            {"seq": seq, "problem": problem[:1000], "longest": round(LONGEST_WAIT * 1e6)},
        )

    def let_go(self, holder: str) -> None:
        """End all leases of *holder*."""
        query = "UPDATE {t}_relays SET expires_at = 0 WHERE holder = %(holder)s"
        self._change(query, {"holder": holder})

    def figures(self) -> list[Figures]:
        """Return what waits, queue by queue."""
        self._look_for_it()
        rows = self._look(
            "SELECT queue, count(*), sum(CASE WHEN tries > 0 THEN 1 ELSE 0 END), "
            "{now} - min(stored_at), max(problem) FROM {t} GROUP BY queue ORDER BY queue",
            {},
        )
        return [
            Figures(queue, int(count), int(refused), max(0.0, float(age) / 1e6), problem)
            for queue, count, refused, age, problem in rows
        ]

    # --- the way to the database ------------------------------------------------------------

    def _look_for_it(self) -> None:
        if not self._present:
            if not self._look(self._dialect.present, {})[0][0]:
                raise missing(self.name)
            self._present = True

    def _statement(self, query: str, values: Mapping[str, Any]) -> Statement:
        return Statement(self._dialect.fill(query, self.name), values)

    def _look(self, query: str, values: Mapping[str, Any]) -> Rows:
        return self.database.look(self._statement(query, values))

    def _change(self, query: str, values: Mapping[str, Any]) -> None:
        def plan(_: Caller) -> Generator[Statement, Rows, None]:
            yield self._statement(query, values)

        self.database.change(plan)


def _row(
    seq: int,
    id: object,  # noqa: A002 - the column's name
    queue: str,
    group: str | None,
    body: Any,
    delay: int | None,
    due_at: int | None,
    stored_at: int,
    tries: int,
    now: int,
) -> Row:
    """Return the row as it is to be moved: what is left of a delay is counted by one clock."""
    left = None if delay is None else max(0.0, (stored_at + delay - now) / 1e6) or None
    at = None if due_at is None or delay is not None else due_at / 1e6
    body = body.encode() if isinstance(body, str) else bytes(body)
    envelope = Envelope(str(id), queue, body, left, at, group)
    try:
        check_queue(queue)
        problem = "" if envelope.id.isprintable() and envelope.id else "its id is no id"
    except ConfigError as error:
        problem = str(error)
    return Row(seq, envelope, tries, problem)
