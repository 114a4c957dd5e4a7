"""From the option ``unique`` to the trait a job bears; from a key that others name to its digest."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from goose._edges import Key
from goose._json import JSON, dump
from goose.calls import Call, encode_arguments, name_of, shown
from goose.errors import CallError
from goose.features.asking import Prepare, told
from goose.features.uniques.records import NAME, Trait
from goose.jobs import Job
from goose.options import Options, options_of

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
        trait = Trait(_digest(job.fn, key), _shown(key), held[0], held[1], quiet)
        return job.evolve(traits={**job.traits, NAME: trait.to_wire()})

    return bear


def identify(key: Key) -> tuple[str, str]:
    """Return the digest of *key*, which its record bears, and the key as people read it.

    Raises:
        CallError: The function or an argument cannot be stored, or the function's own ``unique`` has
            no key for the call, so no job can hold that key.
    """
    call = key.call
    fn = name_of(call.fn if isinstance(call, Call) else call)
    text = _of_call(call, fn) if isinstance(call, Call) else str(key.unique)
    return _digest(fn, text), f"{_shown(text)!r} of {fn}"


def _of_call(call: Call[Any], fn: str) -> str:
    """Return the key that jobs of *call* hold: by what is attached to its function, or all arguments."""
    args, kwargs = encode_arguments(call.fn, call.args, call.kwargs)
    found = _key(options_of(call.fn).unique or True, Job("", fn, args, kwargs), call)
    if found is None:
        raise CallError(f"nobody can wait for a call of {fn} that is not unique: its key is None")
    return found


def _digest(fn: str, key: str) -> str:
    # Of the function as well: the same key of two functions are two keys.
    return hashlib.sha256(f"{fn}\n{key}".encode()).hexdigest()


def _all(call: Call[Any], args: Sequence[JSON], kwargs: Mapping[str, JSON]) -> str:
    # By name, so that f(1) and f(n=1) are the same call.
    bound = inspect.signature(call.fn).bind(*args, **kwargs)
    return dump(_sorted(bound.arguments)).decode()


def _key(unique: Any, job: Job[Any], call: Call[Any]) -> str | None:
    """Return the key of this call; None if it is to be like any other."""
    if unique is True:
        return _all(call, job.args, job.kwargs)
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
