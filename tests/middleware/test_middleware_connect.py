"""Middleware by name, and async ones refused before any job meets them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest

from goose.errors import ConfigError
from goose.jobs import Job
from goose.middleware import connect, is_async_only, refuse_async
from goose.middleware.base import Execution, compose
from goose.middleware.timing_log import TimingLog, timing_log


@contextmanager
def sync_one(execution: Execution) -> Generator[None]:
    yield


@asynccontextmanager
async def async_one(execution: Execution, extra: int = 0) -> AsyncGenerator[None]:
    yield


def undecorated(execution: Execution) -> Generator[None]:
    yield


async def coroutine(execution: Execution) -> None: ...


class AsyncCallable:
    @asynccontextmanager
    async def __call__(self, execution: Execution) -> AsyncGenerator[None]:
        yield


class AsyncManager:
    def __init__(self, execution: Execution) -> None: ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *args: object) -> None: ...


class Manager:
    def __init__(self, execution: Execution) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *args: object) -> None: ...


class Both(AsyncManager, Manager): ...


class NeedsMore:
    def __init__(self, more: int) -> None: ...

    def __call__(self, execution: Execution) -> Any: ...


number = 3


class TestConnect:
    def test_a_name_is_imported(self) -> None:
        """module:name gives the object of that name."""
        assert timing_log is connect("goose.middleware.timing_log:timing_log")

    def test_a_middleware_is_itself(self) -> None:
        """What is not a name is returned as it is."""
        assert sync_one is connect(sync_one)

    def test_a_class_of_callables_is_instantiated(self) -> None:
        """A class that makes middleware gives one with its default options."""
        assert isinstance(connect("goose.middleware.timing_log:TimingLog"), TimingLog)

    @pytest.mark.parametrize("name", ["Manager", "sync_one", "AsyncManager", "Both", "async_one"])
    def test_classes_and_functions_that_make_managers_are_middleware(self, name: str) -> None:
        """A class whose instances are context managers is called with the execution, as is."""
        assert globals()[name] is connect(f"{__name__}:{name}")

    def test_a_class_of_managers_runs(self) -> None:
        """Such a class is entered around the function like any other middleware."""
        this = Execution(Job("id", "app:fn"), (), {}, {})
        compose([connect(f"{__name__}:Manager")], lambda: 7)(this)

        assert 7 == this.result

    @pytest.mark.parametrize(
        ("spec", "says"),
        [
            ("no_colon", "is not module:name"),
            ("no.such.module:x", r"'no.such.module' cannot be imported \(ModuleNotFoundError"),
            ("goose.middleware.timing_log:timing_lag", "did you mean 'timing_log'"),
            (f"{__name__}:number", "is a int, which cannot be called"),
            (f"{__name__}:undecorated", "decorate it with @contextlib.contextmanager"),
            (f"{__name__}:coroutine", "decorate it with @contextlib.contextmanager"),
            (f"{__name__}:NeedsMore", "cannot be made without arguments"),
        ],
    )
    def test_a_wrong_name_is_refused(self, spec: str, says: str) -> None:
        """Each mistake is a ConfigError that names the value and the fix."""
        with pytest.raises(ConfigError, match=says):
            connect(spec)


class TestAsyncOnly:
    @pytest.mark.parametrize(
        "middleware", [async_one, partial(async_one, extra=1), AsyncCallable(), AsyncManager]
    )
    def test_async_only_middleware_is_recognised(self, middleware: Any) -> None:
        """Functions, partials, callable objects and classes are seen through."""
        assert is_async_only(middleware)
        assert is_async_only(AsyncCallable().__call__)

    @pytest.mark.parametrize(
        "middleware",
        [sync_one, timing_log, Manager, Both, lambda execution: None, partial(sync_one)],
    )
    def test_others_are_not(self, middleware: Any) -> None:
        """What has a sync side, or cannot be known before it is called, is let through."""
        assert not is_async_only(middleware)

    def test_it_is_refused_around_a_sync_function(self) -> None:
        """The error names the middleware and the first function it cannot serve."""

        async def fine() -> None: ...

        refuse_async([async_one, sync_one], [fine])
        refuse_async([sync_one], [fine, len])
        with pytest.raises(ConfigError, match=r":async_one is async, but .*:undecorated is not"):
            refuse_async([sync_one, async_one], [fine, undecorated])
