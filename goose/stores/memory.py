"""`MemoryStore`: the contract of `goose.stores.base` made readable, in this process's memory."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from goose.brokers.memory import MemoryBroker
from goose.stores.base import (
    Add,
    Delete,
    Get,
    Increment,
    Operation,
    Put,
    Swap,
    Verbs,
    check,
    check_prefix,
    count_of,
    wrong_kind,
)


@dataclass(frozen=True, slots=True)
class Item:
    """What is under one key: a value, or a set."""

    value: bytes | frozenset[str]
    expires_at: float | None
    """Epoch seconds, or None."""


class MemoryStore(Verbs):
    """A store that lives as long as the process. Thread-safe.

    Stores of the same URL and namespace are one, and it is the one of brokers of that URL.

    Args:
        place: ``memory://`` or ``memory://name``, the broker beside which it is, or None for one
            that nobody else has.
        clock: Returns epoch seconds; the machine's by default.

    Raises:
        ConfigError: The URL is wrong.
    """

    def __init__(
        self, place: str | MemoryBroker | None = None, *, clock: Callable[[], float] | None = None
    ) -> None:
        self._owned = not isinstance(place, MemoryBroker)
        self._broker = (
            place if isinstance(place, MemoryBroker) else MemoryBroker(place, clock=clock)
        )

    def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
        """See `Store.apply`."""
        check(operations)
        with self._broker.shelf() as items:
            now = self.now()
            changed: dict[str, Item | None] = {}

            def find(key: str) -> Item | None:
                item = changed[key] if key in changed else items.get(key)
                return None if item is None or _is_over(item, now) else item

            results = [_carry_out(operation, find, changed, now) for operation in operations]
            for key, item in changed.items():
                items.pop(key, None)
                if item is not None:
                    items[key] = item
        return results

    def scan(
        self, prefix: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[tuple[str, bytes]]:
        """See `Store.scan`; also forgets what is over."""
        check_prefix(prefix, limit)
        with self._broker.shelf() as items:
            now = self.now()
            for key in [key for key, item in items.items() if _is_over(item, now)]:
                del items[key]
            keys = sorted(key for key in items if key.startswith(prefix))
            found = [
                (key, value)
                for key in keys[bisect.bisect_right(keys, after) :]
                if isinstance(value := items[key].value, bytes)
            ]
            return found[:limit]

    def now(self) -> float:
        """See `Store.now`."""
        return self._broker.now()

    def close(self) -> None:
        """See `Store.close`."""
        if self._owned:
            self._broker.close()


def _is_over(item: Item, now: float) -> bool:
    return item.expires_at is not None and item.expires_at <= now


def _carry_out(
    operation: Operation,
    find: Callable[[str], Item | None],
    changed: dict[str, Item | None],
    now: float,
) -> Any:
    """Return the result of *operation*, and write what it changes into *changed*."""
    key, item = operation.key, find(operation.key)
    ttl = getattr(operation, "ttl", None)
    expires_at = None if ttl is None else now + ttl
    match operation:
        case Delete():
            changed[key] = None
            return item is not None
        case Add(member=member):
            if item is not None and not isinstance(item.value, frozenset):
                raise wrong_kind(key, "a value")
            old = item or Item(frozenset(), None)
            assert isinstance(old.value, frozenset)
            changed[key] = Item(old.value | {member}, expires_at or old.expires_at)
            return len(old.value | {member})
        case Get():
            return _value(key, item)
        case Put(value=value, only_if_absent=only_if_absent):
            _value(key, item)
            if only_if_absent and item is not None:
                return False
            changed[key] = Item(value, expires_at)
            return True
        case Swap(old=expected, new=new):
            if _value(key, item) != expected:
                return False
            changed[key] = None if new is None else Item(new, expires_at)
            return True
        case Increment(amount=amount):
            count = count_of(key, _value(key, item), amount)
            kept = replace(item or Item(b"", None), value=str(count).encode())
            changed[key] = kept if expires_at is None else replace(kept, expires_at=expires_at)
            return count


def _value(key: str, item: Item | None) -> bytes | None:
    if item is None:
        return None
    if not isinstance(item.value, bytes):
        raise wrong_kind(key, "a set")
    return item.value
