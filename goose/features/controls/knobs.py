"""What can be set for live workers, and what may be said about each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from goose._json import JSON
from goose.brokers.base import Share
from goose.errors import ConfigError
from goose.settings import queue_shares

MAX_CONCURRENCY = 1000
"""Sync functions at once in a process that was told at run time."""
MAX_ASYNC = 10_000
"""Async functions at once, likewise."""
MAX_PROCESSES = 256
"""Worker processes under one supervisor, likewise: more are a slip of the hand."""
LEVELS = ("debug", "info", "warning", "error", "critical")


def knobs(
    *,
    concurrency: int | None = None,
    async_concurrency: int | None = None,
    processes: int | None = None,
    queues: str | Iterable[str] | Mapping[str, int] | None = None,
    log_level: str | None = None,
) -> dict[str, JSON]:
    """Return what was given, checked, as `Orders` keep it.

    Raises:
        ConfigError: A value is out of range, or nothing was given.
    """
    found: dict[str, JSON] = {}
    if concurrency is not None:
        found["concurrency"] = _count("concurrency", concurrency, MAX_CONCURRENCY)
    if async_concurrency is not None:
        found["async_concurrency"] = _count("async_concurrency", async_concurrency, MAX_ASYNC)
    if processes is not None:
        found["processes"] = _count("processes", processes, MAX_PROCESSES)
    if queues is not None:
        found["queues"] = [[share.queue, share.weight] for share in _shares(queues)]
    if log_level is not None:
        if log_level not in LEVELS:
            raise ConfigError(f"log_level = {log_level!r}: use one of {', '.join(LEVELS)}")
        found["log_level"] = log_level
    if not found:
        raise ConfigError(
            "nothing is set: give concurrency, async_concurrency, processes, queues or log_level"
        )
    return found


def shares(value: JSON) -> tuple[Share, ...]:
    """Return the queues that `knobs` put into orders."""
    pairs = cast("list[tuple[str, int]]", value)
    return tuple(Share(name, weight) for name, weight in pairs)


def processes_in(settings: Mapping[str, JSON]) -> int | None:
    """Return how many processes orders set; None where they set none, or no number known here."""
    value = settings.get("processes")
    try:
        return None if value is None else _count("processes", value, MAX_PROCESSES)
    except ConfigError:
        return None


def level_in(settings: Mapping[str, JSON]) -> str | None:
    """Return the log level that orders set; None where they set none, or none known here."""
    value = settings.get("log_level")
    return value if isinstance(value, str) and value in LEVELS else None


def _count(name: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"{name} = {value!r}: give a number from 1 to {most:,}")
    return value


def _shares(queues: object) -> tuple[Share, ...]:
    try:
        return queue_shares(queues)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"queues = {queues!r:.80}: {error}") from None
