"""What Goose is told about where jobs go and how they are worked off, and by whom.

One frozen `Settings` value holds all of it. `load` makes one by laying, field by field,
``GOOSE_*`` environment variables over the project's file over the defaults; `configure`
lays values given in code over that for this process. Each field remembers its origin, so
that an error about it, now or hours later, names the line to change.

The project's file is the nearest, from the current directory upwards, ``goose.toml`` or
``pyproject.toml`` with a table ``[tool.goose]``. Its directory is also where the default
broker keeps ``goose.db``; without one that is the directory of the nearest
``pyproject.toml``, else the current directory.

Files and environment are trusted: they may name code to run (``middleware``, …).
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from goose import _project, values
from goose.brokers import namespaced, redact
from goose.brokers.base import Broker, Share
from goose.circuits import Circuit
from goose.circuits import parse as parse_circuit
from goose.errors import ConfigError
from goose.jobs import MAX_BYTES, check_queue
from goose.options import parse_retry
from goose.retries import Retry

PREFIX = "GOOSE_"
IGNORE = "GOOSE_IGNORE"
"""Names, with commas, of ``GOOSE_*`` variables that belong to other programs."""
DATABASE = "goose.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be configured. Durations are seconds.

    Made by `load`; a `Client` may be given one to depend on nothing around it.
    """

    broker: str | Broker = f"sqlite:///{DATABASE}"
    """URL, the namespace already in it, or the broker itself."""
    namespace: str | None = None
    """Separates users of one server; added to every broker URL that has none."""
    queue: str = "default"
    """Where jobs go if nothing nearer says so."""
    retry: Retry | None = None
    """What happens after an error if nothing nearer says so."""
    timeout: float | None = None
    """How long a single run may take if nothing nearer says so; None or `math.inf`: no limit."""
    max_bytes: int = MAX_BYTES
    """Size limit of an encoded job, in bytes."""

    allow: tuple[str, ...] = ()
    """Modules whose functions a worker may run."""
    queues: tuple[Share, ...] = ()
    """What a worker takes from; empty: only `queue`. See `worker_queues`."""
    concurrency: int = 10
    async_concurrency: int | None = None
    """Async functions at once; None is 10 times `concurrency`."""
    processes: int = 1
    middleware: tuple[Any, ...] = ()
    """Callables, or ``module:name`` of some, outermost first."""
    metrics: tuple[Any, ...] = ()
    """`Metrics` objects, or URLs or ``module:name`` of some."""
    resources: tuple[Any, ...] = ()
    """Context managers a worker opens for its jobs, or ``module:name`` of some."""
    before_enqueue: tuple[Any, ...] = ()
    """Callables that change or refuse jobs before they are stored, or ``module:name`` of some."""
    client_metrics: tuple[Any, ...] = ()
    """What clients count into: as `metrics`, which are a worker's."""
    store: str | None = None
    """URL of the store; None: the broker's own."""
    outbox: str | None = None
    """URL of the database with an outbox, from which workers move jobs to the broker."""
    outbox_table: str | None = None
    """Name of its table; None: ``goose_outbox``, and the namespace after it if there is one."""
    circuit: Mapping[str, Circuit] = field(default_factory=dict, hash=False)
    """When workers leave a queue alone, by its name."""
    cron: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Cron entries a worker registers, by name."""
    grace: float = 30.0
    """How long running jobs may go on after a stop."""
    ttl: float = 30.0
    """A worker session silent for so long is dead."""
    hard_timeout: float | None = None
    """The longest any job may run before its process is killed."""
    stall_limit: float = 900.0
    """How long a process that only burns CPU is still held for alive."""
    slow_after: float = 300.0
    """A job running so long is logged, with its stack."""
    max_crashes: int = 3
    """Crashes suffered alone after which a job is dead."""
    max_jobs: int | None = None
    """Jobs after which a worker process is replaced."""
    max_rss: int | None = None
    """Bytes of resident memory above which a worker process is replaced."""
    wait_broker: float = 30.0
    """How long a starting worker waits for its broker."""
    health: str | None = None
    """Where a worker serves ``/livez``, ``/readyz`` and ``/metrics``: ``:8080``, ``127.0.0.1:8080``."""
    heartbeat_file: str | None = None
    """Path of the file a worker keeps for ``goose health``."""
    log_format: str = "text"
    log_level: str = "info"

    plain_broker: str | Broker | None = field(default=None, compare=False, repr=False)
    """`broker` before the namespace was added, so that a nearer namespace can replace it."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Where each field that is not the default came from."""

    def origin(self, name: str) -> str:
        """Return where the field *name* came from, for messages."""
        return self.origins.get(name, "default")

    @property
    def worker_queues(self) -> tuple[Share, ...]:
        """What a worker takes from: `queues`, else only the default queue."""
        return self.queues or (Share(self.queue),)


