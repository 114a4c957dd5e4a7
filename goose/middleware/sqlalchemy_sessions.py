"""Gives each job a SQLAlchemy session of its own, and takes it away after.

A `scoped_session` belongs to a thread, and a worker's threads run one job after the other:
without this a job finds what the last one left in the session, an open transaction included.

::

    sessions = SessionPerJob(Session)       # a scoped_session or an async_scoped_session
    middleware = ["app.db:sessions"]

After the job the session is removed: what was not committed is rolled back, and its connection
goes back to the pool. An async scope wants a ``scopefunc`` of one task, such as
``asyncio.current_task``. Connections that die in the pool are its own affair: make the engine
with ``pool_pre_ping=True``.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, Protocol

from goose.middleware.base import Execution


class Registry(Protocol):
    """As much of a scoped session as is needed."""

    def remove(self) -> Any:
        """Close the session of this scope, if there is one, and forget it."""
        ...


class SessionPerJob:
    """Middleware that removes a scoped session before and after each job. Thread-safe.

    Args:
        registry: ``scoped_session(…)``, or ``async_scoped_session(…)`` for async functions.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._is_async = inspect.iscoroutinefunction(registry.remove)

    def __call__(
        self, execution: Execution
    ) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
        """Return what removes the session."""
        return self._removed_async() if self._is_async else self._removed()

    @contextmanager
    def _removed(self) -> Generator[None]:
        self._registry.remove()
        try:
            yield
        finally:
            self._registry.remove()

    @asynccontextmanager
    async def _removed_async(self) -> AsyncGenerator[None]:
        await self._registry.remove()
        try:
            yield
        finally:
            await self._registry.remove()
