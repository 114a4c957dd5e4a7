"""Where the server is and how to treat it: the URL, its query, and their checks.

::

    redis://[user:password@]host[:6379][/db]          rediss:// the same over TLS, verified
    unix:///path/to/redis.sock[?db=0]                 or redis+unix://
    redis+sentinel://[user:password@]host[:26379],host2,…/service[/db]
    redis+cluster://[user:password@]host[:6379],host2,…

Options come in the query string or as keyword arguments, under the same names; a keyword
wins. A password with special characters is percent-encoded.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from goose.errors import ConfigError
from goose.values import whole

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?")
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_PORTS = {"redis+sentinel": 26379, "rediss+sentinel": 26379}
_SHAPES = (
    "redis://host:6379/0, rediss://host, unix:///path/to/redis.sock, "
    "redis+sentinel://host1,host2/service/0 or redis+cluster://host1,host2"
)


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a URL can say about the broker."""

    kind: str = "single"
    """``single``, ``sentinel`` or ``cluster``."""
    hosts: tuple[tuple[str, int], ...] = (("localhost", 6379),)
    path: str | None = None
    """Of a unix socket."""
    tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = None
    service: str = ""
    """The name under which sentinels know the master."""
    namespace: str = "default"
    """Keeps several applications apart on one server; part of every key."""
    pool: int = 50
    """Connections at most; a caller that finds none free waits for up to *timeout*."""
    timeout: float = 4.0
    """Seconds to wait for an answer."""
    connect_timeout: float = 3.0
    """Seconds to wait for a connection."""
    wait: int = 0
    """Replicas that must have confirmed a job before it counts as stored."""
    wait_timeout: float = 1.0
    """Seconds to wait for them."""
    dead_max_age: float = 180 * 86400.0
    """Seconds a dead job is kept."""
    dead_max_count: int = 100_000
    """Dead jobs kept in each queue."""
    strict: bool = False
    """Whether a server whose settings may lose jobs is refused; otherwise a warning is logged."""
    tls_ca: str | None = None
    """File of certificates to trust instead of the system's."""
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_verify: bool = True
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    """The sentinels' own, which have none by default."""


def read(url: str, given: Mapping[str, object]) -> Options:
    """Return the options of *url*, overridden by *given*.

    Raises:
        ConfigError: The URL is of another shape, or an option is unknown or nonsense.
    """
    try:
        parts = urlsplit(url)
        fields = _place(parts)
    except ValueError as error:
        raise ConfigError(f"{_shown(url)!r} is no Redis URL ({error}); write {_SHAPES}") from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name, value in {**query, **given}.items():
        if name not in _READERS:
            near = difflib.get_close_matches(name, _READERS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_READERS)}"
            raise ConfigError(
                f"{name!r} in {_shown(url)!r} is no option of the redis broker; {hint}"
            )
        try:
            fields[name] = _READERS[name](value)
        except (TypeError, ValueError) as error:
            said = "" if "password" in name else f" = {value!r:.80}"
            raise ConfigError(f"option {name}{said} of {_shown(url)!r}: {error}") from None
    return Options(**fields)  # type: ignore[arg-type]


def _place(parts: SplitResult) -> dict[str, object]:
    scheme = parts.scheme
    fields: dict[str, object] = {"tls": scheme.startswith("rediss")}
    user, at, hosts = parts.netloc.rpartition("@")
    if at:
        name, colon, password = user.partition(":")
        fields["username"] = unquote(name) or None
        fields["password"] = unquote(password) if colon else None
    if scheme in ("unix", "redis+unix"):
        if not parts.path:
            raise ValueError("it names no socket")
        return {**fields, "path": unquote(parts.path), "tls": False}
    steps = [unquote(step) for step in parts.path.split("/") if step]
    if scheme in ("redis+sentinel", "rediss+sentinel"):
        if not steps:
            raise ValueError("it names no service; the sentinels' default is mymaster")
        fields |= {"kind": "sentinel", "service": steps.pop(0)}
    elif scheme in ("redis+cluster", "rediss+cluster"):
        fields["kind"] = "cluster"
        if steps:
            raise ValueError("a cluster has no numbered databases")
    elif scheme not in ("redis", "rediss"):
        raise ValueError(f"its scheme is {scheme!r}")
    elif "," in hosts:
        raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
    if steps:
        if not steps[0].isdecimal():
            raise ValueError(f"its path names a database by number, and {steps[0]!r} is none")
        fields["db"] = int(steps.pop(0))
    if steps or parts.fragment:
        raise ValueError("there is something after the database")
    fields["hosts"] = tuple(_host(host, _PORTS.get(scheme, 6379)) for host in hosts.split(","))
    return fields


def _host(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    try:
        return parts.hostname or "localhost", parts.port or default
    except ValueError:
        port = parts.netloc.rpartition(":")[2]
        raise ValueError(f"port {port!r} is no number from 0 to 65535") from None


def _shown(url: str) -> str:
    """Return *url* without what may be secret."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _namespace(value: object) -> str:
    if not isinstance(value, str) or not _NAMESPACE.fullmatch(value):
        raise ValueError("use 1 to 40 of the characters A-Z a-z 0-9 _ . -")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    found = _DURATION.fullmatch(str(value).strip())
    if found is None:
        raise ValueError("use seconds, or a number with ms, s, m, h, d or w, as in 180d")
    return float(found[1]) * _UNITS[found[2] or "s"]


def _timeout(value: object) -> float:
    seconds = _seconds(value)
    if not 0.01 <= seconds <= 3600:
        raise ValueError("use 10ms to 1h; a call must not wait for ever")
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


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("use some text")
    return value


_READERS: dict[str, Callable[[object], object]] = {
    "namespace": _namespace,
    "pool": _at_least_one,
    "timeout": _timeout,
    "connect_timeout": _timeout,
    "wait": _count,
    "wait_timeout": _timeout,
    "dead_max_age": _seconds,
    "dead_max_count": _count,
    "strict": _flag,
    "db": _count,
    "tls_ca": _text,
    "tls_cert": _text,
    "tls_key": _text,
    "tls_verify": _flag,
    "sentinel_username": _text,
    "sentinel_password": _text,
}
