"""One value to JSON and back, by the annotation of its parameter.

Two roads lead there. The fast one serves values that are JSON already: `plain_road`
turns an annotation into a function that returns such a value (containers copied) and
raises `NotPlain` for every other. The general one is a `Codec`: pydantic writes the value
as JSON and reads it back, strictly, and what it reads must be the value again, equal and
of the same type at every level. The fast road only ever takes what the general one would
leave unchanged, so that which road was taken cannot be seen.

Pydantic is imported when the first value needs it, never by ``import goose``.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar, cast

from goose.errors import ConfigError
from goose.jobs import JSON, MAX_DEPTH

T = TypeVar("T")
Road = Callable[[Any], JSON]

MAX_INT_BITS = 14_000
"""Python reads at most 4,300 digits of an integer by default; this many bits are fewer."""

registered: dict[Any, tuple[Callable[[Any], JSON], Callable[[Any], Any]]] = {}


class NotPlain(Exception):
    """The fast road does not take this value; raised and caught inside Goose."""


class Refused(Exception):
    """Why a value cannot travel, as the end of a sentence; raised and caught inside Goose."""


def register_type(
    kind: type[T], /, *, encode: Callable[[T], JSON], decode: Callable[[Any], T]
) -> None:
    """Teach Goose how values of *kind* travel, in this process.

    Call it in a module that both clients and workers import. It holds for parameters
    annotated with *kind*, also inside generics (``list[Money]``, ``Money | None``). For a
    field of a dataclass or pydantic model, annotate the field itself, with pydantic's
    ``Annotated`` serializers.

    Args:
        kind: A class; its instances must compare equal when they are (define ``__eq__``).
        encode: From an instance to plain JSON.
        decode: From that JSON to an equal instance.

    Raises:
        ConfigError: *kind* is not a class, or one whose values are JSON already.
    """
    if not isinstance(kind, type):
        raise ConfigError(f"register_type takes a class, not {kind!r}")
    if kind in _SCALARS or kind in (list, dict, object):
        raise ConfigError(
            f"values of {kind.__name__} travel as they are; register a class of yours"
        )
    registered[kind] = (encode, decode)
    for forget in on_register:
        forget()


on_register: list[Callable[[], None]] = []
"""Called after each registration, by those who keep what was made from annotations."""


# --- the fast road -----------------------------------------------------------------------


def is_text(value: str) -> bool:
    """Return whether UTF-8 can carry *value*, which it cannot half of a surrogate pair."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: Any) -> JSON:
    if type(value) is str and is_text(value):
        return value
    raise NotPlain


def _integer(value: Any) -> JSON:
    if type(value) is int and value.bit_length() <= MAX_INT_BITS:
        return value
    raise NotPlain


def _number(value: Any) -> JSON:
    if type(value) is float and value - value == 0.0:  # false for inf and nan only
        return value
    return _integer(value)  # which type checkers take for a float, too; it stays an integer


def _boolean(value: Any) -> JSON:
    if value is True or value is False:
        return value
    raise NotPlain


def _nothing(value: Any) -> JSON:
    if value is None:
        return None
    raise NotPlain


def plain(value: Any, depth: int = MAX_DEPTH) -> JSON:
    """Return *value*, containers copied, if it is exactly JSON: no subclasses, no tuples.

    Raises:
        NotPlain: It is not, or is nested deeper than *depth* levels.
    """
    kind = type(value)
    road = _SCALARS.get(kind)
    if road is not None:
        return road(value)
    if depth > 0:
        if kind is list:
            return [plain(item, depth - 1) for item in value]
        if kind is dict:
            return {cast("str", _text(key)): plain(value[key], depth - 1) for key in value}
    raise NotPlain


_SCALARS: dict[Any, Road] = {
    str: _text,
    int: _integer,
    float: _number,
    bool: _boolean,
    type(None): _nothing,
    None: _nothing,
}


def plain_road(annotation: Any) -> Road | None:
    """Return the fast road for *annotation*, or None if none of its values are plain JSON."""
    if annotation is Any or annotation is object:
        return plain
    if annotation is None or isinstance(annotation, type):
        if annotation is list or annotation is dict:
            return _container(annotation)
        return _SCALARS.get(annotation)
    if isinstance(annotation, typing.NewType):
        return plain_road(annotation.__supertype__)
    origin = typing.get_origin(annotation)
    inner = typing.get_args(annotation)
    if origin is typing.Literal:
        return _one_of(inner)
    if origin is typing.Union or origin is types.UnionType:
        return _any_road([road for road in map(plain_road, inner) if road is not None])
    if origin is list and (item := plain_road(inner[0])) is not None:
        return _list_of(item)
    if origin is dict and inner[0] is str and (item := plain_road(inner[1])) is not None:
        return _dict_of(item)
    return None


def _one_of(options: tuple[Any, ...]) -> Road | None:
    allowed = {(type(option), option) for option in options if type(option) in _SCALARS}

    def road(value: Any) -> JSON:
        if type(value) in _SCALARS and (type(value), value) in allowed:
            return cast("JSON", value)
        raise NotPlain

    return road


def _any_road(roads: list[Road]) -> Road | None:
    if len(roads) < 2:
        return roads[0] if roads else None

    def road(value: Any) -> JSON:
        for attempt in roads:
            try:
                return attempt(value)
            except NotPlain:
                continue
        raise NotPlain

    return road


def _container(kind: type) -> Road:
    def road(value: Any) -> JSON:
        if type(value) is kind:
            return plain(value)
        raise NotPlain

    return road


def _list_of(item: Road) -> Road:
    def road(value: Any) -> JSON:
        if type(value) is list:
            return [item(each) for each in value]
        raise NotPlain

    return road


def _dict_of(item: Road) -> Road:
    def road(value: Any) -> JSON:
        if type(value) is dict:
            return {cast("str", _text(key)): item(each) for key, each in value.items()}
        raise NotPlain

    return road


# --- words for errors --------------------------------------------------------------------


def why_not_plain(value: Any, depth: int = MAX_DEPTH) -> str:
    """Return why `plain` refused *value*, as the end of a sentence."""
    kind = type(value)
    if kind is str:
        return f"{show(value)} holds a lone surrogate, which UTF-8 cannot carry"
    if kind is int:
        return f"an integer of {value.bit_length():,} bits is over the limit of {MAX_INT_BITS:,}"
    if kind is float:
        return f"{value!r} is not a JSON number"
    if kind in (list, dict) and depth == 0:
        return f"it is nested deeper than {MAX_DEPTH} levels, or contains itself"
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return f"the key {show(key)} is {show_type(type(key))} and would come back as text"
    if kind in (list, dict):
        for inner in [*value, *value.values()] if kind is dict else value:
            try:
                plain(inner, depth - 1)
            except NotPlain:
                return why_not_plain(inner, depth - 1)
    if isinstance(value, tuple):
        return f"{show(value)} is {show_type(kind)} and would come back as list"
    return f"{show_type(kind)} is not JSON"


def show(value: Any) -> str:
    """Return a short text for *value*, whatever its ``repr`` does."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - the error being told matters more
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


def show_type(annotation: Any) -> str:
    """Return the shortest clear name of a type or annotation."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return show(annotation).replace("typing.", "")
