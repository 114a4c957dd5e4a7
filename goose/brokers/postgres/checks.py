"""Looks at a server when it is first used: would it lose jobs by the way it is set up?"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from goose.brokers import dangers
from goose.errors import ConfigError

logger = logging.getLogger("goose.brokers.postgres")

OLDEST = 130000
"""The oldest version of PostgreSQL that knows the statements, as it numbers itself."""
SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "server_encoding")
LOOK = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"


def check(where: str, version: int, settings: Mapping[str, str], *, strict: bool) -> None:
    """Warn of what is wrong with the server, once in this process; in *strict* mode refuse it.

    Raises:
        ConfigError: The server is too old; or something is wrong, and *strict*.
    """
    if version < OLDEST:
        raise ConfigError(
            f"PostgreSQL at {where} is of version {version // 10000}; use {OLDEST // 10000} or later"
        )
    for problem in problems(settings):
        if strict:
            raise ConfigError(
                f"PostgreSQL at {where}: {problem}. Mend it, or use it as it is with strict=false"
            )
        dangers.warn(logger, f"PostgreSQL at {where}", problem)


def problems(settings: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a server of these settings; nothing if it told none."""
    found = [
        f"{name} is off, so a power cut may ruin the database; set {name} = on"
        for name in ("fsync", "full_page_writes")
        if settings.get(name) == "off"
    ]
    if settings.get("synchronous_commit") == "off":
        found.append(
            "synchronous_commit is off, so a crash forgets jobs that were just stored, and that "
            "others were just done; set it to on, or at least to local, for the role of the broker"
        )
    if settings.get("server_encoding", "UTF8") != "UTF8":
        found.append(
            f"the database's encoding is {settings['server_encoding']}, which cannot store every id; "
            "use a database of UTF8"
        )
    return found
