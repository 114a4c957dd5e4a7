"""Arguments in which the outputs of other jobs stand: written with holes, filled before the run.

An argument that is an `Output`, or a list, tuple or dict with some inside, is written as JSON with null
in their place. What stands beside them must be plain JSON: its types are checked where the
whole argument is there, by the worker.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from goose._arguments import Punched
from goose._edges import Output
from goose._values import NotPlain, plain, why_not_plain
from goose.calls import name_of, plans
from goose.errors import ArgumentError
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


def encode_with_holes(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[JSON, ...], dict[str, JSON], tuple[Hole, ...]]:
    """Do what `encode_arguments` does, for arguments that hold outputs of other jobs.

    Returns:
        The arguments with null where outputs stand, and what belongs there; no holes if there is
        no output among them, and then the arguments are not encoded.

    Raises:
        ArgumentError: As `encode_arguments`, or something beside an output is not plain JSON.
    """
    holes: list[Hole] = []

    def punched(value: Any, *path: str | int) -> Any:
        return Punched(punch(value, path, holes)) if has_outputs(value) else value

    try:
        positional = tuple(punched(value, "args", place) for place, value in enumerate(args))
        named = {name: punched(value, "kwargs", name) for name, value in kwargs.items()}
    except Unplain as error:
        raise ArgumentError(f"{name_of(fn)}: beside the output of a job: {error}") from None
    if not holes or fn not in plans:
        return (), {}, ()
    return *plans[fn].encode_punched(positional, named), tuple(holes)


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
        where: Any = whole
        for step in path[:-1]:
            where = where[step]
        last: Any = path[-1]
        if not isinstance(where, (list, dict)) or where[last] is not None:
            raise LookupError(f"there is no hole at {path!r:.80}")
        where[last] = value
    return tuple(whole["args"]), whole["kwargs"]