def _broker(value: object) -> object:
    if isinstance(value, str):
        if "://" not in value:
            raise ValueError("give a URL such as redis://localhost:6379/0 or sqlite:///goose.db")
        return value.strip()
    if isinstance(value, Broker):
        return value
    raise ValueError("give a URL or a broker")


def _queue(value: object) -> str:
    """Return the name of a queue."""
    try:
        return check_queue(value if isinstance(value, str) else repr(value))
    except ConfigError as error:
        raise ValueError(str(error)) from None


def queue_shares(value: object) -> tuple[Share, ...]:
    """Return the queues of a worker.

    ``"mail,default"`` or a list is strict order; ``"critical=6,default=3"`` or a table
    has weights.
    """
    if isinstance(value, Mapping):
        found = [Share(_queue(name), values.weight(weight, name)) for name, weight in value.items()]
    else:
        if isinstance(value, str):
            value = value.split(",")
        if not isinstance(value, Iterable):
            raise TypeError("give 'mail,default' for strict order, or 'mail=6,default=3' by weight")
        found = [item if isinstance(item, Share) else _share(item) for item in value]
    if not found:
        raise ValueError("name at least one queue")
    if len({share.queue for share in found}) != len(found):
        raise ValueError("a queue is named twice")
    if any(share.weight for share in found) and not all(share.weight for share in found):
        raise ValueError("give every queue a weight, or none")
    return tuple(found)


def _circuits(value: object) -> dict[str, Circuit]:
    """Return the circuits of queues, from a table of tables or of numbers of failures."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError('give JSON such as {"mail": 5}') from None
    if not isinstance(value, Mapping):
        raise TypeError("give a table such as {mail = 5}, or [circuit.mail]")
    found: dict[str, Circuit] = {}
    for name, given in value.items():
        try:
            found[_queue(name)] = parse_circuit(given)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def _share(item: object) -> Share:
    name, weighted, weight = values.text(item).partition("=")
    return Share(_queue(name.strip()), values.weight(weight, item) if weighted else 0)


_PARSERS: dict[str, Callable[[object], object]] = {
    "broker": _broker,
    "namespace": values.text,
    "queue": _queue,
    "retry": parse_retry,
    "timeout": values.limit,
    "max_bytes": values.size,
    "allow": values.texts,
    "queues": queue_shares,
    "concurrency": values.count,
    "async_concurrency": values.count,
    "processes": values.count,
    "middleware": values.objects,
    "metrics": values.objects,
    "resources": values.objects,
    "before_enqueue": values.objects,
    "client_metrics": values.objects,
    "store": values.text,
    "outbox": values.text,
    "outbox_table": values.text,
    "circuit": _circuits,
    "cron": values.tables,
    "grace": values.duration,
    "ttl": values.positive_duration,
    "hard_timeout": values.positive_duration,
    "stall_limit": values.positive_duration,
    "slow_after": values.positive_duration,
    "max_crashes": values.count,
    "max_jobs": values.count,
    "max_rss": values.size,
    "wait_broker": values.duration,
    "health": values.address,
    "heartbeat_file": values.text,
    "log_format": values.one_of("text", "json"),
    "log_level": values.one_of("debug", "info", "warning", "error", "critical"),
}


def load(start: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of the environment over the project's file over the defaults.

    Args:
        start: Directory to look for the file from, upwards; the current one if None.
        environ: Environment variables; those of this process if None.

    Raises:
        ConfigError: A key is unknown, a value is wrong, or a file cannot be read.
    """
    directory = Path(start or Path.cwd()).absolute()
    path, table = _project.find(directory)
    settings = Settings(broker=f"sqlite:///{_project.home(directory, path) / DATABASE}")
    if path is not None:
        settings = _over(settings, _project.anchored(table, path.parent), f"{path}: ")
    given = _from_environment(os.environ if environ is None else environ)
    settings = _over(settings, given, "environment variable ", PREFIX)
    return _finished(settings)


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings among *environ*; a variable set to nothing counts as not set."""
    foreign = {name.strip() for name in environ.get(IGNORE, "").split(",")} | {IGNORE}
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and name not in foreign and value
    }


def _over(
    settings: Settings, given: Mapping[str, object], where: str, prefix: str = ""
) -> Settings:
    """Return *settings* with *given* laid over; *where* and *prefix* name keys in messages."""
    changes: dict[str, Any] = {}
    origins = {**settings.origins}
    for name, value in given.items():
        shown = f"{prefix}{name.upper()}" if prefix else name
        parse = _PARSERS.get(name)
        if parse is None:
            raise ConfigError(_unknown(name, shown, where, prefix))
        try:
            changes[name] = parse(value)
        except (TypeError, ValueError) as error:
            visible = redact(value) if isinstance(value, str) else value
            raise ConfigError(f"{where}{shown} = {visible!r}: {error}") from None
        origins[name] = f"{where}{shown}"
    if "broker" in changes:
        changes["plain_broker"] = None
    return dataclasses.replace(settings, **changes, origins=origins)


def _unknown(name: str, shown: str, where: str, prefix: str) -> str:
    near = get_close_matches(name, _PARSERS, n=1)
    hint = f"; did you mean {prefix}{near[0].upper() if prefix else near[0]}?" if near else ""
    other = f" (if it belongs to another program, set {IGNORE}={shown})" if prefix else ""
    if name in ("goose", "tool") and where.endswith("goose.toml: "):
        hint = "; in goose.toml the keys stand at the top, without a table"
    return f"{where}{shown} is not a setting of Goose{hint}{other}"


def _finished(settings: Settings) -> Settings:
    """Return *settings* with the namespace in the broker's URL."""
    plain = settings.broker if settings.plain_broker is None else settings.plain_broker
    return dataclasses.replace(
        settings,
        broker=namespaced(plain, settings.namespace),
        plain_broker=plain,
        origins=MappingProxyType(settings.origins),
    )


