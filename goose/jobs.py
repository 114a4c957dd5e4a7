"""A job, and the bytes it travels as.

A `Job` is one stored call: plain data, frozen, made by a client and read by a worker.
`encode` and `decode` turn it into its versioned JSON body and back; `seal` wraps the
body in the `Envelope` a broker sees. Brokers move bodies and never look inside.

Decoding trusts nobody: size and depth are bounded, NaN, duplicate keys and wrong types
are refused, and every refusal is one error, `Undecodable`, so that a hostile body
costs a worker one dead job. Keys this version does not know are kept in `Job.extra` and
written back, so that an older worker can requeue a newer client's job unharmed.

The format is described in docs/wire-format.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from goose import _fields
from goose._ids import new_id, new_ids
from goose._job import NOTHING, Envelope, Failure, Home, Job, R_co, Status, job_of
from goose._json import JSON, MAX_BYTES, MAX_DEPTH, dump, is_too_deep, parse, write
from goose.errors import ConfigError, NewerVersion, PayloadTooLarge, Undecodable

VERSION = 1
"""Version of the envelope this Goose writes."""

_QUEUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,99}", re.ASCII)


def check_queue(name: str) -> str:
    """Return *name*, or raise `ConfigError` if it cannot name a queue."""
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a queue: use 1 to 100 of the characters A-Z a-z 0-9 _ . : -, "
            "the first a letter, digit or underscore"
        )
    return name


# --- out ---------------------------------------------------------------------------------


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
    if job.traits or job.origin or job.deferred_since is not None:
        fields.update(_rarer_fields(job))
    if job.extra:
        fields = {**job.extra, **fields}
    try:
        body = dump(fields)
    except RecursionError:
        raise _too_deep(job) from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"job {job.id} of {job.fn} is not JSON: {error}") from error
    if len(body) > max_bytes:
        raise PayloadTooLarge(
            f"job {job.id} of {job.fn} takes {len(body):,} bytes, over the limit of {max_bytes:,}; "
            "store the data elsewhere and pass a reference, or raise max_bytes"
        )
    if is_too_deep(body, fields):
        raise _too_deep(job)
    return body


def _too_deep(job: Job[Any]) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"job {job.id} of {job.fn} is nested deeper than {MAX_DEPTH} levels, or contains itself; "
        "flatten its arguments"
    )


def _rarer_fields(job: Job[Any]) -> dict[str, JSON]:
    fields: dict[str, JSON] = {}
    if job.traits:
        fields["traits"] = dict(job.traits)
    if job.deferred_since is not None:
        fields["deferred_since"] = job.deferred_since
    if job.origin:
        fields["origin"] = job.origin
    return fields


def _failure_fields(failure: Failure) -> dict[str, JSON]:
    fields: dict[str, JSON] = {
        **failure.extra,
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


class Frame:
    """The bodies of jobs that differ in id, arguments and time alone, with gaps for those.

    Made of what `encode` writes, and so the same to the byte; but what such jobs share is written
    as JSON once, not for each, which saves half of the writing. Thread-safe.

    Args:
        like: One of the jobs, without ``extra``; their ids are those of `new_id`.
    """

    __slots__ = ("_after_args", "_after_id", "_after_kwargs", "_before_id", "_end", "_time")

    def __init__(self, like: Job[Any]) -> None:
        text = encode(like.evolve(id="", args=(), kwargs={}, enqueued_at=0.0)).decode()
        # No other field before these can hold a quote: they follow a version, a function, a queue.
        self._before_id, text = text.split('""', 1)
        self._after_id, text = text.split("[]", 1)
        self._after_args, text = text.split("{}", 1)
        self._after_kwargs, self._end = text.split('_at":0.0', 1)
        self._after_kwargs += '_at":'
        self._time = 0.0, "0.0"

    def seal(self, job: Job[Any], max_bytes: int) -> Envelope:
        """Return what ``seal(job, max_bytes=max_bytes)`` would.

        Raises:
            PayloadTooLarge: As `encode`.
        """
        time, written = self._time
        if job.enqueued_at != time:
            time, written = self._time = job.enqueued_at, repr(job.enqueued_at)
        try:
            args = write(job.args) if job.args else "[]"
            kwargs = write(job.kwargs) if job.kwargs else "{}"
            body = (
                f'{self._before_id}"{job.id}"{self._after_id}{args}{self._after_args}{kwargs}'
                f"{self._after_kwargs}{written}{self._end}"
            ).encode()
        except (TypeError, ValueError, RecursionError):
            return seal(job, max_bytes=max_bytes)  # which tells what is wrong
        if len(body) > max_bytes or body.count(b"[") + body.count(b"{") > MAX_DEPTH:
            return seal(job, max_bytes=max_bytes)
        # What the generated `__new__` does, in half the time.
        return tuple.__new__(Envelope, (job.id, job.queue, body, None, None, job.group))


# --- in ----------------------------------------------------------------------------------


def decode(envelope: Envelope, *, max_bytes: int = MAX_BYTES) -> Job[Any]:
    """Return the job inside *envelope*.

    Raises:
        NewerVersion: The body's version is above `VERSION`.
        Undecodable: The body is not a job, or is one of another id than the envelope's.
    """
    fields = parse(envelope.body, max_bytes=max_bytes)
    version = fields.pop("v", None)
    if type(version) is not int or version < 1:
        raise Undecodable(f"field 'v' is {_fields.short(version)}, not a version")
    if version > VERSION:
        raise NewerVersion(
            f"envelope version {_fields.short(version)}; this Goose reads up to {VERSION}"
        )
    try:
        args, kwargs = fields["args"], fields["kwargs"]
        identity, fn, queue = fields["id"], fields["fn"], fields["queue"]
        enqueued_at = fields["enqueued_at"]
    except KeyError as missing:
        raise Undecodable(f"field {missing} is missing") from None
    if identity != envelope.id:
        raise Undecodable(
            f"field 'id' is {_fields.short(identity)}, not the envelope's {envelope.id!r}"
        )
    if type(fn) is not str or ":" not in fn:
        raise _fields.wrong("fn", fn, "module:name")
    if type(args) is not list:
        raise _fields.wrong("args", args, "an array")
    if type(kwargs) is not dict:
        raise _fields.wrong("kwargs", kwargs, "an object")
    # The envelope's queue is one that somebody takes jobs from, so it needs no look.
    if queue != envelope.queue and not (type(queue) is str and _QUEUE.fullmatch(queue)):
        raise _fields.wrong("queue", queue, "a queue's name")
    found = {
        "id": identity,
        "fn": fn,
        "args": tuple(args),
        "kwargs": kwargs,
        "queue": queue,
        "enqueued_at": _fields.instant("enqueued_at", enqueued_at),
    }
    if len(fields) > len(_REQUIRED):
        found.update(_optional(fields))
    return job_of(found)


_REQUIRED = ("id", "fn", "args", "kwargs", "queue", "enqueued_at")
"""Fields every body has, besides its version."""


def _failure(name: str, value: object) -> Failure:
    fields = _fields.mapping(name, value)
    found: dict[str, Any] = {}
    for key, check in _FAILURE.items():
        inner = fields.pop(key, None)
        if inner is not None:
            found[key] = check(f"{name}.{key}", inner)
        elif key in _FAILURE_REQUIRED:
            raise Undecodable(f"field '{name}.{key}' is missing")
    return Failure(**found, extra=fields)


_FAILURE: dict[str, Callable[[str, object], object]] = {
    "type": _fields.text,
    "message": _fields.text,
    "first_at": _fields.instant,
    "last_at": _fields.instant,
    "traceback": _fields.text,
    "died_at": _fields.instant,
    "reason": _fields.text,
}
_FAILURE_REQUIRED = ("type", "message", "first_at", "last_at")

_OPTIONAL: dict[str, Callable[[str, object], object]] = {
    "group": _fields.text,
    "attempt": _fields.count,
    "crashes": _fields.count,
    "suspicions": _fields.count,
    "retry": _fields.mapping,
    "timeout": _fields.duration,
    "failure": _failure,
    "meta": _fields.mapping,
    "traits": _fields.mapping,
    "deferred_since": _fields.instant,
    "origin": _fields.text,
}


def _optional(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields beyond the required ones, checked, the unknown ones under ``extra``.

    Null means absent.
    """
    found: dict[str, Any] = {}
    for name in _REQUIRED:
        del fields[name]
    for name, check in _OPTIONAL.items():
        value = fields.pop(name, None)
        if value is not None:
            found[name] = check(name, value)
    found["extra"] = fields
    return found


__all__ = [
    "JSON",
    "MAX_BYTES",
    "MAX_DEPTH",
    "NOTHING",
    "VERSION",
    "Envelope",
    "Failure",
    "Frame",
    "Home",
    "Job",
    "R_co",
    "Status",
    "check_queue",
    "decode",
    "dump",
    "encode",
    "job_of",
    "new_id",
    "new_ids",
    "parse",
    "seal",
]
