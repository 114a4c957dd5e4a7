"""What the fields of a job's body may hold: each check returns the value, or raises `Undecodable`."""

from __future__ import annotations

from typing import cast

from goose._json import JSON
from goose.errors import Undecodable

LATEST = 253_402_300_800.0
"""The end of the year 9999 in epoch seconds, beyond which `datetime` does not go."""
LONGEST = 1e9
"""Seconds; some 30 years, which every clock and timer can add up."""


def wrong(name: str, value: object, wanted: str) -> Undecodable:
    return Undecodable(f"field {name!r} is {short(value)}, not {wanted}")


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def text(name: str, value: object) -> str:
    if type(value) is str:
        return value
    raise wrong(name, value, "text")


def mapping(name: str, value: object) -> dict[str, JSON]:
    if type(value) is dict:
        return value
    raise wrong(name, value, "an object")


def count(name: str, value: object) -> int:
    if type(value) is int and 0 <= value < 1 << 31:
        return value
    raise wrong(name, value, "a count")


def instant(name: str, value: object) -> float:
    if type(value) in (float, int) and 0 <= cast("float", value) < LATEST:
        return cast("float", value)
    raise wrong(name, value, "an instant in epoch seconds")


def duration(name: str, value: object) -> float:
    if type(value) in (float, int) and 0 < cast("float", value) <= LONGEST:
        return cast("float", value)
    raise wrong(name, value, f"a number of seconds above 0 and up to {LONGEST:,.0f}")
