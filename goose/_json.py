"""Strict JSON: what Goose writes, and all it is ready to read.

Python's own reader takes more than JSON: NaN and infinities, numbers that overflow to
them, a key given twice, half of a surrogate pair, nesting until the stack ends. Each of
those would come back changed or could hurt a worker, so each is refused, and so is a body
over a size or nested over a depth. Integers of more than 4,300 digits are refused by
Python itself, whose reader would take quadratic time for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from goose.errors import Undecodable

JSON: TypeAlias = "None | bool | int | float | str | list[JSON] | dict[str, JSON]"

MAX_BYTES = 1024 * 1024
"""Default limit of an encoded job, in bytes."""
MAX_DEPTH = 64
"""Limit of nesting of an encoded job; the job's own object and ``args`` are two levels."""

_encoder = json.JSONEncoder(
    separators=(",", ":"), allow_nan=False, ensure_ascii=False, check_circular=False
)
_in_c: Any = getattr(json.encoder, "c_make_encoder", None)  # CPython has one
if _in_c is None:
    write = _encoder.encode
else:
    # `JSONEncoder.encode` would make this anew for every job, at half the cost of the job's JSON.
    _chunks = _in_c(
        *(None, _encoder.default, json.encoder.encode_basestring, None),
        *(_encoder.key_separator, _encoder.item_separator),
        *(_encoder.sort_keys, _encoder.skipkeys, _encoder.allow_nan),
    )

    def write(o: Any) -> str:
        return "".join(_chunks(o, 0))


def dump(fields: Mapping[str, Any]) -> bytes:
    """Return *fields* as the bytes of a JSON object.

    Raises:
        ValueError: A number is not finite, or a text holds half of a surrogate pair.
        TypeError: A value is of no JSON type.
        RecursionError: It is nested too deep by far, or contains itself.
    """
    return write(fields).encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0.0:  # inf and nan are the only numbers that fail this
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


_decoder: Any = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse_constant
)
_read = _decoder.scan_once
"""Reads one value of a text from a place on; what `json.loads` itself calls."""


def parse(body: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the JSON object in *body*, strictly: bounded, finite, no duplicate keys.

    Raises:
        Undecodable: It is anything else; the message says what, not the content.
    """
    if len(body) > max_bytes:
        raise Undecodable(f"{len(body):,} bytes, over the limit of {max_bytes:,}")
    try:
        text = body.decode().strip(" \t\n\r")
        fields, end = _read(text, 0)
        if end != len(text):
            raise ValueError(f"something follows the object, at character {end}")
        # Only an escape can make half of a surrogate pair; UTF-8 cannot carry one.
        if b"\\u" in body:
            write(fields).encode()
    except StopIteration:
        raise Undecodable("not strict JSON: it ends too early") from None
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"not strict JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Undecodable("not a JSON object")
    if is_too_deep(body, fields):
        raise Undecodable(f"nested deeper than {MAX_DEPTH} levels")
    return fields


def is_too_deep(body: bytes, value: object) -> bool:
    """Return whether *value*, written as *body*, is nested deeper than `MAX_DEPTH` levels."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list, tuple))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list, tuple))
        ]
        if not level:
            return False
    return True
