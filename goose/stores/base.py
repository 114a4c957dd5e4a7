"""The contract between Goose and whatever remembers what is not a job in a queue.

A store keeps small values under keys. Everything it can do is an *operation*, a frozen value;
`Store.apply` carries a list of them out in one atomic step and in their order. To be one step
on every store, they must be of one *group*: the part of a key between the first ``{`` and the
``}`` after it, or the whole key where there is none. So ``batch:{42}`` and ``batch:{42}:done``
can change together, and a store may keep every group elsewhere.

An author writes `apply`, `scan`, `now` and `close`; the mixin `Verbs` makes ``get``, ``put`` and
the others of them.

=========== ==================================================== ===========================
operation   what it does                                         its result
=========== ==================================================== ===========================
`Get`       reads a value                                        the bytes, or None
`Put`       writes a value, or only where there is none          whether it was written
`Swap`      writes a value if it finds the one that is expected  whether it was written
`Delete`    removes whatever is there                            whether there was something
`Add`       puts a member into a set                             how many the set has now
`Increment` adds to a counter, which begins at 0                 what it holds now
=========== ==================================================== ===========================

A counter is a value that is a decimal number, so `Get` reads it. A set is another kind: what
is for the one kind raises `StoreError` on the other, and then nothing of that `apply` has
happened. What has outlived its time by the store's own clock is absent for every operation
and for `Store.scan`.

Errors: a store that cannot be reached raises `BrokerUnavailable`, what it refuses is a
`StoreError`, a `BrokerError` too. Every method may be called from several threads at once.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from goose.errors import StoreError

MAX_KEY = 300
"""Characters of a key, or of a set's member, at most."""
MAX_VALUE = 1 << 20
"""Bytes of a value at most."""
MAX_COUNT = 10**15
"""A counter stays between minus this and this, which every store holds exactly."""

