"""Looking at a `Store` from outside, and changing it by hand.

A listing walks all jobs in the asked state and keeps the smallest few: plain, and quick
enough for what fits into memory. A page's token is the place of its last job in the order,
so a listing goes on rightly when that job has left in the meantime.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from goose.brokers.base import Page, QueueStats, State, Stored
from goose.brokers.memory.store import Entry, Store
from goose.errors import BrokerError
from goose.jobs import Envelope


class Inspection:
    """The `Inspector` half of a memory broker."""

    _clock: Callable[[], float]
    _open_store: Callable[[], Store]

    def queues(self) -> Sequence[QueueStats]:
        """Return every queue that holds a job, as `Inspector.queues`."""
        store = self._open_store()
        with store.lock:
            now = self._clock()
            store.promote(now)
            found: list[QueueStats] = []
            for name, line in sorted(store.lines.items()):
                counts = {state: len(line.of(state)) for state in State}
                if any(counts.values()):
                    waits = [now - entry.since for entry in line.of(State.READY).values()]
                    found.append(QueueStats(name, counts, max(waits, default=None)))
            return found

    def count(self, state: State, queue: str | None = None) -> int:
        """Return how many jobs are in *state*, as `Inspector.count`."""
        store = self._open_store()
        with store.lock:
            store.promote(self._clock())
            return sum(
                len(line.of(state)) for name, line in store.lines.items() if queue in (None, name)
            )

    def page(
        self, state: State, queue: str | None = None, *, limit: int = 100, after: str | None = None
    ) -> Page:
        """Return up to *limit* jobs in *state*, as `Inspector.page`."""
        store = self._open_store()
        with store.lock:
            store.promote(self._clock())
            start = None if after is None else _place_from(after)
            later = (
                entry
                for entry in store.each(state, queue)
                if start is None or _place(entry) > start
            )
            found = heapq.nsmallest(limit + 1, later, key=_place)
            items = [_shown(entry) for entry in found[:limit]]
            return Page(items, _token(found[limit - 1]) if len(found) > limit else None)

    def find(self, id: str) -> Stored | None:  # noqa: A002 - the contract's own name
        """Return the stored job of that id, as `Inspector.find`."""
        store = self._open_store()
        with store.lock:
            store.promote(self._clock())
            entry = store.jobs.get(id)
            return None if entry is None else _shown(entry)

    def delete(self, ids: Sequence[str], *, state: State) -> Sequence[str]:
        """Remove those of *ids* that are in *state*, as `Inspector.delete`."""
        return self._change(ids, _not_running(state), lambda store, entry, _: store.forget(entry))

    def promote(self, ids: Sequence[str]) -> Sequence[str]:
        """Make scheduled jobs ready now, as `Inspector.promote`."""

        def move(store: Store, entry: Entry, now: float) -> None:
            store.remove(entry)
            store.make_ready(entry, now)

        return self._change(ids, State.SCHEDULED, move)

    def prioritise(self, ids: Sequence[str]) -> Sequence[str]:
        """Move ready jobs to the front of their queue, as `Inspector.prioritise`."""

        def move(store: Store, entry: Entry, _: float) -> None:
            store.remove(entry)
            store.make_first(entry)

        # Each goes before the one moved before it, so the first of *ids* is moved last.
        return self._change(ids[::-1], State.READY, move)[::-1]

    def purge(self, state: State, queue: str | None = None, *, older_than: float = 0.0) -> int:
        """Remove all jobs that are in *state* for that long, as `Inspector.purge`."""
        _not_running(state)
        store = self._open_store()
        with store.lock:
            now = self._clock()
            store.promote(now)
            old = [e for e in store.each(state, queue) if e.since <= now - older_than]
            for entry in old:
                store.forget(entry)
            return len(old)

    def replay(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Make dead jobs ready with new bodies and queues, as `Inspector.replay`."""
        wanted = {envelope.id: envelope for envelope in envelopes}

        def move(store: Store, entry: Entry, now: float) -> None:
            store.remove(entry)
            entry.envelope = wanted[entry.envelope.id]
            store.place(entry, now, now)

        return self._change(list(wanted), State.DEAD, move)

    def next_groups(self, queue: str, *, limit: int = 100) -> Sequence[str]:
        """Return the groups whose jobs wait in *queue*, as `Grouped.next_groups`."""
        store = self._open_store()
        with store.lock:
            store.promote(self._clock())
            line = store.lines.get(queue)
            waiting = [] if line is None else [group for group in line.groups if group is not None]
            return waiting[:limit]

    def _change(
        self, ids: Sequence[str], state: State, move: Callable[[Store, Entry, float], None]
    ) -> Sequence[str]:
        store = self._open_store()
        changed: list[str] = []
        with store.lock:
            now = self._clock()
            store.promote(now)
            for job_id in dict.fromkeys(ids):
                entry = store.jobs.get(job_id)
                if entry is not None and entry.state is state:
                    move(store, entry, now)
                    changed.append(job_id)
            store.changed.notify_all()
        return changed


def _not_running(state: State) -> State:
    if state is State.RUNNING:
        raise BrokerError("running jobs belong to their worker: wait until they are settled")
    return state


def _place(entry: Entry) -> tuple[float, int]:
    """Where *entry* stands among those of its state; ready ones go by their order alone."""
    if entry.state is State.READY:
        return 0.0, entry.order
    return (entry.due if entry.state is State.SCHEDULED else entry.since), entry.order


def _token(entry: Entry) -> str:
    at, order = _place(entry)
    return f"{at!r}/{order}"


def _place_from(token: str) -> tuple[float, int]:
    at, _, order = token.partition("/")
    try:
        return float(at), int(order)
    except ValueError:
        raise BrokerError(f"{token!r} is not the `next` of a page") from None


def _shown(entry: Entry) -> Stored:
    at = entry.due if entry.state is State.SCHEDULED else entry.since
    session = entry.lease.session if entry.state is State.RUNNING else None
    return Stored(entry.envelope, entry.state, at, session)
