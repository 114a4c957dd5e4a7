"""From the option ``unique`` to the trait a job bears."""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

from goose._json import dump
from goose.calls import Call, shown
from goose.errors import CallError
from goose.features.asking import Prepare, told
from goose.features.uniques.records import NAME, Trait
from goose.jobs import Job
from goose.options import Options

SHOWN = 100
"""Characters of a key that are kept for people."""


def prepare(chosen: Options) -> Prepare | None:
    """Return what gives a new job its key; None if no uniqueness is asked for."""
    unique = chosen.unique
    if unique is None or unique is False:
        return None
    until, quiet = chosen.until or "done", chosen.debounce or 0.0

    def bear(job: Job[Any], call: Call[Any]) -> Job[Any]:
        key = _key(unique, job, call)
        if key is None:
            return job
        held = ("time", float(until)) if not isinstance(until, str) else (until, 0.0)
        # Of the function as well: the same key of two functions are two keys.
        digest = hashlib.sha256(f"{job.fn}\n{key}".encode()).hexdigest()
        trait = Trait(digest, _shown(key), held[0], held[1], quiet)
        return job.evolve(traits={**job.traits, NAME: trait.to_wire()})

    return bear


def _key(unique: Any, job: Job[Any], call: Call[Any]) -> str | None:
    """Return the key of this call; None if it is to be like any other."""
    if unique is True:
        # By name, so that f(1) and f(n=1) are the same call.
        bound = inspect.signature(call.fn).bind(*job.args, **job.kwargs)
        return dump(_sorted(bound.arguments)).decode()
    if isinstance(unique, str):
        return unique
    found = told(unique, "unique", job, call)
    if found is None or (isinstance(found, str) and found):
        return found
    raise CallError(
        f"unique of {job.fn}: {shown(unique)} returned {found!r:.80}: return a text, or None for a job "
        "that is not unique"
    )


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in value]
    return value


def _shown(key: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in key[:SHOWN])
