"""Looks at a server when it is first used: would it lose jobs by the way it is set up?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from goose.brokers import dangers
from goose.errors import ConfigError

if TYPE_CHECKING:
    from goose.brokers.redis.links import Link

logger = logging.getLogger("goose.brokers.redis")

OLDEST = (6, 2)
"""The oldest version of Redis whose commands the scripts use."""


def check(link: Link, key: str, *, strict: bool) -> None:
    """Warn of what is wrong with the server, once in this process; in *strict* mode refuse it.

    A server that does not let us look (an ACL, a proxy) is taken as it is.

    Raises:
        ConfigError: Something is wrong, and *strict*.
        BrokerUnavailable: It cannot be reached.
    """
    for problem in problems(link.look(key)):
        if strict:
            raise ConfigError(
                f"Redis at {link.where}: {problem}. Mend it, or use it as it is with strict=false"
            )
        dangers.warn(logger, f"Redis at {link.where}", problem)


def problems(info: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a server of which INFO says *info*; nothing if it says nothing."""
    found: list[str] = []
    version = info.get("redis_version", "")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        found.append(f"it is version {version}; use 6.2 or later")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and info.get("maxmemory", "0") != "0":
        found.append(
            f"maxmemory-policy is {policy}, so jobs are thrown away when memory is short; "
            "set maxmemory-policy noeviction"
        )
    elif policy != "noeviction":
        found.append(
            f"maxmemory-policy is {policy}: as soon as maxmemory is set, jobs are thrown away; "
            "set maxmemory-policy noeviction"
        )
    if info.get("aof_enabled") == "0" and info.get("save") == "":
        found.append(
            "it keeps nothing on disk, so a restart forgets every job; "
            "set appendonly yes (and appendfsync everysec or always)"
        )
    return found
