"""Who holds a key: one value in the store, changed by swaps. No input or output here.

A record goes through few states::

    (none) ──claim──▶ claimed by A ──A is stored──▶ held by A ──A ends──▶ (none)
                           │
                           └─ not stored for CLAIM seconds ─▶ claimed by B, A superseded

*Claimed* is the time between the client's claim and the broker's confirmation. Whoever asks in
it waits, since the answer must be true: neither is A certain to exist, nor is the key free. A
client that died there loses the claim after `CLAIM` seconds, by the store's clock. Should A be
stored all the same, later, it finds that it is superseded, and is skipped instead of run.

What can break it, and what holds:

* The worker that ends A dies between the release and the broker's settle: A is lent again, finds the
  key free and takes it again, or finds it taken and waits until it is free.
* The end of A is told twice, or late: a release names its holder, so it never frees another's.
* The enqueue of A is repeated by a client that was unsure, and A has begun, or another call came after
  it where the last one wins: it is the same call and keeps its place, so it claims nothing. Were it to
  claim, it would take the key from the call after it, whose job would be skipped in favour of one that
  had begun before. Who has begun is known until its end, and `AFTER` seconds longer: an enqueue that comes
  between the end and the broker's settle finds the job stored, and stores nothing.
* A is removed by tools that tell nobody: whoever claims next sees on the broker that it is not
  there, where the broker shows that; else the record goes by its time, `BACKSTOP`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from goose._json import JSON
from goose.jobs import MAX_BYTES, Envelope, Job, decode, encode

NAME = "unique"
"""The trait's key."""
PREFIX = "unique:"
"""What the keys of all records begin with; a digest of function and key follows."""
CLAIM = 10.0
"""Seconds by the store's clock for which a claim holds whose job is not confirmed."""
BACKSTOP = 30 * 86400.0
"""Seconds after which a record goes by itself, counted from when its job is due."""
AFTER = 600.0
"""Seconds for which it is known that a job had begun, from its end on, if nothing else is known."""
MAX_KEPT = 1 << 18
"""Bytes of a job that are kept in a record, to be the answer of those who come second."""
MAX_SUPERSEDED = 1_000
"""Jobs that are remembered of those that another came after; the newest are. One of more calls in a single
pause that no worker has seen meanwhile may run, too; remembering costs 39 bytes each."""
MAX_PAST = 100
"""Likewise of those of pauses that are over: a key in steady use is not to carry all its past."""
MAX_BEGUN = 50
"""Likewise of those that have begun, while the key is never left alone."""


@dataclass(frozen=True, slots=True)
class Trait:
    """What a job bears: its key, and how long it holds it."""

    digest: str
    """Of function and key."""
    shown: str
    """The key as people read it, at most 100 characters."""
    until: str
    """``started``, ``done`` or ``time``."""
    seconds: float = 0.0
    """How long it is held, from the enqueue, where it is held for a time."""
    quiet: float = 0.0
    """Seconds without another call before it may run; above 0 the last call wins."""

    @property
    def key(self) -> str:
        """Where the store has the record."""
        return PREFIX + self.digest

    def to_wire(self) -> dict[str, JSON]:
        """Return it as `Job.traits` keeps it."""
        fields: dict[str, JSON] = {"key": self.digest, "shown": self.shown, "until": self.until}
        if self.until == "time":
            fields["seconds"] = self.seconds
        if self.quiet:
            fields["quiet"] = self.quiet
        return fields


