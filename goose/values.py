"""From what a person writes in a file, an environment variable or a flag to a value.

Each function takes the text, or the TOML value, and returns the plain Python value, or
raises `ValueError` or `TypeError` with the reason in words; the caller says where it came from.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

MAX_SECONDS = 100 * 365.25 * 86_400
"""The longest delay or timeout taken for meant: a hundred years, in seconds."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.ASCII)
_DURATION = re.compile(rf"\s*(?:{_PART.pattern}\s*)+", re.ASCII)
_SIZES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SIZE = re.compile(r"\s*(\d+)\s*([kmg]?)i?b?\s*", re.ASCII | re.IGNORECASE)


def seconds(value: float | timedelta, what: str) -> float:
    """Return a duration given as seconds or `timedelta` as seconds.

    Args:
        value: Seconds, from 0 up to a hundred years.
        what: What the duration is for; begins the message of an error.

    Raises:
        TypeError: It is not a number or `timedelta`.
        ValueError: It is below 0, NaN, or over a hundred years.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} = {value!r} is neither seconds nor a timedelta")
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"{what} = {value!r} s: give 0 s to 100 years")
    return float(value)


def duration(value: object) -> float:
    """Return seconds from a number, a `timedelta` or a text such as ``"7d"``, ``"1h30m"`` or ``"300ms"``.

    Raises:
        ValueError: It is neither, or over a hundred years.
    """
    number = _number(value)
    if number is None and isinstance(value, str) and _DURATION.fullmatch(value):
        number = sum(float(part) * _UNITS[unit] for part, unit in _PART.findall(value))
    if number is None or not 0 <= number <= MAX_SECONDS:
        raise ValueError("give seconds, or a text such as '300ms', '30s', '5m', '12h' or '7d'")
    return number


def _number(value: object) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*", value, re.ASCII):
        return float(value)
    return None


def positive_duration(value: object) -> float:
    """Return `duration` of *value*, above 0 seconds."""
    found = duration(value)
    if not found:
        raise ValueError("it must be above 0 seconds")
    return found


def limit(value: object) -> float:
    """Return seconds above 0, or `math.inf` for the text ``"none"``."""
    if value == math.inf or (isinstance(value, str) and value.strip().lower() == "none"):
        return math.inf
    return positive_duration(value)


def count(value: object) -> int:
    """Return a whole number of at least 1."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("give a whole number of at least 1")
    return value


def weight(value: object, entry: object) -> int:
    """Return the weight of a queue; *entry* is what it was read from."""
    try:
        return count(value)
    except ValueError:
        raise ValueError(f"{entry!r}: the weight must be a whole number of at least 1") from None


def whole(value: object) -> int:
    """Return a whole number, also one below 0."""
    try:
        return int(str(value))
    except ValueError:
        raise ValueError("give a whole number") from None


def size(value: object) -> int:
    """Return bytes from a whole number or a text such as ``"512 MB"`` (1 MB is 1024² bytes)."""
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        value = int(match[1]) * _SIZES[match[2].lower()]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("give bytes, or a text such as '512MB' or '1GB'")
    return value


def text(value: object) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("give a text")
    return value.strip()


def address(value: object) -> str:
    """Return ``host:port`` from a port, ``:port`` (all interfaces) or ``host:port``."""
    host, _, port = str(value).strip().rpartition(":")
    if isinstance(value, bool) or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("give an address such as ':8080' or '127.0.0.1:8080'")
    return f"{host}:{port}"


def one_of(*words: str) -> Callable[[object], str]:
    """Return a parser that takes exactly *words*."""

    def parse(value: object) -> str:
        if value not in words:
            raise ValueError("give one of " + ", ".join(words))
        return str(value)

    return parse


def texts(value: object) -> tuple[str, ...]:
    """Return several texts, from a list or one text with commas."""
    found = value.split(",") if isinstance(value, str) else value
    if not isinstance(found, Iterable) or isinstance(found, Mapping):
        raise TypeError("give a list, or one text with commas")
    return tuple(text(item) for item in found)


def objects(value: object) -> tuple[Any, ...]:
    """Return a list of objects or of texts that name them (``module:name`` or a URL)."""
    if isinstance(value, str):
        return texts(value)
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise TypeError("give a list of 'module:name' or URL texts")
    return tuple(text(item) if isinstance(item, str) else item for item in value)


def tables(value: object) -> dict[str, Any]:
    """Return tables by name, each with text keys, from a table of some (JSON if a text)."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("give JSON, a table of tables") from None
    if not isinstance(value, Mapping) or not all(isinstance(t, Mapping) for t in value.values()):
        raise TypeError("give a table of tables")
    return {str(name): dict(table) for name, table in value.items()}
