"""What a StatsD URL says: ``statsd://host:port?prefix=goose&tags=env:prod&dialect=datadog``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from goose.errors import ConfigError
from goose.plugins import nearest

Place: TypeAlias = str | tuple[str, int]
"""The path of a unix socket, or host and port."""

_OPTIONS = ("prefix", "tags", "dialect", "rate")


def read(url: str) -> tuple[Place, dict[str, str]]:
    """Return where the server is and the options of *url*.

    Raises:
        ConfigError: The scheme, the port or an option is wrong.
    """
    parts = urlsplit(url)
    if parts.scheme != "statsd":
        raise ConfigError(f"{url!r} is not a StatsD URL: write statsd://host:port")
    try:
        port = 8125 if parts.port is None else parts.port
    except ValueError as error:
        raise ConfigError(f"StatsD URL {url!r}: {error}") from None
    path = unquote(parts.path) if parts.path.strip("/") else ""
    if port == 0 or (path and parts.netloc):
        raise ConfigError(
            f"StatsD URL {url!r}: write statsd://host:port, without a path, or statsd:///path of a "
            "unix socket"
        )
    options: dict[str, str] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in _OPTIONS:
            raise ConfigError(
                f"StatsD URL {url!r} has an unknown option {key!r}{nearest(key, _OPTIONS)}; "
                f"there are: {', '.join(_OPTIONS)}"
            )
        again = key == "tags" and key in options
        options[key] = f"{options[key]},{value}" if again else value
    return path or (parts.hostname or "127.0.0.1", port), options


def read_rate(given: str | float) -> float:
    """Return the part that is sent, or raise `ConfigError`."""
    try:
        rate = float(given)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= 1:
        raise ConfigError(f"StatsD rate {given!r} is not a number above 0 and at most 1")
    return rate


def read_tags(text: str) -> dict[str, str]:
    """Return the tags of ``env:prod,region:eu``, or raise `ConfigError`."""

    def pairs() -> Iterator[tuple[str, str]]:
        for part in filter(None, text.split(",")):
            key, colon, value = part.partition(":")
            if not (key and colon and value):
                raise ConfigError(f"StatsD tag {part!r} is not name:value, for example env:prod")
            yield key, value

    return dict(pairs())
