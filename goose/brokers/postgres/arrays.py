"""Lists as PostgreSQL's binary arrays, packed in one go.

The driver would look at each element of a list by itself, which for a batch of jobs costs as
much as all the rest of the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any

from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

_TEXT, _BYTEA, _INT8 = 25, 17, 20
"""Type numbers of elements."""
_HEAD = Struct("!iiiii")
"""Dimensions, whether there are nulls, type of the elements, how many, index of the first."""
_LENGTH = Struct("!i")
_NULL = _LENGTH.pack(-1)
_NUMBER = Struct("!iq")


class Array:
    """A list, packed. Made by `texts`, `blobs` and `numbers`."""

    __slots__ = ("packed",)

    def __init__(self, element: int, count: int, parts: Iterable[bytes], *, nulls: bool) -> None:
        self.packed = b"".join((_HEAD.pack(1, nulls, element, count, 1), *parts))


class Texts(Array):
    """``text[]``."""


class Blobs(Array):
    """``bytea[]``."""


class Numbers(Array):
    """``bigint[]``."""


def texts(values: Sequence[str | None]) -> Texts:
    """Return *values* as ``text[]``."""
    parts: list[bytes] = []
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            data = value.encode()
            parts.append(_LENGTH.pack(len(data)))
            parts.append(data)
    return Texts(_TEXT, len(values), parts, nulls=None in values)


def blobs(values: Sequence[bytes | None]) -> Blobs:
    """Return *values* as ``bytea[]``."""
    parts: list[bytes] = []
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts.append(_LENGTH.pack(len(value)))
            parts.append(value)
    return Blobs(_BYTEA, len(values), parts, nulls=None in values)


def numbers(values: Sequence[int | None]) -> Numbers:
    """Return *values* as ``bigint[]``."""
    parts = [_NULL if value is None else _NUMBER.pack(8, value) for value in values]
    return Numbers(_INT8, len(values), parts, nulls=None in values)


class _Dumper(Dumper):
    """Hands an `Array` to the server."""

    format = Format.BINARY

    def dump(self, obj: Any) -> bytes:
        """Return the bytes."""
        packed: bytes = obj.packed
        return packed


class _TextsDumper(_Dumper):
    oid = 1009


class _BlobsDumper(_Dumper):
    oid = 1001


class _NumbersDumper(_Dumper):
    oid = 1016


def teach(adapters: AdaptersMap) -> None:
    """Let a connection or cursor take arrays of this module as parameters."""
    adapters.register_dumper(Texts, _TextsDumper)
    adapters.register_dumper(Blobs, _BlobsDumper)
    adapters.register_dumper(Numbers, _NumbersDumper)
