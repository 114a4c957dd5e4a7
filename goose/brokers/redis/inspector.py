"""The inspector: looks at stored jobs and changes them from outside.

Every call of a script is bounded: a page, or a few hundred jobs. What has no end, such as a
purge of a million jobs, is many of them, between which others get their turn. A listing
over all queues merges the first of each.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from goose.brokers.base import Page, QueueStats, Session, State, Stored
from goose.brokers.redis import scripts
from goose.brokers.redis.access import Access, grouped
from goose.brokers.redis.keys import Line
from goose.brokers.redis.links import Call, pairs
from goose.brokers.redis.records import loans, micros, pack, text, unpack
from goose.errors import BrokerError
from goose.jobs import Envelope

_CHUNK = 200
"""Jobs changed in one step at most."""
_PAGE = 1_000
"""Jobs listed in one step at most."""
_LOOKS = 20
"""Times a running job is looked for that moves on at every look."""
_Placed = tuple[float, str, str, bytes]
"""Score, id, queue and value of a listed job."""


class Inspecting(Access):
    """Implements `Inspector`."""

    # --- looking -------------------------------------------------------------------------

    def queues(self) -> Sequence[QueueStats]:
        """See `Inspector.queues`."""
        found: list[QueueStats] = []
        for lines, numbers in self._stats(self._lines()):
            for line, (ready, scheduled, dead, running, oldest) in zip(lines, numbers, strict=True):
                counts = {
                    State.SCHEDULED: scheduled,
                    State.READY: ready,
                    State.RUNNING: running,
                    State.DEAD: dead,
                }
                if any(counts.values()):
                    age = None if oldest < 0 else oldest / 1e6
                    found.append(QueueStats(line.queue, counts, age))
        return found

    def count(self, state: State, queue: str | None = None) -> int:
        """See `Inspector.count`."""
        column = (State.READY, State.SCHEDULED, State.DEAD, State.RUNNING).index(state)
        found = self._stats(self._lines(queue))
        return sum(row[column] for _, numbers in found for row in numbers)

    def _stats(self, lines: Sequence[Line]) -> list[tuple[Sequence[Line], list[list[int]]]]:
        parts = [part for _, part in self._groups(lines)]
        calls = [
            Call(scripts.STATS, [key for line in part for key in _states(line)]) for part in parts
        ]
        answers = self._run_all(calls, again=True)
        return [
            (part, [flat[start : start + 5] for start in range(0, len(flat), 5)])
            for part, flat in zip(parts, answers, strict=True)
        ]

    def page(
        self, state: State, queue: str | None = None, *, limit: int = 100, after: str | None = None
    ) -> Page:
        """See `Inspector.page`; at most 1,000 at a time, so that others get their turn."""
        place = _place(after)
        limit = min(limit, _PAGE)
        if state is State.RUNNING:
            return self._running(queue, limit, place)
        lines = self._lines(queue)
        score, name = ("", "") if place is None else (place[0], place[1])
        calls = [
            Call(scripts.PAGE, (line.jobs, _zset(line, state)), (limit + 1, score, name))
            for line in lines
        ]
        listings: list[list[_Placed]] = []
        for line, flat in zip(lines, self._run_all(calls, again=True), strict=True):
            parts = iter(flat)
            listings.append(
                [
                    (float(at), text(name), line.queue, value)
                    for name, at, value in zip(parts, parts, parts, strict=True)
                ]
            )
        found = list(heapq.merge(*listings))[: limit + 1]
        items = [_stored(*job, state) for job in found[:limit]]
        more = len(found) > limit
        return Page(items, _token(*found[limit - 1][:2]) if more else None)

    def _running(self, queue: str | None, limit: int, place: tuple[str, str] | None) -> Page:
        """Return running jobs, by the session that holds them, then in the order they were lent."""
        found: list[tuple[str, bytes, str, str]] = []
        for name, flat in self._holdings():
            for home, job, receipt in loans(pairs(flat)):
                if queue in (None, home):
                    found.append((name, receipt, home, job))
        found.sort()
        if place is not None:
            found = [loan for loan in found if (loan[0], loan[1].decode()) > place]
        shown = found[:limit]
        values = self._ask_all(
            [(b"HGET", self._keys.line(home).jobs, job) for _, _, home, job in shown]
        )
        items = [
            _running_job(unpack(job, home, value), receipt, name)
            for (name, receipt, home, job), value in zip(shown, values, strict=True)
            if value is not None
        ]
        last = shown[-1] if len(found) > limit else None
        return Page(items, None if last is None else f"{last[0]} {last[1].decode()}")

    def _holdings(self) -> list[tuple[str, Any]]:
        """Return the sessions with loans, and their held hashes."""
        found: list[tuple[str, Any]] = []
        for domain in self._domains():
            [holders] = self._ready().ask([(b"SMEMBERS", domain.holders)])
            names = [name.decode() for name in holders]
            answers = self._ask_all([(b"HGETALL", domain.held(name)) for name in names])
            found += zip(names, answers, strict=True)
        return found

    def find(self, id: str) -> Stored | None:  # noqa: A002 - the contract's name
        """See `Inspector.find`."""
        lines = self._lines()
        running: Stored | None = None
        for _ in range(_LOOKS):
            found = self._find(lines, id)
            if found is None or found.state is not State.RUNNING or found.session is not None:
                return found
            running = found
        return running

    def _find(self, lines: Sequence[Line], name: str) -> Stored | None:
        parts = [part for _, part in self._groups(lines)]
        calls = [
            Call(scripts.FIND, [key for line in part for key in _states(line)], (name,))
            for part in parts
        ]
        for part, reply in zip(parts, self._run_all(calls, again=True), strict=True):
            if reply:
                number, state, score, value = reply
                line = part[number - 1]
                if state != b"running":
                    return _stored(float(score), name, line.queue, value, State(state.decode()))
                return self._find_holder(line, name, unpack(name, line.queue, value))
        return None

    def _find_holder(self, line: Line, name: str, envelope: Envelope) -> Stored:
        domain = line.domain
        [holders] = self._ready().ask([(b"SMEMBERS", domain.holders)])
        names = [holder.decode() for holder in holders]
        field = f"{line.queue}/{name}"
        answers = self._ask_all([(b"HGET", domain.held(holder), field) for holder in names])
        for holder, receipt in zip(names, answers, strict=True):
            if receipt is not None:
                return _running_job(envelope, receipt, holder)
        return Stored(envelope, State.RUNNING, 0.0)

    def next_groups(self, queue: str, *, limit: int = 100) -> Sequence[str]:
        """See `Grouped.next_groups`; looks at four times as many jobs as groups are asked for."""
        line = self._keys.line(queue)
        [ids] = self._ready().ask([(b"ZRANGE", line.turns, 0, 4 * limit - 1)])
        if not ids:
            return []
        [values] = self._ready().ask([(b"HMGET", line.jobs, *ids)])
        groups = [unpack("", queue, value).group for value in values if value is not None]
        return list(dict.fromkeys(group for group in groups if group is not None))[:limit]

    # --- changing ------------------------------------------------------------------------

    def delete(self, ids: Sequence[str], *, state: State) -> Sequence[str]:
        """See `Inspector.delete`.

        Raises:
            BrokerError: *state* is `State.RUNNING`; what is lent belongs to its worker.
        """
        _check_idle(state)
        return self._change(
            ids,
            lambda line, part: Call(
                scripts.DELETE, (line.jobs, _zset(line, state), line.first), part
            ),
        )

    def promote(self, ids: Sequence[str]) -> Sequence[str]:
        """See `Inspector.promote`; they go to the back of their queue, as newly ready."""
        return self._change(
            ids,
            lambda line, part: Call(
                scripts.PROMOTE,
                (line.scheduled, line.ready, line.sleepers, line.wake, line.jobs),
                part,
            ),
        )

    def prioritise(self, ids: Sequence[str]) -> Sequence[str]:
        """See `Inspector.prioritise`."""
        # The last part goes to the front first, and those before it then pass it.
        unique = list(dict.fromkeys(ids))
        parts = [unique[start : start + _CHUNK] for start in range(0, len(unique), _CHUNK)]
        moved: list[str] = []
        for part in reversed(parts):
            moved += self._change(
                part, lambda line, names: Call(scripts.PRIORITISE, (line.ready, line.first), names)
            )
        return [name for name in unique if name in set(moved)]

    def _change(self, ids: Sequence[str], call: Callable[[Line, Sequence[str]], Call]) -> list[str]:
        """Make a change to those of *ids* that are in the right state, whatever their queue."""
        unique = list(dict.fromkeys(ids))
        if not unique:
            return []
        changed: set[str] = set()
        lines = self._lines()
        for _, part in grouped({None: unique}, _CHUNK):
            for reply in self._run_all([call(line, part) for line in lines]):
                changed.update(part[number] for number in reply)
        return [name for name in unique if name in changed]

    def replay(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """See `Inspector.replay`; they go to the back of their queue."""
        given = {envelope.id: envelope for envelope in envelopes}
        lines = self._lines()
        replayed: set[str] = set()
        targets: dict[str, list[Envelope]] = {}
        for envelope in given.values():
            targets.setdefault(envelope.queue, []).append(envelope)
        for queue, part in grouped(targets, _CHUNK):
            replayed.update(self._replay_part(lines, self._keys.line(queue), part))
        return [name for name in given if name in replayed]

    def _replay_part(self, lines: Sequence[Line], new: Line, part: Sequence[Envelope]) -> list[str]:
        args: list[Any] = [new.queue]
        for envelope in part:
            args += (envelope.id, pack(envelope))
        calls = [Call(scripts.REPLAY, _replay_keys(line, new), args) for line in lines]
        return [part[n].id for reply in self._run_all(calls) for n in reply]

    def purge(self, state: State, queue: str | None = None, *, older_than: float = 0.0) -> int:
        """See `Inspector.purge`; some hundred at a time, so that others get their turn.

        Raises:
            BrokerError: *state* is `State.RUNNING`.
        """
        _check_idle(state)
        return sum(self._purge(line, state, older_than) for line in self._lines(queue))

    def _purge(self, line: Line, state: State, older_than: float) -> int:
        keys = (line.jobs, _zset(line, state), line.first)
        by_since = b"1" if state is State.SCHEDULED else b"0"
        removed = start = 0
        count: int
        looked_at: int
        while True:
            args = (micros(older_than), _CHUNK, by_since, start)
            count, looked_at = self._ready().run(Call(scripts.PURGE, keys, args))
            removed += count
            start += looked_at - count
            if looked_at < _CHUNK:
                return removed


def _check_idle(state: State) -> None:
    if state is State.RUNNING:
        raise BrokerError("a running job belongs to its worker; it cannot be removed from outside")


def _states(line: Line) -> tuple[str, str, str, str]:
    return line.jobs, line.ready, line.scheduled, line.dead


def _zset(line: Line, state: State) -> str:
    if state is State.READY:
        return line.ready
    return line.scheduled if state is State.SCHEDULED else line.dead


def _replay_keys(old: Line, new: Line) -> tuple[str, ...]:
    return (old.dead, old.jobs, new.jobs, new.ready, new.sleepers, new.wake, old.domain.queues)


def _place(after: str | None) -> tuple[str, str] | None:
    if after is None:
        return None
    first, space, second = after.partition(" ")
    if not space:
        raise BrokerError(f"{after!r} is no place in a listing; pass Page.next as it came")
    return first, second


def _token(score: float, name: str) -> str:
    return f"{score:.0f} {name}"


def _stored(score: float, name: str, queue: str, value: bytes, state: State) -> Stored:
    at = score / 1e6
    envelope = unpack(name, queue, value)
    if state is State.SCHEDULED:
        envelope = Envelope(name, queue, envelope.body, due_at=at, group=envelope.group)
    return Stored(envelope, state, at)


def _running_job(envelope: Envelope, receipt: bytes, holder: str) -> Stored:
    name, _, epoch = holder.rpartition("/")
    return Stored(envelope, State.RUNNING, int(receipt[:16]) / 1e6, Session(name, int(epoch)))
