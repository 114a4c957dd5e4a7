"""A job, and the bytes it travels as.

A `Job` is one stored call: plain data, frozen, made by a client and read by a worker.
`encode` and `decode` turn it into its versioned JSON body and back; `seal` wraps the
body in the `Envelope` a broker sees. Brokers move bodies and never look inside.

Decoding trusts nobody: size and depth are bounded, NaN, duplicate keys and wrong types
are refused, and every refusal is one error, `Undecodable`, so that a hostile message
costs a worker one dead job. Keys this version does not know are kept in `Job.extra` and
written back, so that an older worker can requeue a newer client's job unharmed.

The format is described in docs/wire-format.md.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar, cast

from goose.errors import ConfigError, NewerVersion, PayloadTooLarge, Undecodable

JSON: TypeAlias = "None | bool | int | float | str | list[JSON] | dict[str, JSON]"
R_co = TypeVar("R_co", covariant=True)

VERSION = 1
"""Version of the envelope this Goose writes."""
MAX_BYTES = 1024 * 1024
"""Default limit of an encoded job, in bytes."""
MAX_DEPTH = 64
"""Limit of nesting of an encoded job; the job's own object and ``args`` are two levels."""

_QUEUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,99}", re.ASCII)
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Failure:
    """What is remembered of a job's errors; travels with the job.

    Instants are epoch seconds by the worker's clock.
    """

    type: str
    """``module:qualname`` of the last error's class."""
    message: str
    first_at: float
    """When the job failed for the first time."""
    last_at: float
    traceback: str = ""
    """Text of the last traceback, its end, at most a few kilobytes."""
    died_at: float | None = None
    reason: str = ""
    """Why the job is dead: ``retries``, ``gave_up``, ``buried``, ``crashed``, ``timeout`` …"""


@dataclass(frozen=True, slots=True)
class Job(Generic[R_co]):
    """One stored call. Frozen; hashed by id; `R_co` is what the function returns."""

    id: str
    """Unique while the job is stored; a UUIDv7 when made by a client."""
    fn: str
    """The function as ``module:name``."""
    args: tuple[JSON, ...] = ()
    """Positional arguments as JSON values."""
    kwargs: Mapping[str, JSON] = field(default_factory=dict)
    queue: str = "default"
    group: str | None = None
    enqueued_at: float = 0.0
    """Epoch seconds by the client's clock."""
    attempt: int = 0
    """Executions that ended in an error so far."""
    crashes: int = 0
    """Executions that were alone in their process when it died."""
    suspicions: int = 0
    """Times it was, perhaps among others, in a process that died; above 0 it runs alone."""
    retry: Mapping[str, JSON] | None = None
    """Fields of its `Retry` that differ from the default."""
    timeout: float | None = None
    """Seconds a single run may take, or None."""
    failure: Failure | None = None
    meta: Mapping[str, JSON] = field(default_factory=dict)
    """Free for middleware and integrations: trace context, tenant, …"""
    deferred_since: float | None = None
    """Epoch seconds since when it waits for a worker that knows its function."""
    extra: Mapping[str, JSON] = field(default_factory=dict)
    """Keys of the body this version does not know, kept as they came."""

    def __hash__(self) -> int:
        return hash(self.id)

    def evolve(self, **changes: Any) -> Job[R_co]:
        """Return a copy with *changes*."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A job as a broker sees it.

    At most one of `delay` and `due_at` is given; neither means ready now.
    """

    id: str
    queue: str
    body: bytes
    delay: float | None = None
    """Seconds from now by the broker's clock, at least 0."""
    due_at: float | None = None
    """Epoch seconds; an instant that has passed means now."""
    group: str | None = None


_id_lock = threading.Lock()
_id_last = 0


def new_id() -> str:
    """Return a new UUIDv7: 48 bits of milliseconds, then a counter, then chance.

    Ids made by one process sort in the order they were made. Thread-safe, and safe after
    ``fork``: 62 random bits keep two processes of the same millisecond apart.

    Source: RFC 9562, section 5.7, method 3 (sub-millisecond fraction in ``rand_a``).
    """
    global _id_last
    with _id_lock:
        stamp = (time.time_ns() << 12) // 1_000_000
        _id_last = stamp = stamp if stamp > _id_last else _id_last + 1
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000
    text = f"{(stamp >> 12) & 0xFFFF_FFFF_FFFF:012x}7{stamp & 0xFFF:03x}{tail:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _unlock_after_fork() -> None:
    global _id_lock
    _id_lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock_after_fork)


