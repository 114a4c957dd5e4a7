"""Functions that acceptance tests enqueue. They write what they did into the file ``NOTES`` names."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import goose


def note(text: str) -> None:
    """Append a line, in one write."""
    with Path(os.environ["NOTES"]).open("a", buffering=1) as notes:
        notes.write(f"{text}\n")


def say(text: str = "said") -> None:
    note(text)


async def say_async(text: str) -> None:
    await asyncio.sleep(0)
    note(text)


def send(to: str, *, subject: str = "") -> int:
    """The design's own example."""
    note(f"{to} {subject}")
    return 1


def linger(seconds: float) -> None:
    note("lingering")
    time.sleep(seconds)
    note("lingered")


def spin() -> None:
    """Never return to the interpreter, where a soft timeout could reach it."""
    note("spinning")
    # In one call, which holds the interpreter's lock: between two, others could begin a job.
    ctypes.PyDLL(None).sleep(600)


def fail(text: str = "no") -> None:
    note("failing")
    raise ValueError(text)


def process(seconds: float) -> None:
    time.sleep(seconds)
    note(str(os.getpid()))


@goose.job(queue="mail", timeout=timedelta(seconds=30), retry=goose.Retry(max_retries=7))
def decorated(text: str = "") -> None:
    note(text)


def traced(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        note("traced")
        return fn(*args, **kwargs)

    return wrapper


@traced
def wrapped(text: str) -> None:
    note(text)


def constant(attempt: int, error: BaseException) -> float:
    """A back-off of one's own."""
    return 0.01 * attempt


def back_off_wrongly(attempt: int, error: BaseException) -> float:
    return float("nan")


def on_error(job: goose.Job[Any], error: BaseException) -> None:
    note(f"on_error {job.attempt} {type(error).__name__}")


def on_death(job: goose.Job[Any], error: BaseException) -> None:
    note(f"on_death {job.attempt} {type(error).__name__}")


def take_lock(lock: Lock) -> None: ...


class Lock:
    """What has no JSON form."""


class Box:
    def method(self) -> None: ...

    @staticmethod
    def static() -> None: ...


def generate() -> Any:
    yield 1


def nested() -> Callable[[], None]:
    def inner() -> None: ...

    return inner


nameless = lambda: None  # noqa: E731 - what is refused
partial = functools.partial(send, "a")