def trait_of(job: Job[Any]) -> Trait:
    """Return the trait that *job* bears.

    Raises:
        ValueError: It makes no sense.
    """
    fields = job.traits[NAME]
    try:
        assert isinstance(fields, Mapping)
        return Trait(
            str(fields["key"]),
            str(fields.get("shown", "")),
            str(fields["until"]),
            float(fields.get("seconds", 0.0)),  # type: ignore[arg-type]
            float(fields.get("quiet", 0.0)),  # type: ignore[arg-type]
        )
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the trait {NAME!r} of job {job.id} makes no sense: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Record:
    """Who holds a key."""

    id: str
    """The job that claimed or holds it; empty where nobody does, and some are still superseded."""
    at: float
    """Since when, in epoch seconds by the store's clock."""
    stored: bool = False
    """Whether the broker has confirmed that job."""
    before: str = ""
    """The confirmed job that it came instead of, where the last call wins."""
    superseded: tuple[str, ...] = ()
    """Jobs whose claim went to another, and which are not to run."""
    begun: tuple[str, ...] = ()
    """Jobs that gave the key back when they were about to start; some may have ended since."""
    fn: str = ""
    shown: str = ""
    body: bytes = b""
    """The job as it was sent; empty if it is too large to be kept."""

    def confirmed(self) -> Record:
        """Return it with its job stored."""
        return replace(self, stored=True, before="")

    def superseded_by(self, job: Job[Any], trait: Trait, now: float) -> Record:
        """Return the record of *job*, which claims the key in the place of this one's."""
        before = self.before
        if trait.quiet and self.stored:
            # Only a newer one that is stored can stand for it.
            before = self.id
        return replace(
            record_of(job, trait, now),
            before=before,
            superseded=self.without(job.id, self.id),
            begun=self.begun,
        )

    def without(self, pardoned: str, gone: str) -> tuple[str, ...]:
        """Return the superseded jobs, but for the one that is *pardoned*, and with the one *gone*."""
        kept = [id_ for id_ in (*self.superseded, gone) if id_ and id_ != pardoned]
        return tuple(kept[-MAX_SUPERSEDED:])

    def follows(self, job_id: str) -> bool:
        """Say whether that superseded job came after the one that is known to be stored."""
        before = self.superseded.index(self.before) if self.before in self.superseded else -1
        return job_id in self.superseded[before + 1 :]

    def keeps_its_place(self, job_id: str, trait: Trait) -> bool:
        """Say whether that job had claimed the key before, and is not to claim it again.

        It has begun, or a later call came in its place. Where the first call wins, one that lost its
        claim may try again.
        """
        return job_id in self.begun or (trait.quiet > 0 and job_id in self.superseded)

    def left(self, trait: Trait, now: float, begun: str = "") -> Record:
        """Return it held by nobody, with those that are yet to come, and the job that has *begun*."""
        known = (*self.begun, begun) if begun else self.begun
        # Where the first call wins, who lost a claim may run once the key is free.
        late = self.superseded[-MAX_PAST:] if trait.quiet else ()
        return Record(
            "", now, stored=True, superseded=late, begun=known[-MAX_BEGUN:], shown=self.shown
        )

    def is_left_by(self, job_id: str) -> bool:
        """Say whether nothing is known of the key but that this job has begun."""
        return not self.id and not self.superseded and self.begun == (job_id,)

    def job(self) -> Job[Any]:
        """Return the job that holds it, as it was sent, or as much as is known of it."""
        if self.body:
            return decode(Envelope(self.id, "default", self.body), max_bytes=MAX_BYTES)
        return Job(self.id, self.fn)


def record_of(job: Job[Any], trait: Trait, now: float) -> Record:
    """Return the record of *job*, which claims its key."""
    body = encode(job)
    kept = body if len(body) <= MAX_KEPT else b""
    return Record(job.id, now, fn=job.fn, shown=trait.shown, body=kept)


def holder_trait(record: Record, digest: str) -> Trait:
    """Return the trait of the job that holds the key of that digest, as far as it is known."""
    job = record.job()
    return trait_of(job) if NAME in job.traits else Trait(digest, record.shown, "done")


def dump(record: Record) -> bytes:
    """Return *record* as the store keeps it."""
    fields: dict[str, Any] = {"v": 1, "id": record.id, "at": record.at}
    if record.stored:
        fields["stored"] = True
    if record.before:
        fields["before"] = record.before
    if record.superseded:
        fields["superseded"] = list(record.superseded)
    if record.begun:
        fields["begun"] = list(record.begun)
    fields |= {"fn": record.fn, "shown": record.shown}
    # One line, then the job as it is: there is no reason to encode it once more.
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n" + record.body


def parse(value: bytes) -> Record:
    """Return the record in *value*.

    Raises:
        ValueError: There is none.
    """
    head, _, body = value.partition(b"\n")
    try:
        fields = json.loads(head)
        return Record(
            str(fields["id"]),
            float(fields["at"]),
            bool(fields.get("stored", False)),
            str(fields.get("before", "")),
            tuple(fields.get("superseded", ())),
            tuple(fields.get("begun", ())),
            str(fields.get("fn", "")),
            str(fields.get("shown", "")),
            body,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no record of a key: {error!r}") from error


def ttl_of(trait: Trait, *, delay: float = 0.0, elapsed: float = 0.0) -> float:
    """Return the seconds for which the store is to keep a record.

    Args:
        trait: Of the job that holds the key.
        delay: Seconds until that is due.
        elapsed: Seconds since it claimed the key.
    """
    if trait.until == "time":
        return max(trait.seconds - elapsed, 0.001)
    return BACKSTOP + delay


def shadow_of(trait: Trait) -> float:
    """Return the seconds for which it is known who was superseded or has begun, where nobody holds the key."""
    return 86_400.0 + 2 * trait.quiet
