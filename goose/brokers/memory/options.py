"""Reads the URL of a memory broker: ``memory://[name][?namespace=…&dead_max_age=…&dead_max_count=…]``."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from goose.errors import ConfigError

KEPT_FOR = 180 * 86400.0
"""Default of how long dead jobs are kept, in seconds."""
KEPT = 100_000
"""Default of how many dead jobs are kept for each queue."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a URL says, and the defaults for the rest."""

    name: str
    namespace: str | None = None
    dead_max_age: float = KEPT_FOR
    dead_max_count: int = KEPT


def read(url: str) -> Options:
    """Return what *url* says.

    Raises:
        ConfigError: Another scheme, an unknown option, or a value that does not fit.
    """
    parts = urlsplit(url)
    if parts.scheme != "memory" or parts.path.strip("/") or parts.fragment:
        raise ConfigError(f"{url!r} is not a memory broker's URL: use memory:// or memory://name")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = ("namespace", "dead_max_age", "dead_max_count")
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{url!r} has the unknown option {key!r}; {hint}")
    values: dict[str, float] = {"dead_max_age": KEPT_FOR, "dead_max_count": KEPT}
    for key, kind, fix in (
        ("dead_max_age", float, "give seconds"),
        ("dead_max_count", int, "give a whole number"),
    ):
        try:
            values[key] = kind(given.get(key, values[key]))
        except ValueError:
            raise ConfigError(f"option {key} = {given[key]!r:.80} of {url!r}: {fix}") from None
    age, count = values["dead_max_age"], int(values["dead_max_count"])
    return Options(parts.netloc, given.get("namespace"), age, count)
