"""The general road of a value: pydantic writes it as JSON and reads it back, strictly.

See `goose._values` for when it is taken. What pydantic reads back is compared with the
value at every level, by type as well as by ``==``, because ``1 == True == 1.0`` and a
list for a tuple are just what must not happen to an argument on its way.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from goose._values import (
    NotPlain,
    Refused,
    plain,
    registered,
    show,
    show_type,
    why_not_plain,
)
from goose.jobs import JSON

_UNKNOWN = re.compile(r"Unable to serialize unknown type: <class '(.+)'>")
"""What pydantic says of a value that it has no way for."""


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
        except Exception as error:  # noqa: BLE001 - told whole by what is raised
            # What pydantic advises after that is about models, not about calls.
            problem = str(error).partition("\n")[0].partition(". Set `")[0]
            raise Refused(
                f"its annotation {show_type(annotation)} has no JSON form ({problem}); use another "
                "type, goose.register_type or pydantic's Annotated serializers"
            ) from None

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
            if (stranger := _UNKNOWN.match(str(error))) is not None:
                kind = stranger[1].rpartition(".")[2]
                raise Refused(
                    f"{kind} cannot be stored as JSON: pass an id or a plain value"
                ) from None
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
            first = error.errors(include_url=False)[0]
            place = "".join(f"[{key!r}]" for key in first["loc"][1:])
            raise Refused(f"it does not fit its annotation{place}: {first['msg']}") from None
        except Exception as error:
            raise Refused(f"its type refuses the stored value: {type(error).__name__}") from error


def _with_registered(annotation: Any) -> Any:
    """Return *annotation* with every registered type replaced by one that pydantic knows."""
    if not registered:
        return annotation
    if isinstance(annotation, type) and annotation in registered:
        from pydantic import PlainSerializer, PlainValidator

        encode, decode = registered[annotation]
        return typing.Annotated[annotation, PlainValidator(decode), PlainSerializer(encode)]
    inner = typing.get_args(annotation)
    origin: Any = typing.get_origin(annotation)
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
        return (
            f"{show(sent)} ({show_type(type(sent))}) would come back as {show(back)} "
            f"({show_type(type(back))}); pass that, or annotate what you pass"
        )
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
