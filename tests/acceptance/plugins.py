"""A metrics backend and middleware of a user's own, as ``module:name``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

import goose
from tests.acceptance.jobs import note


class Backend:
    """Writes down what it is told."""

    def increment(self, name: str, value: int, tags: Mapping[str, str]) -> None:
        note(f"metric {name} +{value} {tags.get('queue')} {tags.get('function')}")

    def gauge(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        note(f"metric {name} {value} {tags.get('queue')} {tags.get('state')}")

    def timing(self, name: str, seconds: float, tags: Mapping[str, str]) -> None:
        note(f"metric {name} s {tags.get('queue')} {tags.get('function')}")

    def close(self) -> None:
        note("metrics closed")


class Failing:
    """A backend that is down."""

    def increment(self, name: str, value: int, tags: Mapping[str, str]) -> None:
        raise OSError("down")

    gauge = timing = increment  # type: ignore[assignment]


@contextmanager
def around(execution: goose.Execution) -> Iterator[None]:
    note(f"before {execution.job.fn}")
    yield
    note(f"after {execution.result}")


@contextmanager
def tenant(execution: goose.Execution) -> Iterator[None]:
    note("tenant")
    yield


class Pool:
    def __enter__(self) -> Self:
        note("pool open")
        return self

    def __exit__(self, *_: object) -> None:
        note("pool closed")
