"""The inspector: looks at stored jobs and changes them from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from goose.brokers.base import Page, QueueStats, Session, State, Stored
from goose.brokers.postgres.access import Access
from goose.brokers.postgres.arrays import texts
from goose.brokers.postgres.rows import bodies, micros
from goose.brokers.postgres.statements import DEAD, READY, RUNNING, SCHEDULED
from goose.errors import BrokerError
from goose.jobs import Envelope

_NUMBERS = {
    State.SCHEDULED: SCHEDULED,
    State.READY: READY,
    State.RUNNING: RUNNING,
    State.DEAD: DEAD,
}
_STATES = {number: state for state, number in _NUMBERS.items()}
_PAGES = {State.SCHEDULED: "page_scheduled", State.RUNNING: "page_running"}
_CHUNK = 1000
"""Jobs removed in one step."""
_FIRST = (-(1 << 62), "")


class Inspecting(Access):
    """Implements `Inspector`."""

    # --- looking -------------------------------------------------------------------------

    def queues(self) -> Sequence[QueueStats]:
        """See `Inspector.queues`."""
        counts: dict[str, dict[State, int]] = {}
        oldest: dict[str, float] = {}
        for queue, number, count, age in self._rows("queues", {}, again=True):
            counts.setdefault(queue, dict.fromkeys(State, 0))[_STATES[number]] = count
            if number == READY:
                oldest[queue] = max(0.0, age / 1e6)
        return [QueueStats(queue, counts[queue], oldest.get(queue)) for queue in sorted(counts)]

    def count(self, state: State, queue: str | None = None) -> int:
        """See `Inspector.count`."""
        [(count,)] = self._rows("count", {"queue": queue}, state=_NUMBERS[state], again=True)
        return int(count)

    def page(
        self, state: State, queue: str | None = None, *, limit: int = 100, after: str | None = None
    ) -> Page:
        """See `Inspector.page`."""
        rank, name = _place(after)
        values = {"queue": queue, "rank": rank, "id": name, "limit": limit + 1}
        verb = _PAGES.get(state, "page")
        rows = self._rows(verb, values, state=_NUMBERS[state], again=True)
        more = len(rows) > limit
        rows = rows[:limit]
        return Page(
            [_stored(row) for row in rows], f"{rows[-1][0]}.{rows[-1][1]}" if more else None
        )

    def find(self, id: str) -> Stored | None:  # noqa: A002 - the contract's name
        """See `Inspector.find`."""
        rows = self._rows("find", {"id": id}, again=True)
        return _stored(rows[0]) if rows else None

    def next_groups(self, queue: str, *, limit: int = 100) -> Sequence[str]:
        """See `Grouped.next_groups`; looks at four times as many jobs as groups are asked for."""
        rows = self._rows("next_groups", {"queue": queue, "limit": 4 * limit}, again=True)
        return list(dict.fromkeys(group for (group,) in rows if group is not None))[:limit]

    # --- changing ------------------------------------------------------------------------

    def delete(self, ids: Sequence[str], *, state: State) -> Sequence[str]:
        """See `Inspector.delete`.

        Raises:
            BrokerError: *state* is `State.RUNNING`; what is lent belongs to its worker.
        """
        _check_idle(state)
        removed: set[str] = set()
        for first in range(0, len(ids), _CHUNK):
            values = {"ids": texts(ids[first : first + _CHUNK])}
            rows = self._rows("delete", values, state=_NUMBERS[state])
            removed.update(name for (name,) in rows)
        return [name for name in dict.fromkeys(ids) if name in removed]

    def promote(self, ids: Sequence[str]) -> Sequence[str]:
        """See `Inspector.promote`; they go to the back of their queue, as newly ready."""
        return self._each("promote", ids, {})

    def prioritise(self, ids: Sequence[str]) -> Sequence[str]:
        """See `Inspector.prioritise`."""
        return self._each("prioritise", ids, {})

    def replay(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """See `Inspector.replay`; they go to the back of their queue."""
        given = list({envelope.id: envelope for envelope in envelopes}.values())
        return self._each("replay", [envelope.id for envelope in given], bodies(given))

    def _each(self, verb: str, ids: Sequence[str], values: dict[str, Any]) -> Sequence[str]:
        """Run the statement *verb* on jobs that it may make ready; return those it changed."""
        given = list(dict.fromkeys(ids))
        if not given:
            return []
        rows = self._rows(verb, {**values, "ids": texts(given)})
        changed = {name for name, _ in rows}
        if changed:
            self._announce({queue for _, queue in rows})
        return [name for name in given if name in changed]

    def purge(self, state: State, queue: str | None = None, *, older_than: float = 0.0) -> int:
        """See `Inspector.purge`; a thousand at a time, so that others get their turn.

        Raises:
            BrokerError: *state* is `State.RUNNING`.
        """
        _check_idle(state)
        age = micros(older_than) if older_than > 0 else -(1 << 60)
        values = {"queue": queue, "age": age, "limit": _CHUNK}
        removed = 0
        while True:
            part = self._run("purge", values, state=_NUMBERS[state])
            removed += part
            if part < _CHUNK:
                return removed


def _check_idle(state: State) -> None:
    if state is State.RUNNING:
        raise BrokerError("a running job belongs to its worker; it cannot be removed from outside")


def _place(after: str | None) -> tuple[int, str]:
    if after is None:
        return _FIRST
    rank, _, name = after.partition(".")
    try:
        return int(rank), name
    except ValueError:
        raise BrokerError(
            f"{after!r} is no place in a listing; pass Page.next as it came"
        ) from None


def _stored(row: tuple[Any, ...]) -> Stored:
    _, name, queue, group, body, number, at, rank, holder, epoch = row
    state = _STATES[number]
    due_at = None
    if state is State.SCHEDULED:
        at, due_at = rank, rank / 1e6
    session = Session(holder, epoch) if state is State.RUNNING and holder is not None else None
    return Stored(Envelope(name, queue, body, due_at=due_at, group=group), state, at / 1e6, session)
