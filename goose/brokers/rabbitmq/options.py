"""Where the server is and how to treat it: the URL, its query, and their checks.

::

    amqp://[user:password@]host[:5672][,host2[:5672],…][/vhost]     amqps:// over TLS, verified

Several hosts are nodes of one cluster; any of them will do. Options come in the query string
or as keyword arguments, under the same names; a keyword wins. A password or vhost with special
characters is percent-encoded.
"""

from __future__ import annotations

import difflib
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from goose.errors import ConfigError
from goose.values import whole

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_SHAPES = "amqp://host, amqp://user:password@host:5672/vhost or amqps://host1,host2/vhost"


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a URL can say about the broker."""

    hosts: tuple[tuple[str, int], ...] = (("localhost", 5672),)
    """Nodes of one cluster."""
    tls: bool = False
    vhost: str = "/"
    username: str = "guest"
    password: str = field(default="guest", repr=False)
    namespace: str = "default"
    """Keeps several applications apart in one vhost; part of every name."""
    queue_type: str = "quorum"
    """Of the queues of ready jobs: ``quorum`` or ``classic``. All others are quorum queues."""
    replication_factor: int | None = None
    """Members of each new quorum queue; the server's own default if None."""
    delivery_limit: int = 100_000
    """Times the server may lend a job again before it parks it, to be stored afresh."""
    timeout: float = 10.0
    """Seconds to wait for a confirm or an answer, blocked or not."""
    connect_timeout: float = 5.0
    """Seconds to wait for a connection."""
    heartbeat: int = 10
    """Seconds of silence after which the server gives a connection up, twice over."""
    silence: float = 3.0
    """Seconds a server may leave a question without an answer before its connection is replaced."""
    window: int = 1000
    """Publishes under way at once."""
    channels: int = 1
    """Channels that a process publishes over; each batch goes over one."""
    quarantine: float = 1.5
    """Seconds that a job lent again waits for word of how its last worker died."""
    hold: float = 1.0
    """Seconds that a job may wait here without being asked for, before others may have it."""
    dead_max_count: int = 100_000
    """Dead jobs kept in each queue."""
    look: int = 10_000
    """Jobs that a search or listing looks at, at most."""
    tls_ca: str | None = None
    """File of certificates to trust instead of the system's."""
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_verify: bool = True

    @property
    def where(self) -> str:
        """The servers, as messages name them."""
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return hosts if self.vhost == "/" else f"{hosts}/{self.vhost}"

    def context(self) -> ssl.SSLContext:
        """Return how TLS is spoken."""
        context = ssl.create_default_context(cafile=self.tls_ca)
        if not self.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.tls_cert is not None:
            context.load_cert_chain(self.tls_cert, self.tls_key)
        return context


def read(url: str, given: Mapping[str, object]) -> Options:
    """Return the options of *url*, overridden by *given*.

    Raises:
        ConfigError: The URL is of another shape, or an option is unknown or nonsense.
    """
    try:
        parts = urlsplit(url)
        fields = _place(parts)
    except ValueError as error:
        raise ConfigError(
            f"{_shown(url)!r} is no RabbitMQ URL ({error}); write {_SHAPES}"
        ) from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name, value in {**query, **given}.items():
        if name not in _READERS:
            near = difflib.get_close_matches(name, _READERS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_READERS)}"
            raise ConfigError(
                f"{name!r} in {_shown(url)!r} is no option of the rabbitmq broker; {hint}"
            )
        try:
            fields[name] = _READERS[name](value)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"option {name} = {value!r:.80} of {_shown(url)!r}: {error}"
            ) from None
    return Options(**fields)  # type: ignore[arg-type]


def _place(parts: SplitResult) -> dict[str, object]:
    if parts.scheme not in ("amqp", "amqps"):
        raise ValueError(f"its scheme is {parts.scheme!r}")
    tls = parts.scheme == "amqps"
    fields: dict[str, object] = {"tls": tls}
    user, at, hosts = parts.netloc.rpartition("@")
    if at:
        name, colon, password = user.partition(":")
        fields["username"] = unquote(name)
        if colon:
            fields["password"] = unquote(password)
    # As in amqp URLs everywhere: no path is the vhost "/", a path is its name.
    vhost = parts.path[1:]
    if "/" in vhost or parts.fragment:
        raise ValueError("there is something after the vhost; a / in its name is written %2F")
    fields["vhost"] = unquote(vhost) or "/"
    fields["hosts"] = tuple(_host(host, 5671 if tls else 5672) for host in hosts.split(","))
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


def _queue_type(value: object) -> str:
    if value not in ("quorum", "classic"):
        raise ValueError("use quorum or classic")
    return str(value)


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    found = _DURATION.fullmatch(str(value).strip())
    if found is None:
        raise ValueError("use seconds, or a number with ms, s, m, h or d, as in 500ms")
    return float(found[1]) * _UNITS[found[2] or "s"]


def _timeout(value: object) -> float:
    seconds = _seconds(value)
    if not 0.01 <= seconds <= 3600:
        raise ValueError("use 10ms to 1h; a call must not wait for ever")
    return seconds


def _heartbeat(value: object) -> int:
    seconds = _seconds(value)
    if not 1 <= seconds <= 600:
        raise ValueError("use 1 s to 10 min")
    return round(seconds)


def _at_least_one(value: object) -> int:
    count = whole(value)
    if count < 1:
        raise ValueError("use 1 or more")
    return count


def _channels(value: object) -> int:
    count = _at_least_one(value)
    if count > 100:
        raise ValueError("use 1 to 100; a server has a limit for each connection")
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
    "queue_type": _queue_type,
    "replication_factor": _at_least_one,
    "delivery_limit": _at_least_one,
    "timeout": _timeout,
    "connect_timeout": _timeout,
    "heartbeat": _heartbeat,
    "silence": _timeout,
    "window": _at_least_one,
    "channels": _channels,
    "quarantine": _seconds,
    "hold": _timeout,
    "dead_max_count": _at_least_one,
    "look": _at_least_one,
    "tls_ca": _text,
    "tls_cert": _text,
    "tls_key": _text,
    "tls_verify": _flag,
}
