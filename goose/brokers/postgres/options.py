"""Where the database is and how to treat it: the URL, its query, and their checks.

::

    postgresql://[user:password@]host[:5432][,host2…]/database[?option=…]      or postgres://

Options come in the query string or as keyword arguments, under the same names; a keyword
wins. What is no option of the broker is one of libpq's (``sslmode``, ``passfile``,
``application_name``, …), as are the ``PG…`` environment variables and the password file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import parse_qsl, urlencode

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from goose.errors import ConfigError
from goose.values import whole

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?")
_NAMESPACE = re.compile(r"[A-Za-z0-9_]{0,40}")


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a URL can say about the broker."""

    server: Mapping[str, str] = field(default_factory=dict)
    """Parameters of the connection, in libpq's words."""
    namespace: str = ""
    """Keeps several brokers apart in one database: the tables are in the schema ``goose``, or
    in ``goose_NAMESPACE``."""
    notify: str = "on"
    """``on``: idle workers are woken by NOTIFY, sent beside what stores jobs, and look by
    themselves twice a second. ``in_transaction``: jobs stored in a transaction of the caller's
    own wake workers too. ``off``: no state is kept in a session of the server (no LISTEN, no
    prepared statements, no settings), so that a pooler may stand in between."""
    pool: int = 10
    """Connections of a process at most; a caller that finds none free waits for up to *timeout*."""
    timeout: float = 4.0
    """Seconds to wait for an answer."""
    connect_timeout: float = 3.0
    """Seconds to wait for a connection."""
    migrate: str = "auto"
    """``auto``: tables that are missing are made at the first use. ``off``: only by ``goose migrate``."""
    dead_max_age: float = 180 * 86400.0
    """Seconds a dead job is kept."""
    dead_max_count: int = 100_000
    """Dead jobs kept in each queue."""
    keep_done: float = 0.0
    """Seconds a job is kept after it is done; 0 forgets it."""
    strict: bool = False
    """Whether a server whose settings may lose jobs is refused; otherwise a warning is logged."""

    @property
    def schema(self) -> str:
        """The schema of the tables, which is the name of the channel too."""
        return f"goose_{self.namespace}" if self.namespace else "goose"

    @property
    def where(self) -> str:
        """The server and database as messages name them."""
        server = self.server
        hosts = (server.get("host") or server.get("hostaddr") or "localhost").split(",")
        ports = (server.get("port") or "5432").split(",")
        places = [
            f"{host}:{ports[min(number, len(ports) - 1)] or 5432}"
            for number, host in enumerate(hosts)
        ]
        return f"{','.join(places)}/{server.get('dbname', '')}".rstrip("/")


def read(url: str, given: Mapping[str, object]) -> Options:
    """Return the options of *url*, overridden by *given*.

    Raises:
        ConfigError: The URL is of another shape, or an option is unknown or nonsense.
    """
    try:
        query = dict(parse_qsl(url.partition("?")[2], keep_blank_values=True))
        ours = {name: value for name, value in query.items() if name in _READERS}
        theirs = {name: value for name, value in query.items() if name not in _READERS}
        server = _server(url.partition("?")[0], theirs)
    except (ValueError, psycopg.Error) as error:
        raise ConfigError(
            f"{_shown(url)!r} is no URL of PostgreSQL ({str(error).strip()}); write "
            "postgresql://user@host:5432/database"
        ) from None
    fields: dict[str, object] = {"server": server}
    for name, value in {**ours, **given}.items():
        if name not in _READERS:
            raise _unknown(name, url)
        try:
            fields[name] = _READERS[name](value)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"option {name} = {value!r:.80} of {_shown(url)!r}: {error}"
            ) from None
    return Options(**fields)  # type: ignore[arg-type]


def _server(url: str, more: Mapping[str, str]) -> dict[str, str]:
    """Return libpq's parameters of *url* and of the options that are not ours."""
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name in more:
        if name not in known:
            raise _unknown(name, url)
    found = conninfo_to_dict(f"{url}?{urlencode(more)}" if more else url)
    server = {name: str(value) for name, value in found.items() if value is not None}
    for port in server.get("port", "").split(","):
        if port and not port.isdigit():
            raise ValueError(f"port {port!r} is no number")
    # A standby would answer what it sees, and refuse what is written.
    server.setdefault("target_session_attrs", "read-write")
    server.setdefault("application_name", "goose")
    return server


def _unknown(name: str, url: str) -> ConfigError:
    libpq = [option.keyword.decode() for option in pq.Conninfo.get_defaults()]
    near = difflib.get_close_matches(name, [*_READERS, *libpq], 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_READERS)} and libpq's"
    return ConfigError(f"{name!r} in {_shown(url)!r} is no option of the postgres broker; {hint}")


def _shown(url: str) -> str:
    """Return *url* without what may be secret."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _namespace(value: object) -> str:
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        raise ValueError("use up to 40 of the characters A-Z a-z 0-9 _")
    return value


def _one_of(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in words:
            raise ValueError(f"use {' or '.join(words)}")
        return str(value)

    return parse


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    found = _DURATION.fullmatch(str(value).strip())
    if found is None:
        raise ValueError("use seconds, or a number with ms, s, m, h, d or w, as in 180d")
    return float(found[1]) * _UNITS[found[2] or "s"]


def _timeout(value: object) -> float:
    seconds = _seconds(value)
    if not 0.1 <= seconds <= 3600:
        raise ValueError("use 100ms to 1h; a call must not wait for ever")
    return seconds


def _count(value: object) -> int:
    count = whole(value)
    if count < 0:
        raise ValueError("use 0 or more")
    return count


def _at_least_one(value: object) -> int:
    count = _count(value)
    if not count:
        raise ValueError("use 1 or more")
    return count


def _flag(value: object) -> bool:
    said = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    try:
        return said[str(value).lower()]
    except KeyError:
        raise ValueError("use true or false") from None


_READERS: dict[str, Callable[[object], object]] = {
    "namespace": _namespace,
    "notify": _one_of("on", "in_transaction", "off"),
    "pool": _at_least_one,
    "timeout": _timeout,
    "connect_timeout": _timeout,
    "migrate": _one_of("auto", "off"),
    "dead_max_age": _seconds,
    "dead_max_count": _count,
    "keep_done": _seconds,
    "strict": _flag,
}
