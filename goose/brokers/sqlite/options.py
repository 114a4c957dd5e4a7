"""Where the database is and how to treat it: the URL, its query, and their checks.

``sqlite:///jobs.db`` is relative to the directory of the moment the broker is made,
``sqlite:////var/lib/jobs.db`` is absolute. Options come in the query string or as
keyword arguments, under the same names; a keyword wins.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import parse_qsl, unquote, urlsplit

from goose.errors import ConfigError
from goose.values import whole

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?")
_NAMESPACE = re.compile(r"[A-Za-z0-9_]{0,40}")


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a URL can say about the broker."""

    path: str
    """Absolute path of the database file."""
    synchronous: str = "full"
    """``full``: a job that is stored survives a power cut. ``normal``: it survives the end of
    every process; a power cut may take the last moments."""
    namespace: str = ""
    """Keeps several brokers apart in one file."""
    dead_max_age: float = 180 * 86400.0
    """Seconds a dead job is kept."""
    dead_max_count: int = 100_000
    """Dead jobs kept in each queue."""
    timeout: float = 15.0
    """Seconds to wait for other writers of the file before `BrokerUnavailable`."""


def read(place: str | os.PathLike[str], given: Mapping[str, object]) -> Options:
    """Return the options of *place*, a URL or a path, overridden by *given*.

    Raises:
        ConfigError: The URL is no such file, or an option is unknown or nonsense.
    """
    text = os.fspath(place)
    path, query = _split(text) if text.startswith("sqlite:") else (text, {})
    if not path or ":memory:" in path:
        raise ConfigError(
            f"{text!r} names no file: for jobs that live in this process only use memory://, "
            "else name a file as in sqlite:///jobs.db"
        )
    fields: dict[str, object] = {}
    for name, value in {**query, **given}.items():
        if name not in _READERS:
            near = difflib.get_close_matches(name, _READERS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_READERS)}"
            raise ConfigError(f"{name!r} in {text!r} is no option of the sqlite broker; {hint}")
        try:
            fields[name] = _READERS[name](value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"option {name} = {value!r:.80} of {text!r}: {error}") from None
    return Options(os.path.abspath(path), **fields)  # type: ignore[arg-type]


def _split(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/"):
        raise ConfigError(
            f"{url!r} is no sqlite URL: write sqlite:///relative.db or sqlite:////absolute.db"
        )
    return unquote(parts.path[1:]), dict(parse_qsl(parts.query, keep_blank_values=True))


def _synchronous(value: object) -> str:
    if value not in ("full", "normal"):
        raise ValueError("use full or normal")
    return str(value)


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        raise ValueError("use up to 40 of the characters A-Z a-z 0-9 _")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    found = _DURATION.fullmatch(str(value).strip())
    if found is None:
        raise ValueError("use seconds, or a number with ms, s, m, h, d or w, as in 180d")
    return float(found[1]) * _UNITS[found[2] or "s"]


def _count(value: object) -> int:
    count = whole(value)
    if count < 0:
        raise ValueError("use 0 or more")
    return count


_READERS: dict[str, Callable[[object], object]] = {
    "synchronous": _synchronous,
    "namespace": _name,
    "dead_max_age": _seconds,
    "dead_max_count": _count,
    "timeout": _seconds,
}