def check_queue(name: str) -> str:
    """Return *name*, or raise `ConfigError` if it cannot name a queue."""
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a queue: use 1 to 100 of the characters A-Z a-z 0-9 _ . : -, "
            "the first a letter, digit or underscore"
        )
    return name


# --- out ---------------------------------------------------------------------------------

_encoder = json.JSONEncoder(
    separators=(",", ":"), allow_nan=False, ensure_ascii=False, check_circular=False
)


def encode(job: Job[Any], *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return *job* as its JSON body; fields at their default are not written.

    Raises:
        PayloadTooLarge: The body is over *max_bytes* (bytes) or nested deeper than `MAX_DEPTH`.
        ValueError: A value is not JSON; clients check arguments before they come here.
    """
    fields: dict[str, Any] = {
        "v": VERSION,
        "id": job.id,
        "fn": job.fn,
        "args": job.args,
        "kwargs": job.kwargs,
        "queue": job.queue,
        "enqueued_at": job.enqueued_at,
    }
    if job.group is not None:
        fields["group"] = job.group
    if job.attempt:
        fields["attempt"] = job.attempt
    if job.crashes:
        fields["crashes"] = job.crashes
    if job.suspicions:
        fields["suspicions"] = job.suspicions
    if job.retry:
        fields["retry"] = job.retry
    if job.timeout is not None:
        fields["timeout"] = job.timeout
    if job.failure is not None:
        fields["failure"] = _failure_fields(job.failure)
    if job.meta:
        fields["meta"] = job.meta
    if job.deferred_since is not None:
        fields["deferred_since"] = job.deferred_since
    if job.extra:
        fields.update(job.extra)
    body = _encoder.encode(fields).encode()
    if len(body) > max_bytes:
        raise PayloadTooLarge(
            f"job {job.id} of {job.fn} takes {len(body):,} bytes, over the limit of {max_bytes:,}; "
            "store the data elsewhere and pass a reference, or raise max_bytes"
        )
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _too_deep(fields):
        raise PayloadTooLarge(
            f"job {job.id} of {job.fn} is nested deeper than {MAX_DEPTH} levels; flatten its arguments"
        )
    return body


def _failure_fields(failure: Failure) -> dict[str, JSON]:
    fields: dict[str, JSON] = {
        "type": failure.type,
        "message": failure.message,
        "first_at": failure.first_at,
        "last_at": failure.last_at,
    }
    if failure.traceback:
        fields["traceback"] = failure.traceback
    if failure.died_at is not None:
        fields["died_at"] = failure.died_at
    if failure.reason:
        fields["reason"] = failure.reason
    return fields


def seal(
    job: Job[Any],
    *,
    delay: float | None = None,
    due_at: float | None = None,
    max_bytes: int = MAX_BYTES,
) -> Envelope:
    """Return *job* in its envelope, ready now or due after *delay* seconds or at *due_at*.

    Raises:
        PayloadTooLarge: As `encode`.
    """
    body = encode(job, max_bytes=max_bytes)
    return Envelope(job.id, job.queue, body, delay, due_at, job.group)


# --- in ----------------------------------------------------------------------------------


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0.0:  # inf and nan are the only numbers that fail this
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refuse_constant
)


def parse(body: bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the JSON object in *body*, strictly: bounded, finite, no duplicate keys.

    Raises:
        Undecodable: It is anything else; the message says what, not the content.
    """
    if len(body) > max_bytes:
        raise Undecodable(f"{len(body):,} bytes, over the limit of {max_bytes:,}")
    try:
        fields = _decoder.decode(body.decode())
        # A lone surrogate parses but cannot be written to UTF-8 again.
        if b"\\u" in body:
            _encoder.encode(fields).encode()
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"not strict JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Undecodable("not a JSON object")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _too_deep(fields):
        raise Undecodable(f"nested deeper than {MAX_DEPTH} levels")
    return fields


def _too_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list, tuple))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list, tuple))
        ]
        if not level:
            return False
    return True


