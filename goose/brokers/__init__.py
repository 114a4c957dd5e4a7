"""From a URL to the broker it names.

The scheme of a URL is the name of an entry point in the group ``goose.brokers``; the
entry point loads a callable that takes the whole URL and returns a `Broker`. Goose's own
brokers are found the same way as anybody's, so that a new one needs no change here.
Nothing is imported, looked up or connected before `connect` is called.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from goose.brokers.base import Broker, Inspector, State
from goose.errors import ConfigError, MissingDriver, Unsupported

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "goose.brokers"
"""The entry-point group in which packages register broker schemes."""


_NICKNAMES = {
    "rabbitmq": "amqp",
    "rabbit": "amqp",
    "pg": "postgresql",
    "psql": "postgresql",
    "mem": "memory",
}
"""What a person may try, who knows the server and not the scheme of its URLs."""


def connect(url: str | Broker) -> Broker:
    """Return the broker that *url* names; a `Broker` comes back as it is.

    Brokers connect when they are first used, so a server that is down is no error here.
    A new broker is made by each call. Thread-safe.

    Args:
        url: ``scheme://…``, the options in its query string.

    Raises:
        MissingDriver: The package the broker needs is not installed.
        ConfigError: The scheme is unknown, or the URL or one of its options is wrong.
        Unsupported: It asks for what the broker cannot do.
    """
    if not isinstance(url, str):
        if isinstance(url, Broker):
            return url
        raise ConfigError(
            f"{url!r} is not a broker: give a URL or an object with the methods of one"
        )
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ConfigError(
            f"broker {redact(url)!r} is not a URL; write for example sqlite:///goose.db "
            "or redis://localhost:6379/0"
        )
    entry = _entry(scheme.lower(), url)
    _check_keeping(entry, url)
    try:
        broker = entry.load()(url)
    except ModuleNotFoundError as error:
        raise _missing(entry, url, error) from error
    if not isinstance(broker, Broker):
        raise ConfigError(
            f"{entry.value}, registered for {entry.name}:// brokers, made a "
            f"{type(broker).__name__}, which lacks methods of a broker"
        )
    return broker


def _entry(scheme: str, url: str) -> EntryPoint:
    from importlib.metadata import entry_points  # costs more than all of `import goose`

    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme in known:
        return known[scheme]
    near = [_NICKNAMES[scheme]] if scheme in _NICKNAMES else get_close_matches(scheme, known, n=1)
    hint = f"; did you mean {near[0]}://?" if near else ""
    names = ", ".join(f"{name}://" for name in sorted(known)) or "none is registered"
    raise ConfigError(f"broker {redact(url)!r} has an unknown scheme{hint} (known: {names})")


def _check_keeping(entry: EntryPoint, url: str) -> None:
    """Refuse to keep finished jobs where there is nothing to keep them in."""
    ours = entry.module.startswith("goose.brokers.")
    if ours and "keep_done=" in url.partition("?")[2] and not entry.module.endswith(".postgres"):
        raise Unsupported(
            f"broker {redact(url)!r} forgets jobs that are done, so keep_done= is nothing for it: "
            "PostgreSQL can keep them; else have a middleware or a result say what was done"
        )


def _missing(entry: EntryPoint, url: str, error: ModuleNotFoundError) -> ConfigError:
    """Say how to install what *entry* could not import; Goose's extras are named as its modules."""
    parts = entry.module.split(".")
    absent = error.name or str(error)
    if absent.split(".")[0] == parts[0]:
        return ConfigError(f"broker {redact(url)!r}: {entry.value} cannot be imported: {error}")
    package = f"goose-jobs[{parts[2]}]" if parts[:2] == ["goose", "brokers"] else absent
    return MissingDriver(
        f"broker {redact(url)!r} needs the Python package {absent!r}, which is not installed: "
        f"pip install '{package}'"
    )


def redact(url: str) -> str:
    """Return *url* fit to be shown: without its password or other secrets of its query."""
    if "://" not in url:
        return f"***@{url.rpartition('@')[2]}" if "@" in url else url
    try:
        parts = urlsplit(url)
        netloc = parts.netloc
        user, at, host = netloc.rpartition("@")
        if at and ":" in user:
            netloc = f"{user.partition(':')[0]}:***@{host}"
        elif not at and netloc and "@" in url:
            # A password with a / ? or # that was not quoted: the rest of it looks like a path.
            return f"{parts.scheme}://***@{url.rpartition('@')[2]}"
        query = "&".join(
            f"{name}=***" if _secret(name) else f"{name}={quote(value, safe='/:,')}"
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        )
        shown = urlunsplit(("", "", parts.path, query, parts.fragment))
    except ValueError:
        return url.partition("://")[0] + "://***"
    return f"{parts.scheme}://{netloc}{shown}"


def _secret(name: str) -> bool:
    return any(word in name.lower() for word in ("pass", "pwd", "secret", "token", "auth", "key"))


def namespaced(url: Any, namespace: str | None) -> Any:
    """Return *url* with ``namespace=`` added to its query, unless it has one or is a `Broker`."""
    if not namespace or not isinstance(url, str):
        return url
    base, question, query = url.partition("?")
    if any(name == "namespace" for name, _ in parse_qsl(query, keep_blank_values=True)):
        return url
    more = f"namespace={quote(namespace, safe='')}"
    return f"{base}?{query}&{more}" if question and query else f"{base}?{more}"


def name_of(broker: object) -> str:
    """Return how messages call *broker*: its class, without address or secrets."""
    return type(broker).__name__


def sees_all(inspector: Inspector) -> bool:
    """Say whether *inspector* can find a job in any state; one that cannot see what runs cannot."""
    try:
        inspector.count(State.RUNNING, "default")
    except Unsupported:
        return False
    return True


__all__ = ["GROUP", "Broker", "connect", "name_of", "namespaced", "redact", "sees_all"]
