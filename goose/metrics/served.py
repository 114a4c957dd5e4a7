"""Addresses that numbers are served on: ``prometheus://host:port``."""

from __future__ import annotations

from urllib.parse import urlsplit

from goose.errors import ConfigError


def address(url: str) -> tuple[str, int | None]:
    """Return host and port of a Prometheus URL; an empty host is all interfaces.

    Raises:
        ConfigError: It is none.
    """
    parts = urlsplit(url)
    if parts.scheme != "prometheus" or parts.path.strip("/") or parts.query:
        raise ConfigError(
            f"{url!r} is not a Prometheus URL: write prometheus://host:port, without path or options"
        )
    try:
        return parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"Prometheus URL {url!r}: {error}") from None


def is_served(spec: object) -> bool:
    """Say whether *spec* is such a URL."""
    return isinstance(spec, str) and spec.startswith("prometheus:")
