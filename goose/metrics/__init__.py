"""Metrics: one small protocol, several backends, custom ones by name.

`connect` makes a backend from configuration: a URL whose scheme an installed distribution
offers (``statsd://``, ``prometheus://``), or ``module:name`` of your own. Backends are
imported only when they are asked for.
"""

from __future__ import annotations

from typing import Any, cast

from goose.errors import ConfigError
from goose.metrics.base import Metrics
from goose.plugins import find, load

__all__ = ["Metrics", "connect", "is_made_for"]

_METHODS = ("increment", "gauge", "timing")


def connect(spec: str | Metrics, *, index: int = 0) -> Metrics:
    """Return the backend that *spec* describes; a backend is returned as it is.

    Args:
        spec: A URL, whose scheme is looked up in the entry-point group ``goose.metrics``,
            or ``module:name`` of a backend or of a class or factory without arguments.
            From trusted configuration only: it is imported.
        index: Which of the processes under one supervisor this is, from 0. A backend that
            cannot be shared between processes has a class method ``for_process(url, index)``,
            which is called instead of its constructor.

    Raises:
        ConfigError: The scheme, module or name is unknown, what it names is not a backend,
            or the backend refuses its URL.
        MissingDriver: The backend's package is not installed; the message has the
            ``pip install`` line.
    """
    if not isinstance(spec, str):
        return _checked(spec, repr(spec))
    scheme, separator, _ = spec.partition("://")
    if separator:
        factory = find("goose.metrics", scheme, kind="metrics backend")
        for_process = getattr(factory, "for_process", None)
        made = factory(spec) if for_process is None else for_process(spec, index)
        return _checked(made, f"{scheme}://")
    found = load(spec, kind="metrics backend")
    if isinstance(found, type) or (callable(found) and not isinstance(found, Metrics)):
        try:
            found = cast("Any", found)()
        except TypeError as error:
            raise ConfigError(
                f"metrics backend {spec!r} cannot be made without arguments ({error}); "
                "name a backend object or a factory without arguments"
            ) from error
    return _checked(found, repr(spec))


def is_made_for(spec: str | Metrics, backend: Metrics) -> bool:
    """Say whether *backend* was made when *spec* was connected, so that whoever did closes it.

    What was given as an object, and what a module holds as one, stays whose it is.
    """
    if not isinstance(spec, str):
        return False
    return "://" in spec or load(spec, kind="metrics backend") is not backend


def _checked(found: object, named: str) -> Metrics:
    if isinstance(found, Metrics) and not isinstance(found, type):
        return found
    missing = [method for method in _METHODS if not callable(getattr(found, method, None))]
    raise ConfigError(
        f"metrics backend {named} is a {type(found).__name__}, not a backend"
        + (f": it has no {', '.join(missing)}" if missing else "; pass an instance")
    )
