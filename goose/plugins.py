"""From a name in trusted configuration to the object it names.

Two kinds of names are understood. ``module:name`` is imported as it stands; a URL's
scheme is looked up among the entry points of a group, which is how other distributions
add brokers and metrics backends. Both import code on the name's word, so they are only
for configuration (files, environment, flags, calls), never for anything read from a
broker: what a job names is resolved by `goose.calls.Offer`.

Every failure is one `ConfigError` that names the value and the fix.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

from goose.errors import ConfigError, MissingDriver


def load(spec: str, *, kind: str) -> Any:
    """Return the object that *spec*, ``module:name``, names; the name may have dots.

    Args:
        spec: From trusted configuration only.
        kind: What it is to be, for error messages: ``middleware``, ``metrics backend`` …

    Raises:
        ConfigError: It is not ``module:name``, the module cannot be imported, or has no
            such name.
    """
    module_name, colon, path = spec.partition(":")
    if not (colon and module_name and path):
        raise ConfigError(f"{kind} {spec!r} is not module:name, for example myapp.setup:name")
    try:
        found = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"{kind} {spec!r}: module {module_name!r} cannot be imported "
            f"({type(error).__name__}: {error}); check the name and the directory you start in"
        ) from error
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            hint = nearest(part, dir(found))
            raise ConfigError(
                f"{kind} {spec!r}: {found.__name__!r} has no {part!r}{hint}"
                if hasattr(found, "__name__")
                else f"{kind} {spec!r}: there is no {part!r}{hint}"
            ) from None
    return found


def find(group: str, scheme: str, *, kind: str) -> Any:
    """Return what the entry point *scheme* of *group* names: a class or factory.

    Raises:
        ConfigError: No installed distribution offers *scheme*.
        MissingDriver: One does, but a package it needs is not installed.
    """
    # Costs some milliseconds that `import goose` need not pay.
    from importlib.metadata import entry_points

    points = {point.name: point for point in entry_points(group=group)}
    point = points.get(scheme)
    if point is None:
        raise ConfigError(
            f"no {kind} for {scheme}:// is installed{nearest(scheme, points)}; "
            f"there are: {', '.join(sorted(points)) or 'none'}"
        )
    try:
        return point.load()
    except ImportError as error:
        owner = point.dist.name if point.dist is not None else "its distribution"
        install = f"goose-jobs[{scheme}]" if owner == "goose-jobs" else owner
        raise MissingDriver(
            f'{scheme}:// needs a package that is missing ({error}); pip install "{install}"'
        ) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the one of *known* most like *word*, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
