"""One cron entry: what is to be made when, and how far it has come. Frozen; no input or output.

The whole entry is one value in the store, so that every change of it is one swap. What a worker
does with it goes through two swaps and an enqueue between them::

    next 12:00            → claim  →  next 13:00, pending 12:00   → enqueue →  next 13:00
                                                                    12:00

The first swap is won by one worker, and stores the next instant together with the debt of this
one: a worker that dies before it has changed nothing, one that dies after it leaves a pending
instant, which another takes over `CLAIM` seconds later. The job's id is made of the entry's
name and the instant, so whoever enqueues it, and however often, it is the same job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, cast, get_args

from goose.errors import ConfigError
from goose.features.crons.expressions import Schedule
from goose.jobs import JSON, Job, new_id

CatchUp = Literal["skip", "one", "all"]
"""What becomes of instants that passed while no worker ran."""

VERSION = 1
PREFIX = "cron:"
"""What the keys of all entries begin with."""
CLAIM = 20.0
"""Seconds by the store's clock after which a pending instant is anybody's."""
LATE = 60.0
"""Seconds for which an instant still counts as met, so that ``skip`` does not skip it."""
BATCH = 100
"""Instants claimed in one swap at most."""
MANY = 1000
"""Instants that are counted if they were passed over, at most."""
FAR = 31 * 86400.0
"""Seconds; ``all`` makes up for no more than what passed within them."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:\-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pending:
    """An instant that is claimed, and whose job may not be enqueued yet."""

    due_at: float
    claimed_at: float
    by: str
    """Whose claim it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A named expression and the job it makes. Instants inside are epoch seconds."""

    name: str
    expression: str
    timezone: str
    catch_up: CatchUp
    job: Job[Any]
    """What every fire is a copy of, but for its id and times."""
    next_at: float
    """The first instant that nobody has claimed."""
    paused: bool = False
    pending: tuple[Pending, ...] = ()
    last_at: float | None = None
    """The last instant that was claimed."""
    extra: Mapping[str, JSON] = field(default_factory=dict)
    """What a later version wrote, kept as it came."""

    @property
    def key(self) -> str:
        """Where the store has it."""
        return key_of(self.name)

    @property
    def schedule(self) -> Schedule:
        """Its instants.

        Raises:
            ConfigError: This machine does not know its time zone, or has no cronsim.
        """
        return Schedule(self.expression, self.timezone)

    @property
    def next_due(self) -> datetime | None:
        """When it fires next, in its time zone; None while it is paused."""
        if self.paused:
            return None
        return datetime.fromtimestamp(self.next_at, self.schedule.zone)

    def upcoming(self, count: int) -> list[datetime]:
        """Return its next *count* instants in its time zone, paused or not."""
        schedule, instant, found = self.schedule, self.next_at, [self.next_at]
        while len(found) < count:
            instant = schedule.after(instant)
            found.append(instant)
        return [datetime.fromtimestamp(each, schedule.zone) for each in found[:count]]

    # --- changes -------------------------------------------------------------------------

    def over(self, old: Cron) -> Cron:
        """Return this definition in the place of *old*: what was due and not claimed is not lost."""
        when = (self.expression, self.timezone) == (old.expression, old.timezone)
        return replace(
            self,
            next_at=old.next_at if when else self.next_at,
            paused=old.paused,
            pending=old.pending,
            last_at=old.last_at,
            extra=old.extra,
        )

    def is_like(self, other: Cron) -> bool:
        """Whether both are defined the same, however far each has come."""
        return self._definition() == other._definition()

    def _definition(self) -> object:
        job = self.job
        call = (job.fn, job.args, job.kwargs, job.queue, job.group, job.retry, job.timeout)
        return self.expression, self.timezone, self.catch_up, call, job.traits

    def claim(self, now: float, by: str) -> tuple[Cron, list[float]] | None:
        """Return the entry as it is once *by* has claimed what is due, and what that is.

        That is what is due for the first time, by its policy, what others claimed long ago, and
        what *by* claimed and did not bring to its end. None if there is nothing to change.

        Args:
            now: Epoch seconds by the store's clock.
            by: Names the worker.
        """
        taken = [p.due_at for p in self.pending if p.by == by or p.claimed_at <= now - CLAIM]
        next_at = self.next_at
        if not self.paused and next_at <= now:
            new, next_at = self._due(now)
            taken += new
        if not taken and next_at == self.next_at:
            return None
        kept = tuple(p for p in self.pending if p.due_at not in taken)
        claimed = tuple(Pending(due_at, now, by) for due_at in taken)
        last_at = max(taken, default=self.last_at)
        if last_at is not None and self.last_at is not None:
            last_at = max(last_at, self.last_at)
        changed = replace(self, next_at=next_at, pending=kept + claimed, last_at=last_at)
        return changed, taken

    def _due(self, now: float) -> tuple[list[float], float]:
        """Return the instants to fire of those up to *now*, and the next one after them."""
        schedule = self.schedule
        if self.catch_up == "all":
            first = max(self.next_at, now - FAR)
            missed = list(islice(schedule.between(first, now), BATCH))
            if missed:
                return missed, schedule.after(missed[-1])
        first = max(self.next_at, now - LATE) if self.catch_up == "skip" else self.next_at
        latest = schedule.latest(first, now)
        return [] if latest is None else [latest], schedule.after(now)

    def left_out(self, changed: Cron, fired: Sequence[float]) -> int:
        """Return how many instants a claim passed over, at most `MANY`.

        Args:
            changed: The entry after the claim.
            fired: What was claimed.
        """
        if changed.next_at <= self.next_at:
            return 0
        passed = self.schedule.between(self.next_at, changed.next_at - 0.001)
        return sum(instant not in fired for instant in islice(passed, MANY))

    def settled(self, by: str, instants: Sequence[float]) -> Cron:
        """Return the entry once the jobs of *instants*, claimed by *by*, are enqueued."""
        pending = tuple(p for p in self.pending if p.by != by or p.due_at not in instants)
        return replace(self, pending=pending)

    def wants(self, now: float) -> float:
        """Return when something is to be done about it, at *now* or later."""
        wanted = [pending.claimed_at + CLAIM for pending in self.pending]
        if not self.paused:
            wanted.append(self.next_at)
        return max(now, min(wanted)) if wanted else now + FAR

    # --- jobs ----------------------------------------------------------------------------

    def fire(self, due_at: float, now: float) -> Job[Any]:
        """Return the job of the instant *due_at*: the same id whoever makes it."""
        due = datetime.fromtimestamp(due_at, UTC).isoformat().replace("+00:00", "Z")
        meta = {**self.job.meta, "cron": self.name, "cron_due": due}
        return self.job.evolve(id=f"cron:{self.name}:{due}", enqueued_at=now, meta=meta)

    def extra_job(self, now: float) -> Job[Any]:
        """Return a job beyond those of its instants."""
        meta = {**self.job.meta, "cron": self.name}
        return self.job.evolve(id=new_id(), enqueued_at=now, meta=meta)


