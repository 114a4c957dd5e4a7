"""What a worker opens once per process for its jobs: pools, clients, sessions.

A resource is a context manager, sync or async, or a callable without arguments that returns
one. It is entered when the worker starts and left when it stops, async ones on the event loop
that async jobs run on; jobs reach what it gave by its type.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
)
from typing import Any, TypeAlias, TypeVar

from goose.errors import ConfigError

T = TypeVar("T")
Manager: TypeAlias = AbstractContextManager[Any] | AbstractAsyncContextManager[Any]
Resource: TypeAlias = Manager | Callable[[], Manager]


class Resources(dict[type, Any]):
    """Open resources by type; a base class finds the first resource that is an instance of it."""

    def __missing__(self, kind: type[T]) -> T:
        for value in self.values():
            if isinstance(value, kind):
                return value
        names = ", ".join(sorted(known.__name__ for known in self)) or "none"
        raise KeyError(
            f"no resource of type {kind.__name__} is open (there are: {names}); "
            "give it to the worker with resources=[...]"
        )


class OpenResources:
    """Opens resources and closes them again, in reverse order. Used by one thread.

    Args:
        resources: What to open.
        loop: A running event loop in another thread, for the async ones.
    """

    def __init__(self, resources: Sequence[Resource], loop: asyncio.AbstractEventLoop) -> None:
        self._resources = resources
        self._loop = loop
        self._stack = ExitStack()
        self.values = Resources()

    def open(self) -> None:
        """Enter all of them; if one fails, those before it are left again.

        Raises:
            ConfigError: One is not a context manager, or two give values of one type.
            Exception: What a resource raised when it was entered.
        """
        try:
            for resource in self._resources:
                value = self._named(resource)
                if type(value) in self.values:
                    raise ConfigError(
                        f"two resources are of type {type(value).__name__}; jobs find a resource by "
                        "its type, so wrap one in a class of its own"
                    )
                self.values[type(value)] = value
        except BaseException:
            self._stack.close()
            raise

    def _named(self, resource: Resource) -> Any:
        try:
            return self._enter(resource)
        except Exception as error:
            error.add_note(f"raised when resource {resource!r} was opened")
            raise

    def _enter(self, resource: Resource) -> Any:
        manager = resource
        if callable(manager) and not isinstance(
            manager, AbstractContextManager | AbstractAsyncContextManager
        ):
            manager = manager()
        if isinstance(manager, AbstractContextManager):
            return self._stack.enter_context(manager)
        if isinstance(manager, AbstractAsyncContextManager):
            return self._enter_async(manager)
        raise ConfigError(
            f"resource {resource!r} is not a context manager, nor does it return one when called"
        )

    def _enter_async(self, manager: AbstractAsyncContextManager[Any]) -> Any:
        stack = AsyncExitStack()
        value = self._on_loop(stack.enter_async_context(manager))
        self._stack.callback(lambda: self._on_loop(stack.aclose()))
        return value

    def _on_loop(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        """Leave all that are open."""
        self._stack.close()
        self.values.clear()
