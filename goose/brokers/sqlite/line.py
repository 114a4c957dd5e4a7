"""Places in the line: where a job stands that gets ready.

A place is a ``rank``. Without groups it is an instant. While a job with a group is ready in a
queue it is a place in a *turn*, `TURNS` or more and so behind all instants: in the turn after that of the
last ready job of its group, and in none before that of the first job there is; there it is the last. A
job that is given back stands before the first, in the same turn, so that whoever comes next
begins no earlier. Nothing but ranks is kept of all this. Source: docs/adr/0023-turns-of-groups.md.
"""

from __future__ import annotations

import sqlite3

from goose.brokers.sqlite.schema import FRESH, TURN, TURNS
from goose.brokers.sqlite.statements import Statements


class Line:
    """Gives out places at the back of queues, within one transaction."""

    def __init__(self, cursor: sqlite3.Cursor, statements: Statements, now: int) -> None:
        self._cursor = cursor
        self._statements = statements
        self._now = now
        self._last: dict[str, int] = {}
        self._turns: dict[tuple[str, str | None], int] = {}
        self._places: dict[tuple[str, int], int] = {}
        self._shared: set[str] = set()
        """Queues in which groups take turns."""

    def back(self, queue: str, group: str | None = None) -> int:
        """Return a rank behind every ready job of *queue*, or of *group*, if groups take turns there.

        Jobs without a group that are new in this transaction may get equal ones.
        """
        if group is None and queue not in self._shared:
            rank = self._last.get(queue)
            if rank is None:
                rank = self._last[queue] = self._first_back(queue)
            if rank < TURNS:
                return rank
        self._shared.add(queue)
        return self._turn(queue, group)

    def new_back(self, queue: str, group: str | None = None) -> int:
        """Return a rank behind all that `back` gave out so far for *queue*, or for *group* there.

        For rows that exist already: their ``seq`` says nothing of when they came.
        """
        rank = self.back(queue, group)
        if rank < TURNS:
            self._last[queue] = rank + 1
        return rank

    def _first_back(self, queue: str) -> int:
        (last,) = self._cursor.execute(self._statements.last_rank, (queue,)).fetchone()
        # The wall clock may have gone back since the last job came.
        return self._now if last is None else max(self._now, int(last) + 1)

    def _turn(self, queue: str, group: str | None) -> int:
        turn = self._turns.get((queue, group))
        if turn is None:
            execute, statements = self._cursor.execute, self._statements
            (last,) = execute(statements.last_turn, (queue, group)).fetchone()
            (first,) = execute(statements.first_turn, (queue,)).fetchone()
            turn = max(0 if last is None else turn_of(last) + 1, turn_of(first or TURNS))
        self._turns[queue, group] = turn + 1
        begins = TURNS + turn * TURN
        place = self._places.get((queue, turn))
        if place is None:
            statement = self._statements.last_place
            (last,) = self._cursor.execute(statement, (queue, begins + TURN)).fetchone()
            place = max(begins + TURN // 2, 0 if last is None else last + 1)
        self._places[queue, turn] = min(place + 1, begins + TURN - 1)
        return place


def turn_of(rank: int) -> int:
    """Return the turn in which a rank of at least `TURNS` is."""
    return (rank - TURNS) // TURN


def give_back(cursor: sqlite3.Cursor, statements: Statements, pairs: str) -> None:
    """Make these loans ready again, each at the place it had, or in the turn that goes now.

    Args:
        cursor: In a transaction.
        statements: Of the namespace.
        pairs: The loans, as JSON; see `rows.loans`.
    """
    turned = cursor.execute(statements.turned, (pairs,)).fetchall()
    for queue in {row[1] for row in turned}:
        (first,) = cursor.execute(statements.first_turn, (queue,)).fetchone()
        mine = [row for row in turned if row[1] == queue]
        begins = TURNS if first is None else TURNS + turn_of(first) * TURN
        for number, (seq, _, rank) in enumerate(mine):
            place = rank if first is None else max(begins, first - len(mine) + number)
            if place > rank:  # else it had not come to that yet
                cursor.execute(statements.move_loan, (place, seq))
    cursor.execute(statements.release, (pairs,))


def has_fresh(cursor: sqlite3.Cursor, statements: Statements) -> bool:
    """Say whether there are jobs that are not in line yet."""
    newest = cursor.execute(statements.newest).fetchone()
    return newest is not None and newest[0] == FRESH


def place_fresh(cursor: sqlite3.Cursor, statements: Statements) -> None:
    """Put fresh jobs in line, each at the back of its queue, but drop those stored already.

    Every transaction that adds, takes or removes jobs does so first. Else a job could be taken
    before those that came earlier; one stored again while its first copy runs would be found
    out too late; and other rows would come after fresh ones, where nobody looks for them.
    """
    if not has_fresh(cursor, statements):
        return
    last = cursor.execute(statements.last_placed).fetchone() or (0,)
    if cursor.execute(statements.shares, last).fetchone():
        for seq, queue, group, at in cursor.execute(statements.fresh, last).fetchall():
            rank = Line(cursor, statements, at).back(queue, group)
            cursor.execute(statements.place_one, (rank, seq))
    else:
        cursor.execute(statements.place, last)
    cursor.execute(statements.drop_doubles, last)


def promote_due(
    cursor: sqlite3.Cursor, statements: Statements, queue: str, now: int, limit: int
) -> int:
    """Make up to *limit* due jobs of *queue* ready; return how many.

    Each keeps its due instant as its place, but where groups take turns.
    """
    due = cursor.execute(statements.due, (queue, now, limit)).fetchall()
    if not due:
        return 0
    if all(group is None for _, group, _ in due):
        (first,) = cursor.execute(statements.first_turn, (queue,)).fetchone()
        if first is None:
            cursor.execute(statements.promote_due, (queue, now, limit))
            return len(due)
    line = Line(cursor, statements, now)
    shares = cursor.execute(statements.first_turn, (queue,)).fetchone() != (None,)
    for seq, group, at in due:
        shares = shares or group is not None
        cursor.execute(statements.promote_one, (line.back(queue, group) if shares else at, seq))
    return len(due)
