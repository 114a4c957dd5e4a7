"""`Crons`: the entries of one store, to look at and to change.

Every change is a swap of the whole entry, tried again on what somebody else made of it meanwhile,
so that nothing of theirs is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from goose.errors import ConfigError
from goose.features.crons.entries import PREFIX, Cron, check_name, define, dump, key_of, parse
from goose.jobs import Job
from goose.stores.base import Delete, Get, Operation, Store, Swap

PAGE = 100
"""Entries read in one call."""


def stored(store: Store) -> Iterator[tuple[str, bytes]]:
    """Yield the key and the value of every entry."""
    after = ""
    while True:
        page = store.scan(PREFIX, limit=PAGE, after=after)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1][0]


class Crons:
    """Looks at cron entries and changes them. Any thread may use it.

    Args:
        store: Where they are.
        send: Enqueues a job; returns it, or the one that has its key.
    """

    def __init__(self, store: Store, send: Callable[[Job[Any]], Job[Any]]) -> None:
        self._store = store
        self._send = send

    def list(self) -> list[Cron]:
        """Return all entries, by name."""
        return [parse(value) for _, value in stored(self._store)]

    def get(self, name: str) -> Cron | None:
        """Return the entry of that name, None if there is none."""
        check_name(name)
        value = self._one(Get(key_of(name)))
        return None if value is None else parse(value)

    def found(self, name: str) -> Cron:
        """Return the entry of that name.

        Raises:
            ConfigError: There is no such entry.
        """
        check_name(name)
        return self._known(name, self._one(Get(key_of(name))))

    def pause(self, name: str) -> Cron:
        """Have it fire no more until `resume`.

        Raises:
            ConfigError: There is no such entry.
        """
        return self._change(name, lambda cron: replace(cron, paused=True))

    def resume(self, name: str) -> Cron:
        """Have a paused one fire again, from its next instant on; the others are not made up for.

        Raises:
            ConfigError: There is no such entry.
        """
        now = self._store.now()

        def change(cron: Cron) -> Cron:
            if not cron.paused:
                return cron
            return replace(cron, paused=False, next_at=cron.schedule.after(now))

        return self._change(name, change)

    def run(self, name: str) -> Job[Any]:
        """Enqueue its job now, besides those of its instants; return it, or the one that has its key.

        Raises:
            ConfigError: There is no such entry.
            EnqueueError: The broker did not confirm.
        """
        return self._send(self.found(name).extra_job(self._store.now()))

    def delete(self, name: str) -> bool:
        """Forget the entry; say whether there was one. A fire that is under way may still come."""
        check_name(name)
        return bool(self._one(Delete(key_of(name))))

    # --- for those who make entries ------------------------------------------------------

    def register(
        self, name: str, expression: str, job: Job[Any], *, timezone: str, catch_up: str
    ) -> Cron:
        """Store an entry, or have it replace the one of its name; see `define`.

        One that is there already and defined the same is left as it is. A replaced one stays
        paused if it was, and instants that are due stay due, unless their expression is gone.

        Raises:
            ConfigError: As `define`.
        """
        now = self._store.now()
        new = define(name, expression, job, timezone=timezone, catch_up=catch_up, now=now)
        while True:
            value = self._one(Get(new.key))
            old = None if value is None else parse(value)
            if old is not None and old.is_like(new):
                return old
            changed = new if old is None else new.over(old)
            if self._one(Swap(new.key, value, dump(changed))):
                return changed

    def _change(self, name: str, change: Callable[[Cron], Cron]) -> Cron:
        check_name(name)
        while True:
            value = self._one(Get(key_of(name)))
            cron = self._known(name, value)
            changed = change(cron)
            if changed == cron or self._one(Swap(cron.key, value, dump(changed))):
                return changed

    def _known(self, name: str, value: bytes | None) -> Cron:
        if value is None:
            names = ", ".join(cron.name for cron in self.list()) or "none"
            raise ConfigError(f"there is no cron entry {name!r}; there are: {names}")
        return parse(value)

    def _one(self, operation: Operation) -> Any:
        [result] = self._store.apply([operation])
        return result
