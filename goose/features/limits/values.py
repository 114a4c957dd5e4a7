"""What a limit is, and what a job bears of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from goose._json import JSON
from goose.calls import Call, shown
from goose.errors import CallError, ConfigError
from goose.features.asking import Prepare, told
from goose.jobs import Job
from goose.options import Options
from goose.values import seconds

Number = TypeVar("Number", int, float)

NAME = "limit"
"""The trait's key."""
MAX_NAME = 150
"""Characters of a limit's name, and of a key, at most."""
MOST = 2_000
"""The highest concurrency: so many leases fit in one value with a doubt each, by ids of 200 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many jobs may start in a time, and run at once; over all workers.

    Raises:
        ConfigError: A value cannot be meant, or it limits nothing.
    """

    rate: float | None = None
    """Starts in `per` seconds, evenly spread; None is any number."""
    per: float | timedelta = 1.0
    """Seconds (or `timedelta`)."""
    concurrency: int | None = None
    """Jobs that run at once, up to 2,000; None is any number."""
    by: str | Callable[..., str | None] = "function"
    """What is counted together: the jobs of a ``function``, of a ``queue``, or those for which a
    function of their arguments returns the same text (None: not limited)."""
    name: str | None = None
    """What orders call it; several functions that name one share it, and of several that one job
    has the strictest holds. ``function:…`` or ``queue:…`` with the name of that if left out."""

    def __post_init__(self) -> None:
        if self.rate is None and self.concurrency is None:
            raise ConfigError("Limit() limits nothing; give rate=, concurrency= or both")
        if not (self.by in ("function", "queue") or callable(self.by)):
            raise ConfigError(
                f"by = {self.by!r:.80}: give 'function', 'queue' or a function of the arguments"
            )
        if self.name is not None:
            _check_text("name", self.name)
        object.__setattr__(self, "per", _check_pace(self.rate, self.per))
        _check_concurrency(self.concurrency)

    def trait(self, job: Job[Any], call: Call[Any]) -> dict[str, JSON] | None:
        """Return what *job* bears of it; None if it is not limited.

        Raises:
            CallError: `by` raised, or returned something else than a text or None.
        """
        base = f"queue:{job.queue}" if self.by == "queue" else f"function:{job.fn}"
        fields: dict[str, JSON] = {"name": (self.name or base)[-MAX_NAME:]}
        if callable(self.by):
            key = told(self.by, f"by of limit {fields['name']}", job, call)
            if key is None:
                return None
            if not isinstance(key, str):
                raise CallError(
                    f"by of limit {fields['name']} of {job.fn}: {shown(self.by)} returned {key!r:.80}: "
                    "return a text, or None"
                )
            fields["key"] = (
                key if len(key) <= MAX_NAME else hashlib.sha256(key.encode()).hexdigest()
            )
        if self.rate is not None:
            fields["rate"], fields["per"] = self.rate, self.per  # type: ignore[assignment]
        if self.concurrency is not None:
            fields["concurrency"] = self.concurrency
        return fields


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for one name and key at the moment."""

    name: str
    key: str | None
    rate: float | None
    """Starts a second."""
    concurrency: int | None

    @property
    def place(self) -> str:
        """What all of its keys in the store begin with: a group of its own."""
        text = f"{self.name}\n{self.key or ''}\n{self.key is None}"
        return f"limit:{{{hashlib.sha256(text.encode()).hexdigest()[:32]}}}:"


def prepare(chosen: Options) -> Prepare | None:
    """Return what gives a new job its limits; None if there are none."""
    limits = chosen.limit
    if not limits:
        return None
    given: Sequence[Any] = limits if isinstance(limits, (list, tuple)) else [limits]
    each: Sequence[Limit] = [*given]
    for limit in each:
        if not isinstance(limit, Limit):
            raise ConfigError(f"limit = {limit!r:.80} is no goose.Limit")

    def bear(job: Job[Any], call: Call[Any]) -> Job[Any]:
        borne = [fields for limit in each if (fields := limit.trait(job, call)) is not None]
        return job.evolve(traits={**job.traits, NAME: borne}) if borne else job

    return bear


def bounds_of(job: Job[Any], ordered: Mapping[str, Mapping[str, Any]]) -> Sequence[Bounds]:
    """Return what limits *job*, orders over its own; of several with one name and key the strictest.

    They would have one line of instants and one value of leases. Since rates are evenly spread,
    the slowest of several is all of them together.

    Raises:
        ValueError: Its trait makes no sense.
    """
    borne = job.traits[NAME]
    found: dict[tuple[str, str | None], Bounds] = {}
    try:
        assert isinstance(borne, Sequence)
        for fields in borne:
            assert isinstance(fields, Mapping)
            name, key = str(fields["name"]), fields.get("key")
            assert key is None or isinstance(key, str)
            values: dict[str, Any] = {
                **fields,
                **ordered.get(name, {}),
                **ordered.get(f"{name}/{key}", {}),
            }
            rate, concurrency = values.get("rate"), values.get("concurrency")
            pace = None if rate is None else float(rate) / float(values.get("per", 1.0))
            assert pace is None or pace > 0
            most = None if concurrency is None else min(int(concurrency), MOST)
            other = found.get((name, key), Bounds(name, key, None, None))
            pace, most = _least(pace, other.rate), _least(most, other.concurrency)
            found[name, key] = Bounds(name, key, pace, most)
    except (AssertionError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"the trait {NAME!r} of job {job.id} makes no sense: {error!r}") from error
    return list(found.values())


def _least(one: Number | None, other: Number | None) -> Number | None:
    """Return the smaller of two numbers; None is no number."""
    return min((each for each in (one, other) if each is not None), default=None)


def checked(rate: float | None, per: float | timedelta, concurrency: int | None) -> dict[str, JSON]:
    """Return what an order sets for a limit.

    Raises:
        ConfigError: A value cannot be meant, or nothing was given.
    """
    if rate is None and concurrency is None:
        raise ConfigError("nothing is set: give rate or concurrency")
    fields: dict[str, JSON] = {}
    if rate is not None:
        fields |= {"rate": rate, "per": _check_pace(rate, per)}
    if concurrency is not None:
        fields["concurrency"] = _check_concurrency(concurrency)
    return fields


def _check_pace(rate: object, per: float | timedelta) -> float:
    if rate is not None and (
        isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1e6
    ):
        raise ConfigError(f"rate = {rate!r:.80}: give a number above 0, at most 1,000,000")
    try:
        span = seconds(per, "per")
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None
    if not 0 < span <= 31 * 86400.0:
        raise ConfigError(f"per = {per!r:.80}: give seconds, at most 31 days")
    return span


def _check_concurrency(concurrency: object) -> int | None:
    if concurrency is None:
        return None
    if (
        isinstance(concurrency, bool)
        or not isinstance(concurrency, int)
        or not (1 <= concurrency <= MOST)
    ):
        raise ConfigError(f"concurrency = {concurrency!r:.80}: give a number from 1 to {MOST:,}")
    return concurrency


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str) or not 0 < len(text) <= MAX_NAME or not text.isprintable():
        raise ConfigError(f"{what} = {text!r:.80} is not 1 to {MAX_NAME} printable characters")
