"""What functions return, as JSON by their own annotation, and back.

The road is that of arguments (see `goose._values`): a value that would not come back equal in
type and value is refused. A function without a return annotation returns plain JSON.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from goose._arguments import Parameter
from goose._codecs import hints
from goose._values import Refused, on_register, show
from goose.errors import ArgumentError
from goose.jobs import JSON

_ADVICE = "annotate what the function returns, or return plain JSON"
_roads: dict[Callable[..., Any], Parameter] = {}
on_register.append(_roads.clear)


def encode_result(fn: Callable[..., Any], value: Any) -> JSON:
    """Return what *fn* returned as JSON.

    Raises:
        ArgumentError: It would not come back equal, or the annotation cannot be resolved.
    """
    returned = ""
    try:
        road = _road(fn)
        if not road.plain_only:
            returned = f"returned {show(value)}, {road.annotated()}: "
        return road.encode(value)
    except Refused as error:
        raise ArgumentError(f"{returned}{error}") from error.__cause__


def decode_result(fn: Callable[..., Any], value: JSON) -> Any:
    """Return the value that *fn* returned.

    Raises:
        ArgumentError: It does not fit the annotation as it is now.
    """
    try:
        return _road(fn).decode(value)
    except Refused as error:
        raise ArgumentError(
            f"what was returned does not fit {show(fn)} any more: {error}"
        ) from error


def _road(fn: Callable[..., Any]) -> Parameter:
    road = _roads.get(fn)
    if road is None:
        try:
            annotation = inspect.signature(fn).return_annotation
            if annotation is not inspect.Signature.empty:
                inner = inspect.unwrap(fn)
                annotation = hints({"return": annotation}, dict(inner.__globals__))["return"]
        except (NameError, ValueError, TypeError) as error:
            raise Refused(f"its return annotation cannot be resolved: {error}") from error
        road = _roads[fn] = Parameter("return", annotation, _ADVICE)
    return road
