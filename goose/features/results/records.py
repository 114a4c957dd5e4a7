"""What is kept of a job's end: one value under ``result:{ID}``, JSON like a job's body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from goose._json import JSON, dump, parse
from goose.errors import StoreError, Undecodable
from goose.jobs import Failure
from goose.stores.base import MAX_VALUE, part

KEPT = 366 * 86_400.0
"""Seconds for which a result is kept while another job depends on it."""
Final = Literal["done", "skipped", "dead", "cancelled", "deleted"]
_ENDINGS = ("done", "skipped", "dead", "cancelled", "deleted")


@dataclass(frozen=True, slots=True)
class Record:
    """How a job ended."""

    ending: Final
    ended_at: float
    """Epoch seconds by the store's clock."""
    value: JSON = None
    """What it returned, if it is done, as JSON."""
    lost: str = ""
    """Why what it returned could not be kept; empty if it was."""
    failure: Mapping[str, str] | None = None
    """``type``, ``message`` and ``traceback`` of the error it died of."""
    reason: str = ""
    ttl: float = 0.0
    """Seconds for which it is kept once nobody depends on its job; 0 where an earlier Goose wrote it."""

    @property
    def failed(self) -> bool:
        """Whether nothing was returned, for good or until somebody replays the job."""
        return self.ending in ("dead", "cancelled", "deleted")


def key_of(job_id: str) -> str:
    """Return where the end of that job is kept."""
    return f"result:{{{part(job_id)}}}"


def failure_fields(failure: Failure | None) -> dict[str, str] | None:
    """Return what a record keeps of *failure*."""
    if failure is None:
        return None
    return {
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
    }


def write(record: Record) -> bytes:
    """Return *record* as it is stored; a value that is too large for the store is left out."""
    fields: dict[str, Any] = {"v": 1, "ending": record.ending, "ended_at": record.ended_at}
    if record.value is not None:
        fields["value"] = record.value
    for name in ("lost", "failure", "reason", "ttl"):
        if getattr(record, name):
            fields[name] = getattr(record, name)
    body = dump(fields)
    if len(body) > MAX_VALUE:
        del fields["value"]
        fields["lost"] = f"it takes {len(body):,} bytes, over the limit of {MAX_VALUE:,}"
        body = dump(fields)
    return body


def read(body: bytes) -> Record:
    """Return the record in *body*.

    Raises:
        StoreError: It is none, or one of a later Goose.
    """
    try:
        fields = parse(body, max_bytes=MAX_VALUE)
    except Undecodable as error:
        raise StoreError(f"a kept result cannot be read: {error}") from error
    ending: Any = fields.get("ending")
    if fields.get("v") != 1 or ending not in _ENDINGS:
        raise StoreError("a kept result is of a later Goose")
    failure = fields.get("failure")
    return Record(
        ending,
        float(fields.get("ended_at", 0.0)),
        fields.get("value"),
        str(fields.get("lost", "")),
        failure if isinstance(failure, dict) else None,
        str(fields.get("reason", "")),
        float(fields.get("ttl", 0.0)),
    )