# --- the settings of this process --------------------------------------------------------

_HERE = "configure(): "
_lock = threading.Lock()
_given: dict[str, Any] = {}
_active: Settings | None = None


def _unlock_after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock_after_fork)


def configure(
    *,
    broker: str | Broker | None = None,
    namespace: str | None = None,
    queue: str | None = None,
    retry: Retry | int | None = None,
    timeout: float | timedelta | str | None = None,
    max_bytes: int | None = None,
    store: str | None = None,
    queues: str | Iterable[str | Share] | Mapping[str, int] | None = None,
    middleware: Iterable[Any] | None = None,
    metrics: Iterable[Any] | None = None,
    resources: Iterable[Any] | None = None,
    **more: Any,
) -> None:
    """Set defaults for this process, over environment and file; replaces an earlier `configure`.

    Takes every field of `Settings`; None leaves one to the environment and the file, and
    without arguments all are. Clients follow from their next call on. Nothing is connected
    or read yet. Call it when the program starts; safe from any thread.

    Raises:
        ConfigError: A key is unknown or a value is wrong; nothing has changed then.
    """
    global _given, _active
    named = {
        "broker": broker,
        "namespace": namespace,
        "queue": queue,
        "retry": retry,
        "timeout": timeout,
        "max_bytes": max_bytes,
        "store": store,
        "queues": queues,
        "middleware": middleware,
        "metrics": metrics,
        "resources": resources,
    }
    given = {name: value for name, value in (named | more).items() if value is not None}
    _over(Settings(), given, _HERE)  # finds what is wrong now, where the caller can see it
    with _lock:
        _given, _active = given, None


def with_given(settings: Settings, given: Mapping[str, object], where: str = _HERE) -> Settings:
    """Return *settings* with *given* laid over, values from code or flags.

    Args:
        settings: What to lay them over.
        given: Values by the names of `Settings`.
        where: Begins messages and origins.

    Raises:
        ConfigError: A key is unknown or a value is wrong.
    """
    return _finished(_over(settings, given, where))


def active() -> Settings:
    """Return this process's settings.

    The file and the environment are read at the first call, and again after a `configure`.

    Raises:
        ConfigError: As `load`.
    """
    global _active
    settings = _active
    if settings is None:
        with _lock:
            settings = _active
            if settings is None:
                settings = _active = with_given(load(), _given)
    return settings
