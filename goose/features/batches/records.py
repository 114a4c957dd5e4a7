"""One batch as the store has it, and its keys. Frozen; no input or output.

===================== =======================================================================
key                   value
===================== =======================================================================
batch:{ID}            the `Record`
batch.members:{ID}:N  shard N, see `goose.features.batches.members`
batch.added:{ID}      counter: numbers given to members that were added from elsewhere
batch.on:{ID}:EVENT   the callback, a job without an id
batch.name:{NAME}     the id of the batch that has this name
===================== =======================================================================

A record goes one way: open → sealed → ending → ended. *Sealed* is a batch whose first client has
put all its members in; only then can it end. *Ending* says that all members have ended, how, which
callbacks are due, and who is about to enqueue them; `CLAIM` seconds later that is anybody's.
*Ended* is an ending whose callbacks are enqueued, kept for its linger. A dead member that is
replayed and succeeds can bring an ended batch back to ending, with another status, and one more
callback. *Deleted* is what is left of one while its keys are removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from goose.errors import ConfigError
from goose.features.batches.members import (
    CANCELLED,
    DEAD,
    DELETED,
    DONE,
    RETRYING,
    SHARD,
    SKIPPED,
    WAITING,
)
from goose.jobs import JSON

Status: TypeAlias = Literal["success", "partial", "dead"]
Phase: TypeAlias = Literal["open", "sealed", "ending", "ended", "deleted"]
Event: TypeAlias = Literal["success", "complete"]
EVENTS: tuple[Event, ...] = ("complete", "success")

VERSION = 1
PREFIX = "batch:"
"""What the keys of all records begin with."""
LINGER = 7 * 86_400.0
"""Seconds for which an ended batch is kept if nobody says otherwise."""
CLAIM = 20.0
"""Seconds by the store's clock after which an ending that nobody finished is anybody's."""
ADDED = 1 << 40
"""The first number of those who were added from elsewhere than the first client."""
NAME = "batch"
"""The key in `Job.traits` of a member."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is, at one moment."""

    total: int = 0
    """Members that are known."""
    waiting: int = 0
    """Members that have not ended, and whose last run, if any, did not fail."""
    retrying: int = 0
    """Members whose last run failed, and which run again."""
    done: int = 0
    skipped: int = 0
    dead: int = 0
    cancelled: int = 0
    deleted: int = 0
    is_open: bool = True
    """Whether members can still be put in from outside, so that it cannot end."""

    @property
    def remaining(self) -> int:
        """Members that have not ended."""
        return self.waiting + self.retrying

    @property
    def ended(self) -> int:
        """Members that have."""
        return self.total - self.remaining

    @property
    def status(self) -> Status | None:
        """How it ended; None while it has not.

        ``success``: every member is done or skipped, also if there is none. ``dead``: none is.
        ``partial``: some are.
        """
        if self.is_open or self.remaining:
            return None
        good = self.done + self.skipped
        if good == self.total:
            return "success"
        return "partial" if good else "dead"

    def fields(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        return {**asdict(self), "remaining": self.remaining, "status": self.status}


def progress_of(counts: tuple[int, ...], *, is_open: bool) -> Progress:
    """Return the progress that these numbers of `members.count` are."""
    return Progress(
        total=sum(counts),
        waiting=counts[WAITING],
        retrying=counts[RETRYING],
        done=counts[DONE],
        skipped=counts[SKIPPED],
        dead=counts[DEAD],
        cancelled=counts[CANCELLED],
        deleted=counts[DELETED],
        is_open=is_open,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What there is to know of a batch besides its members. Instants are epoch seconds."""

    id: str
    opened_at: float
    name: str = ""
    linger: float = LINGER
    """Seconds for which it is kept once it has ended."""
    on: tuple[Event, ...] = ()
    """The events that have a callback."""
    shared: bool = False
    """Whether anybody may add members while it is open."""
    phase: Phase = "open"
    total: int = 0
    """Numbers that the first client gave out; right once it is sealed."""
    sealed_at: float | None = None
    cancelled_at: float | None = None
    ended_at: float | None = None
    """When its last member ended for the first time."""
    status: Status | None = None
    """How it was when all members had ended."""
    due: tuple[Event, ...] = ()
    """The events whose callback is to be enqueued."""
    claimed_at: float = 0.0
    """Since when that is somebody's, while it is ending."""
    by: str = ""
    """Whose it is."""
    called: tuple[Event, ...] = ()
    """The events whose callback is enqueued."""
    extra: Mapping[str, JSON] = field(default_factory=dict)
    """What a later version wrote, kept as it came."""

    @property
    def key(self) -> str:
        """Where the store has it."""
        return key_of(self.id)

    @property
    def is_sealed(self) -> bool:
        """Whether it can end."""
        return self.phase != "open"

    @property
    def label(self) -> str:
        """What people call it."""
        return self.name or self.id

    def sealed(self, total: int, now: float) -> Record:
        """Return it once its first client has put *total* members in."""
        if self.is_sealed:
            return self
        return replace(self, phase="sealed", total=total, sealed_at=now)

    def concluded(self, status: Status, now: float, by: str) -> Record:
        """Return it once all members have ended and are of that *status*, to be finished by *by*."""
        due = tuple(
            event
            for event in EVENTS
            if event in self.on and event not in self.called
            if event == "complete" or status == "success"
        )
        if self.status == status and set(due) <= set(self.due):
            return self
        ended_at = now if self.ended_at is None else self.ended_at
        ending = replace(self, phase="ending", status=status, ended_at=ended_at, due=due)
        return replace(ending, claimed_at=now, by=by)

    def claimed(self, now: float, by: str) -> Record:
        """Return it with its ending claimed by *by*, unless that is another's, or there is none."""
        if self.phase != "ending" or (self.by != by and now < self.claimed_at + CLAIM):
            return self
        return replace(self, claimed_at=now, by=by)

    def ended(self) -> Record:
        """Return it once the callbacks that are due are enqueued."""
        called = self.called + self.due
        return replace(self, phase="ended", due=(), called=called, claimed_at=0.0, by="")

    def shards(self, added: int) -> list[str]:
        """Return the keys of all its shards in the order of their members' numbers.

        Args:
            added: Numbers given to members from elsewhere.
        """
        return [
            shard_key(self.id, number)
            for first, count in ((0, self.total), (ADDED // SHARD, added))
            for number in range(first, first + -(-count // SHARD))
        ]


# --- keys --------------------------------------------------------------------------------


def key_of(id_: str) -> str:
    """Return where the record of a batch is."""
    return f"{PREFIX}{{{id_}}}"


def shards_of(id_: str) -> str:
    """Return what the keys of a batch's shards begin with."""
    return f"batch.members:{{{id_}}}:"


def shard_key(id_: str, number: int) -> str:
    """Return where the shard of that number is; their order is that of the numbers."""
    return f"{shards_of(id_)}{number:010x}"


def added_key(id_: str) -> str:
    """Return where the numbers are counted that members from elsewhere got."""
    return f"batch.added:{{{id_}}}"


def callback_key(id_: str, event: str) -> str:
    """Return where the callback for *event* is."""
    return f"batch.on:{{{id_}}}:{event}"


def name_key(name: str) -> str:
    """Return where the id of the batch of that name is."""
    return f"batch.name:{{{name}}}"


def check_name(name: str) -> str:
    """Return *name*, or raise `ConfigError` if it cannot name a batch."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r:.80} cannot name a batch: use 1 to 100 of the characters A-Z a-z 0-9 _ . : -, "
            "the first a letter, digit or underscore"
        )
    return name


# --- stored ------------------------------------------------------------------------------


def dump(record: Record) -> bytes:
    """Return *record* as it is stored; fields at their default are not written."""
    fields: dict[str, Any] = {**record.extra, "v": VERSION}
    for name, spec in Record.__dataclass_fields__.items():
        value = getattr(record, name)
        if name != "extra" and value != spec.default:
            fields[name] = value
    return json.dumps(fields, separators=(",", ":")).encode()


def parse(value: bytes) -> Record:
    """Return the record in *value*.

    Raises:
        ConfigError: A later version of Goose wrote it, or something else.
    """
    try:
        fields = json.loads(value)
        version = fields.pop("v")
        if version != VERSION:
            raise ConfigError(f"a batch is of version {version}; this Goose reads {VERSION}")
        known = {name: fields.pop(name) for name in Record.__dataclass_fields__ if name in fields}
        for name in ("on", "due", "called"):
            known[name] = tuple(known.get(name, ()))
        return Record(**known, extra=fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{value[:80]!r} is no batch: {error}") from error
