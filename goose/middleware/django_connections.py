"""Keeps Django's database connections fresh: what a request does for itself, for each job.

Django closes connections that are too old, broken, or left inside a transaction when a request
begins and ends. Jobs are no requests, so without this a worker meets connections that a
database or a firewall closed hours ago.

::

    middleware = ["goose.middleware.django_connections:django_connections"]
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any

from goose.errors import MissingDriver
from goose.middleware.base import Execution

try:
    from django import db  # type: ignore[import-untyped]
except ImportError as error:
    raise MissingDriver("Django's connections need Django; pip install django") from error


def django_connections(
    execution: Execution,
) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
    """Close what is stale before and after the job; around async functions on Django's thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _on_this_thread()
    return _on_djangos_thread()


def _refresh() -> None:
    db.reset_queries()
    db.close_old_connections()


@contextmanager
def _on_this_thread() -> Generator[None]:
    _refresh()
    try:
        yield
    finally:
        _refresh()


@asynccontextmanager
async def _on_djangos_thread() -> AsyncGenerator[None]:
    from asgiref.sync import sync_to_async

    await sync_to_async(_refresh)()
    try:
        yield
    finally:
        await sync_to_async(_refresh)()
