"""Middleware: context managers around every execution. The rules are in `goose.middleware.base`.

`connect` makes one from configuration, ``module:name``. `refuse_async` is for a worker's
start: it finds middleware that could never enter a sync function before any job meets it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

from goose.errors import ConfigError
from goose.middleware.base import Execution, Middleware
from goose.plugins import load

__all__ = ["Execution", "Middleware", "connect", "is_async_only", "refuse_async"]


def connect(spec: str | Middleware) -> Middleware:
    """Return the middleware that *spec* names; a middleware is returned as it is.

    Args:
        spec: ``module:name`` of a callable that takes the `Execution` and returns a context
            manager, or of a class whose instances, made without arguments, are such
            callables. From trusted configuration only: it is imported.

    Raises:
        ConfigError: The module or name is unknown, or what it names cannot be middleware.
    """
    found = load(spec, kind="middleware") if isinstance(spec, str) else spec
    if isinstance(found, type) and not _enters(found):
        found = _made(found, spec)
    if callable(found) and not isinstance(found, type) and _is_plain_generator(found):
        raise ConfigError(
            f"middleware {spec!r} is a generator or coroutine function: "
            "decorate it with @contextlib.contextmanager or @contextlib.asynccontextmanager"
        )
    if not callable(found):
        raise ConfigError(
            f"middleware {spec!r} is a {type(found).__name__}, which cannot be called: "
            "name a function that takes the execution and returns a context manager"
        )
    return cast("Middleware", found)


def is_async_only(middleware: Middleware) -> bool:
    """Return whether *middleware* surely makes only async context managers.

    Recognised are functions, methods and callable objects decorated with
    `contextlib.asynccontextmanager`, and classes that are async context managers. Of
    anything else, a lambda for example, nothing is known before it is called.
    """
    if isinstance(middleware, type):
        return hasattr(middleware, "__aenter__") and not hasattr(middleware, "__enter__")
    return inspect.isasyncgenfunction(inspect.unwrap(_function(middleware)))


def refuse_async(middleware: Sequence[Middleware], functions: Iterable[Callable[..., Any]]) -> None:
    """Do nothing, unless async-only *middleware* would meet a sync one among *functions*.

    Raises:
        ConfigError: It would; the message names both.
    """
    async_only = [one for one in middleware if is_async_only(one)]
    if not async_only:
        return
    for function in functions:
        if not inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"middleware {_name(async_only[0])} is async, but {_name(function)} is not: "
                "make the function async or the middleware sync"
            )


def _enters(found: type) -> bool:
    return hasattr(found, "__enter__") or hasattr(found, "__aenter__")


def _made(found: type, spec: object) -> object:
    try:
        return found()
    except TypeError as error:
        raise ConfigError(
            f"middleware {spec!r} cannot be made without arguments ({error}); name an instance "
            "with the arguments it needs"
        ) from error


def _function(middleware: Any) -> Any:
    """Return the function that a call of *middleware* ends up in."""
    while isinstance(middleware, partial):
        middleware = middleware.func
    if inspect.isroutine(middleware):
        return middleware
    return getattr(type(middleware), "__call__", middleware)  # noqa: B004 - not a test


def _is_plain_generator(middleware: Any) -> bool:
    function = _function(middleware)
    return (
        inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.iscoroutinefunction(function)
    )


def _name(found: object) -> str:
    module, name = getattr(found, "__module__", ""), getattr(found, "__qualname__", "")
    return f"{module}:{name}" if module and name else repr(found)
