"""Settings for the length of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from goose import clients, settings


@contextmanager
def configured(**changes: Any) -> Iterator[None]:
    """Lay *changes*, as `goose.configure` takes them, over this process's settings for a while.

    Raises:
        ConfigError: As `goose.configure`.
    """
    given = settings._given  # noqa: SLF001 - nobody else needs to know what was given
    settings.configure(**{**given, **changes})
    try:
        yield
    finally:
        clients.default.close()
        settings.configure(**given)