def decode(envelope: Envelope, *, max_bytes: int = MAX_BYTES) -> Job[Any]:
    """Return the job inside *envelope*.

    Raises:
        NewerVersion: The body's version is above `VERSION`.
        Undecodable: The body is not a job, or is one of another id than the envelope's.
    """
    fields = parse(envelope.body, max_bytes=max_bytes)
    version = fields.pop("v", None)
    if type(version) is not int or version < 1:
        raise Undecodable(f"field 'v' is {_short(version)}, not a version")
    if version > VERSION:
        raise NewerVersion(f"envelope version {version}; this Goose reads up to {VERSION}")
    take = fields.pop
    try:
        identity = take("id")
        fn = take("fn")
        args = take("args")
        kwargs = take("kwargs")
        queue = take("queue")
        enqueued_at = take("enqueued_at")
    except KeyError as missing:
        raise Undecodable(f"field {missing} is missing") from None
    if identity != envelope.id or type(identity) is not str:
        raise Undecodable(f"field 'id' is {_short(identity)}, not the envelope's {envelope.id!r}")
    if type(fn) is not str or ":" not in fn:
        raise Undecodable(f"field 'fn' is {_short(fn)}, not module:name")
    if type(args) is not list:
        raise Undecodable(f"field 'args' is {_short(args)}, not an array")
    if type(kwargs) is not dict:
        raise Undecodable(f"field 'kwargs' is {_short(kwargs)}, not an object")
    if type(queue) is not str or not queue:
        raise Undecodable(f"field 'queue' is {_short(queue)}, not a name")
    if type(enqueued_at) not in _NUMBER:
        raise Undecodable(f"field 'enqueued_at' is {_short(enqueued_at)}, not a number")
    if not fields:
        return Job(identity, fn, tuple(args), kwargs, queue, None, enqueued_at)
    return Job(
        identity,
        fn,
        tuple(args),
        kwargs,
        queue,
        _optional(fields, "group", (str,), None),
        enqueued_at,
        _count(fields, "attempt"),
        _count(fields, "crashes"),
        _count(fields, "suspicions"),
        _optional(fields, "retry", (dict,), None),
        _timeout(fields),
        _failure(fields),
        _optional(fields, "meta", (dict,), _NOTHING),
        _optional(fields, "deferred_since", _NUMBER, None),
        fields,
    )


_NUMBER = (float, int)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _optional(fields: dict[str, Any], name: str, types: tuple[type, ...], default: Any) -> Any:
    value = fields.pop(name, default)
    if value is not default and type(value) not in types:
        wanted = " or ".join(kind.__name__ for kind in types)
        raise Undecodable(f"field {name!r} is {_short(value)}, not {wanted}")
    return value


def _count(fields: dict[str, Any], name: str) -> int:
    value = _optional(fields, name, (int,), 0)
    if not 0 <= value < 1 << 31:
        raise Undecodable(f"field {name!r} is {_short(value)}, out of range")
    return cast("int", value)


def _timeout(fields: dict[str, Any]) -> float | None:
    value = _optional(fields, "timeout", _NUMBER, None)
    if value is not None and not 0 < value < math.inf:
        raise Undecodable(f"field 'timeout' is {_short(value)}, not above 0")
    return cast("float | None", value)


def _failure(fields: dict[str, Any]) -> Failure | None:
    found = _optional(fields, "failure", (dict,), None)
    if found is None:
        return None
    try:
        failure = Failure(**found)
    except TypeError as error:
        raise Undecodable(f"field 'failure': {error}") from None
    texts = (failure.type, failure.message, failure.traceback, failure.reason)
    instants = (failure.first_at, failure.last_at)
    if not (
        all(type(text) is str for text in texts)
        and all(type(at) in _NUMBER for at in instants)
        and (failure.died_at is None or type(failure.died_at) in _NUMBER)
    ):
        raise Undecodable("field 'failure' has a value of a wrong type")
    return failure
