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

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar, cast

from goose.errors import ConfigError
from goose.jobs import JSON, MAX_DEPTH

T = TypeVar("T")
Road = Callable[[Any], JSON]

MAX_INT_BITS = 14_000
"""Python reads at most 4,300 digits of an integer by default; this many bits are fewer."""

_registered: dict[Any, tuple[Callable[[Any], JSON], Callable[[Any], Any]]] = {}


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
        ConfigError: *kind* is not a class.
    """
    if not isinstance(kind, type):
        raise ConfigError(f"register_type takes a class, not {kind!r}")
    _registered[kind] = (encode, decode)
    for forget in on_register:
        forget()


on_register: list[Callable[[], None]] = []
"""Called after each registration, by those who keep what was made from annotations."""


# --- the fast road -----------------------------------------------------------------------


def _text(value: Any) -> JSON:
    if type(value) is str:
        if value.isascii():
            return value
        try:
            value.encode()  # a lone surrogate cannot be written
        except UnicodeEncodeError:
            raise NotPlain from None
        return value
    raise NotPlain


def _integer(value: Any) -> JSON:
    if type(value) is int and value.bit_length() <= MAX_INT_BITS:
        return value
    raise NotPlain


def _number(value: Any) -> JSON:
    if type(value) is float and value - value == 0.0:  # false for inf and nan only
        return value
    raise NotPlain


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
    if annotation in _registered:
        return None
    if annotation is Any or annotation is object:
        return plain
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if isinstance(annotation, typing.NewType):
        return plain_road(annotation.__supertype__)
    origin = typing.get_origin(annotation)
    inner = typing.get_args(annotation)
    if origin is typing.Literal:
        return _one_of(inner)
    if origin is typing.Union or origin is types.UnionType:
        return _any_road([road for road in map(plain_road, inner) if road is not None])
    if annotation is list or annotation is dict:
        return _container(annotation)
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


# --- the general road --------------------------------------------------------------------


class Codec:
    """Turns values of one annotation into JSON and back, by pydantic. Thread-safe.

    Raises:
        Refused: Pydantic has no schema for the annotation.
    """

    def __init__(self, annotation: Any) -> None:
        from pydantic import ConfigDict, TypeAdapter

        # A tuple of one carries the configuration to types that refuse one of their own at
        # the top, such as dataclasses.
        kind: Any = tuple[_with_registered(annotation)]  # type: ignore[misc]
        config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(kind, config=config)
        except Exception as error:
            problem = str(error).partition("\n")[0]
            raise Refused(
                f"its annotation {show_type(annotation)} has no JSON form ({problem}); use another "
                "type, goose.register_type or pydantic's Annotated serializers"
            ) from error

    def encode(self, value: Any) -> JSON:
        """Return *value* as JSON from which `decode` makes it again.

        Raises:
            Refused: It would not come back equal in type and value.
        """
        try:
            written = self._adapter.dump_python(
                (value,), mode="json", by_alias=True, round_trip=True, warnings="none"
            )[0]
        except Exception as error:
            raise Refused(f"it cannot be written as JSON: {_first_line(error)}") from error
        try:
            fields = plain(written)
        except NotPlain:
            raise Refused(why_not_plain(written)) from None
        back = self.decode(fields)
        try:
            problem = difference(value, back)
        except Exception as error:
            raise Refused(f"it cannot be compared: {_first_line(error)}") from error
        if problem is not None:
            raise Refused(problem)
        return fields

    def decode(self, fields: JSON) -> Any:
        """Return the value that *fields* stand for.

        Raises:
            Refused: They do not fit the annotation; the message does not hold the value.
        """
        from pydantic import ValidationError

        try:
            return self._adapter.validate_json(json.dumps([fields]), strict=True)[0]
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            first = problems[0]
            place = "".join(f"[{key!r}]" for key in first["loc"][1:])
            raise Refused(f"it does not fit its annotation{place}: {first['msg']}") from error
        except Exception as error:
            raise Refused(f"its type refuses the stored value: {type(error).__name__}") from error


def _with_registered(annotation: Any) -> Any:
    """Return *annotation* with every registered type replaced by one that pydantic knows."""
    if not _registered:
        return annotation
    if annotation in _registered:
        from pydantic import PlainSerializer, PlainValidator

        encode, decode = _registered[annotation]
        return typing.Annotated[annotation, PlainValidator(decode), PlainSerializer(encode)]
    inner = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if not inner or origin is typing.Literal:
        return annotation
    if origin is typing.Annotated:
        return typing.Annotated[(_with_registered(inner[0]), *inner[1:])]
    replaced = tuple(_with_registered(each) for each in inner)
    if origin is types.UnionType:
        return typing.Union[replaced]  # noqa: UP007 - built at run time
    return annotation.copy_with(replaced) if hasattr(annotation, "copy_with") else origin[replaced]


def difference(sent: Any, back: Any) -> str | None:
    """Return what keeps *back* from being *sent*, or None if they are equal at every level."""
    if type(sent) is not type(back):
        return f"{show(sent)} ({show_type(type(sent))}) would come back as {show(back)} ({show_type(type(back))})"
    if isinstance(sent, datetime):
        return _difference_of_instants(sent, back)
    if isinstance(sent, (list, tuple)):
        return _first_difference(sent, back) if len(sent) == len(back) else _changed(sent, back)
    if isinstance(sent, dict):
        if len(sent) != len(back):
            return _changed(sent, back)
        return _first_difference(sent, back) or _first_difference(sent.values(), back.values())
    if isinstance(sent, (set, frozenset)):
        if sent != back:
            return _changed(sent, back)
        twins = {each: each for each in back}
        return _first_difference(sent, [twins[each] for each in sent])
    if dataclasses.is_dataclass(sent):
        # What neither the constructor nor the comparison knows is the class's own affair.
        names = [f.name for f in dataclasses.fields(sent) if f.init or f.compare]
        return _first_difference(
            [getattr(sent, name) for name in names], [getattr(back, name) for name in names]
        )
    if hasattr(type(sent), "__pydantic_fields__"):
        problem = _first_difference(
            [getattr(sent, name) for name in type(sent).model_fields],
            [getattr(back, name) for name in type(sent).model_fields],
        )
        return problem or (None if sent == back else _changed(sent, back))
    return None if sent == back else _changed(sent, back)


def _difference_of_instants(sent: datetime, back: datetime) -> str | None:
    if sent.utcoffset() is None:
        return f"{show(sent)} has no time zone; use an aware datetime, such as datetime.now(UTC)"
    # Not ==, which is false between zones for every time that a clock change repeats.
    # Source: PEP 495, "Inter-zone comparison".
    if (sent.replace(tzinfo=None, fold=0), sent.utcoffset()) == (
        back.replace(tzinfo=None, fold=0),
        back.utcoffset(),
    ):
        return None
    return _changed(sent, back)


def _first_difference(sent: Any, back: Any) -> str | None:
    for one, other in zip(sent, back, strict=True):
        problem = difference(one, other)
        if problem is not None:
            return problem
    return None


def _changed(sent: Any, back: Any) -> str:
    return f"{show(sent)} would come back as {show(back)}, which is not equal"


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
    return f"{show(value)} is {show_type(kind)}, which is not plain JSON"


def show(value: Any) -> str:
    """Return a short text for *value*, whatever its ``repr`` does."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= 80 else text[:77] + "..."


def show_type(annotation: Any) -> str:
    """Return the shortest clear name of a type or annotation."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return show(annotation).replace("typing.", "")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]


def hints(annotations: Mapping[str, Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return *annotations* with those given as text evaluated in *namespace*.

    Raises:
        Refused: One cannot be, naming it.
    """

    def carrier() -> None: ...

    resolved = {}
    for name, annotation in annotations.items():
        carrier.__annotations__ = {name: annotation}
        try:
            found = typing.get_type_hints(carrier, dict(namespace), include_extras=True)
        except Exception as error:
            raise Refused(
                f"the annotation {annotation!r} of {name!r} cannot be resolved ({_first_line(error)}); "
                "import what it names in its module, outside of TYPE_CHECKING"
            ) from error
        resolved.update(found)
    return resolved