_SINGLE = {"flow", "batch", "once"}
"""Traits that are about one job."""


def define(
    name: str, expression: str, job: Job[Any], *, timezone: str, catch_up: str, now: float
) -> Cron:
    """Return a new entry.

    Args:
        name: 1 to 100 of the characters A-Z a-z 0-9 _ . : -
        expression: See `Schedule`.
        job: What each fire is a copy of.
        timezone: A name such as ``Europe/Berlin``.
        catch_up: ``skip``, ``one`` or ``all``.
        now: Epoch seconds; its first instant is after that.

    Raises:
        ConfigError: Any of it means nothing, never comes true, or is for single jobs only.
    """
    check_name(name)
    if _SINGLE & job.traits.keys():
        raise ConfigError(
            f"cron entry {name}: its jobs cannot wait for other jobs or be members of a batch; leave out "
            "depends_on=, outputs of jobs and batches, or let its function enqueue what needs them"
        )
    if not isinstance(expression, str):
        raise ConfigError(f"cron expression {expression!r:.80} is not a text")
    schedule = Schedule(expression, timezone)
    return Cron(
        name=name,
        expression=expression,
        timezone=timezone,
        catch_up=check_catch_up(catch_up),
        job=job.evolve(id="", enqueued_at=0.0),
        next_at=schedule.after(now),
    )


def check_name(name: str) -> None:
    """Raise `ConfigError` if *name* cannot name an entry."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r:.80} cannot name a cron entry: use 1 to 100 of the characters "
            "A-Z a-z 0-9 _ . : -, the first a letter, digit or underscore"
        )


def check_catch_up(value: str) -> CatchUp:
    """Return *value*, or raise `ConfigError` if it is no policy."""
    if value not in get_args(CatchUp):
        raise ConfigError(f"catch_up = {value!r:.80}: use 'skip', 'one' or 'all'")
    return cast("CatchUp", value)


def key_of(name: str) -> str:
    """Return where the store has the entry of that name."""
    return f"{PREFIX}{{{name}}}"


# --- stored ------------------------------------------------------------------------------


def dump(cron: Cron) -> bytes:
    """Return *cron* as it is stored."""
    job = cron.job
    fields: dict[str, Any] = {
        **cron.extra,
        "v": VERSION,
        "name": cron.name,
        "expression": cron.expression,
        "timezone": cron.timezone,
        "catch_up": cron.catch_up,
        "fn": job.fn,
        "args": job.args,
        "kwargs": job.kwargs,
        "queue": job.queue,
        "group": job.group,
        "retry": job.retry,
        "timeout": job.timeout,
        "traits": job.traits,
        "next_at": cron.next_at,
        "paused": cron.paused,
        "pending": [[p.due_at, p.claimed_at, p.by] for p in cron.pending],
        "last_at": cron.last_at,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


_OF_JOB = ("kwargs", "queue", "group", "retry", "timeout")


def parse(value: bytes) -> Cron:
    """Return the entry in *value*.

    Raises:
        ConfigError: It is of a later version, or none at all.
    """
    try:
        fields: dict[str, Any] = json.loads(value)
        if fields.pop("v") != VERSION:
            raise ConfigError("a cron entry was written by a later Goose; upgrade goose-jobs here")
        job: Job[Any] = Job(
            id="",
            fn=fields.pop("fn"),
            args=tuple(fields.pop("args")),
            traits=fields.pop("traits", {}),
            **{name: fields.pop(name) for name in _OF_JOB},
        )
        pending = tuple(Pending(*parts) for parts in fields.pop("pending"))
        names = ("name", "expression", "timezone", "catch_up", "next_at", "paused", "last_at")
        known = {name: fields.pop(name) for name in names}
        return Cron(**known, job=job, pending=pending, extra=fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"a stored cron entry cannot be read: {error!r}") from error
