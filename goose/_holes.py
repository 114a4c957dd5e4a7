"""Arguments in which the outputs of other jobs stand: written with holes, filled before the run.

An argument that is an `Output`, or a list, tuple or dict with some inside, is written as JSON with null
in their place. What stands beside them must be plain JSON: its types are checked where the
whole argument is there, by the worker.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goose._edges import Output
from goose._values import NotPlain, plain, why_not_plain
from goose.jobs import JSON


@dataclass(frozen=True, slots=True)
class Hole:
    """Where what one job returns belongs."""

    job_id: str
    path: tuple[str | int, ...]
    """Keys and indices, from the argument on; in a trait from ``args`` or ``kwargs`` on."""


class Unplain(Exception):
    """What stands beside an output is not plain JSON."""


def has_outputs(value: object) -> bool:
    """Say whether *value* is or holds an `Output`."""
    if isinstance(value, Output):
        return True
    if isinstance(value, (list, tuple)):
        return any(has_outputs(each) for each in value)
    return isinstance(value, dict) and any(has_outputs(each) for each in value.values())


def punch(value: Any, path: tuple[str | int, ...], holes: list[Hole]) -> JSON:
    """Return *value* as JSON with null for each output, which is added to *holes*.

    Raises:
        Unplain: Something else in it is not plain JSON.
    """
    if isinstance(value, Output):
        holes.append(Hole(value.job_id, path))
        return None
    if isinstance(value, (list, tuple)):
        return [punch(each, (*path, place), holes) for place, each in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: punch(each, (*path, key), holes) for key, each in value.items()}
    try:
        return plain(value)
    except NotPlain:
        raise Unplain(why_not_plain(value)) from None


def filled(
    args: Sequence[JSON],
    kwargs: Mapping[str, JSON],
    fill: Iterable[tuple[Sequence[str | int], JSON]],
) -> tuple[tuple[JSON, ...], dict[str, JSON]]:
    """Return the arguments with *fill* (paths and values) in their places; the given stay as they are.

    Raises:
        LookupError: A path leads nowhere.
        TypeError: The same.
    """
    whole: Any = {"args": copy.deepcopy(list(args)), "kwargs": copy.deepcopy(dict(kwargs))}
    for path, value in fill:
        where = whole
        for step in path[:-1]:
            where = where[step]
        if not isinstance(where, (list, dict)) or where[path[-1]] is not None:  # type: ignore[call-overload]
            raise LookupError(f"there is no hole at {path!r:.80}")
        where[path[-1]] = value  # type: ignore[call-overload,index]
    return tuple(whole["args"]), whole["kwargs"]