_HARMLESS = re.compile(r"[A-Za-z0-9_.:\-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Get:
    """Read the value of *key*."""

    key: str


@dataclass(frozen=True, slots=True)
class Put:
    """Write *value*, whatever value is there, and when it goes."""

    key: str
    value: bytes
    ttl: float | None = None
    """Seconds until it is gone; None keeps it."""
    only_if_absent: bool = False


@dataclass(frozen=True, slots=True)
class Swap:
    """Write *new* if the value is *old*; None is "nothing there", for both."""

    key: str
    old: bytes | None
    new: bytes | None
    ttl: float | None = None
    """Seconds until *new* is gone; None keeps it."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove *key*, value or set."""

    key: str


@dataclass(frozen=True, slots=True)
class Add:
    """Put *member* into the set *key*, which may not exist yet."""

    key: str
    member: str
    ttl: float | None = None
    """Seconds until the whole set is gone; None leaves that as it is."""


@dataclass(frozen=True, slots=True)
class Increment:
    """Add *amount* to the counter *key*, which may not exist yet."""

    key: str
    amount: int = 1
    ttl: float | None = None
    """Seconds until the counter is gone; None leaves that as it is."""


Operation: TypeAlias = Get | Put | Swap | Delete | Add | Increment


@runtime_checkable
class Store(Protocol):
    """Remembers values under keys."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
        """Carry *operations* out, all or none, in one step that nobody sees the middle of.

        Returns:
            The result of each, see the table above.

        Raises:
            StoreError: They are of several groups, one meets another kind, or is too large.
            BrokerUnavailable: Whether it happened is unknown.
        """
        ...

    def scan(
        self, prefix: str, *, limit: int = 100, after: str = ""
    ) -> Sequence[tuple[str, bytes]]:
        """Return up to *limit* keys that begin with *prefix*, with their values, in order.

        Sets are left out. Pass the last key as *after* for what follows; fewer than *limit* is
        the end. What changes meanwhile may be seen or not; what does not change is seen once.
        """
        ...

    def now(self) -> float:
        """Return epoch seconds by the store's clock."""
        ...

    def close(self) -> None:
        """Let go of connections and files; what is stored stays. May be called twice."""
        ...


@runtime_checkable
class Keeper(Protocol):
    """A broker with a store of its own beside its jobs."""

    def open_store(self) -> Store:
        """Return that store; whoever asks closes it."""
        ...


class Verbs:
    """One method for each operation, made of `apply`; a store derives from it."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[Any]:
        """See `Store.apply`."""
        raise NotImplementedError

    def get(self, key: str) -> bytes | None:
        """Return the value of *key*, None if there is none."""
        value: bytes | None = self._one(Get(key))
        return value

    def put(
        self, key: str, value: bytes, *, ttl: float | None = None, only_if_absent: bool = False
    ) -> bool:
        """Write *value*, for *ttl* seconds or for good; say whether it was written."""
        return bool(self._one(Put(key, value, ttl, only_if_absent)))

    def swap(
        self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None
    ) -> bool:
        """Write *new* if *old* is there, None being nothing; say whether it was written."""
        return bool(self._one(Swap(key, old, new, ttl)))

    def delete(self, key: str) -> bool:
        """Remove *key*; say whether it was there."""
        return bool(self._one(Delete(key)))

    def add(self, key: str, member: str, *, ttl: float | None = None) -> int:
        """Put *member* into the set *key*; return how many it has."""
        return int(self._one(Add(key, member, ttl)))

    def increment(self, key: str, amount: int = 1, *, ttl: float | None = None) -> int:
        """Add *amount* to the counter *key*; return what it holds now."""
        return int(self._one(Increment(key, amount, ttl)))

    def _one(self, operation: Operation) -> Any:
        [result] = self.apply([operation])
        return result


# --- checks every store makes ------------------------------------------------------------


def group_of(key: str) -> str:
    """Return the group of *key*: what it has in braces, else all of it."""
    _, opened, rest = key.partition("{")
    inside, closed, _ = rest.partition("}")
    return inside if opened and closed and inside else key


def part(text: str) -> str:
    """Return *text*, which came from elsewhere, as a part of a key: itself, if it is harmless."""
    if len(text) <= 100 and _HARMLESS.fullmatch(text):
        return text
    return "sha256-" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def check(operations: Sequence[Operation]) -> str:
    """Return the group of *operations*, of which there is at least one.

    Raises:
        StoreError: They are of several groups, or one of them is beyond a limit.
    """
    groups = {group_of(_checked(operation)) for operation in operations}
    if len(groups) != 1:
        named = ", ".join(sorted(groups)) or "none"
        raise StoreError(
            f"one step takes keys of one group, not of {named}; put what changes together into the "
            "same {braces}, or make several steps"
        )
    return groups.pop()


def check_prefix(prefix: str, limit: int) -> None:
    """Raise `StoreError` if a scan of *prefix* makes no sense."""
    if not isinstance(prefix, str) or not prefix or not prefix.isprintable():
        raise StoreError(f"a scan needs a prefix, not {prefix!r:.80}")
    if limit < 1:
        raise StoreError(f"a scan of {limit} keys finds nothing")


def _checked(operation: Operation) -> str:
    key = operation.key
    _check_name(key, "key")
    ttl = getattr(operation, "ttl", None)
    if ttl is not None and not (isinstance(ttl, (int, float)) and 0 < ttl < math.inf):
        raise StoreError(f"{key}: ttl = {ttl!r} is not a number of seconds above 0")
    match operation:
        case Put(value=value):
            _check_value(key, value)
        case Swap(old=old, new=new):
            for either in (old, new):
                if either is not None:
                    _check_value(key, either)
        case Add(member=member):
            _check_name(member, "member")
        case Increment(amount=amount):
            if isinstance(amount, bool) or not isinstance(amount, int) or abs(amount) > MAX_COUNT:
                raise StoreError(f"{key}: {amount!r:.40} is nothing a counter can grow by")
        case _:
            pass
    return key


def _check_name(name: str, what: str) -> None:
    # Neither NUL nor lone surrogates, which some stores cannot keep, are printable.
    if not isinstance(name, str) or not 0 < len(name) <= MAX_KEY or not name.isprintable():
        raise StoreError(f"a {what} is 1 to {MAX_KEY} printable characters, not {name!r:.80}")


def _check_value(key: str, value: bytes) -> None:
    if not isinstance(value, bytes):
        raise StoreError(f"{key}: a value is bytes, not {type(value).__name__}")
    if len(value) > MAX_VALUE:
        raise StoreError(f"{key}: {len(value):,} bytes are over the limit of {MAX_VALUE:,}")


def wrong_kind(key: str, there: str) -> StoreError:
    """Return what to raise where *key* holds something of another kind."""
    return StoreError(f"{key} holds {there}, which this cannot be done with")


def count_of(key: str, value: bytes | None, amount: int) -> int:
    """Return what a counter that holds *value* holds after *amount* more.

    Raises:
        StoreError: It is no counter, or would leave its range.
    """
    text = b"0" if value is None else value
    digits = text[1:] if text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 16:
        raise wrong_kind(key, "a value that is no counter")
    found = int(text) + amount
    if abs(found) > MAX_COUNT:
        raise StoreError(f"{key}: a counter goes no further than {MAX_COUNT:,} from 0")
    return found
