"""From a call to a job in its envelope, with the options that win.

A `Sealer` finds the *plan* of a function once: its name, and for each option the nearest
place that says something, in this order: bound by ``using``, attached by ``@goose.job``,
given to the `Client`, settings. After that a job costs its arguments, its id and its JSON.
Nothing here talks to a broker.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeAlias

from goose._holes import Hole, encode_with_holes
from goose.calls import Call, encode_arguments, name_of
from goose.errors import ArgumentError, CallError, ConfigError, Stored
from goose.features.asking import Prepare, asked, depending
from goose.jobs import (
    NOTHING,
    Envelope,
    Frame,
    Home,
    Job,
    R_co,
    check_queue,
    job_of,
    new_id,
    new_ids,
    seal,
)
from goose.options import Options, options_of
from goose.plugins import load
from goose.settings import Settings
from goose.values import MAX_SECONDS, seconds

BeforeEnqueue: TypeAlias = Callable[[Job[Any]], Job[Any]]
"""Returns the job as it is to be stored; raises to refuse it."""
Sealed: TypeAlias = tuple[Job[Any], Envelope]
_INSTANT = 0.001
"""Seconds within which jobs of one call bear the same time: writing a new one takes half a microsecond."""


@dataclass(frozen=True, slots=True, eq=False)
class Unsent(Job[R_co], Generic[R_co]):
    """A job whose enqueue was not confirmed, with when it was to be due.

    Found in `EnqueueError.jobs`, for `Client.submit` to ask for the same again.
    """

    delay: float | None = None
    """Seconds, counted from when it is stored."""
    due_at: float | None = None
    """Epoch seconds."""


class Source(Protocol):
    """Where a sealer takes from what is not bound."""

    own: Options
    """What the client itself was given."""
    before_enqueue: Sequence[str | BeforeEnqueue] | None
    """The chain of the client itself; None takes that of the settings."""

    def settings(self) -> Settings:
        """Return the settings as they are now."""
        ...


@dataclass(frozen=True, slots=True)
class _Plan:
    """What all jobs of one function made by one client have in common."""

    common: dict[str, Any]
    """Fields of each job."""
    max_bytes: int
    features: tuple[Prepare, ...]
    """What changes each new job on behalf of a feature that was asked for."""
    chain: tuple[BeforeEnqueue, ...]
    """What changes it after that."""
    frame: Frame | None
    """Of their bodies, if nothing changes them after they were made."""


class Sealer:
    """Makes jobs by one set of options. Thread-safe.

    Args:
        source: Where settings come from, and the options of the client itself.
        bound: Options that win over those of the function.
        home: Where jobs can be asked about later.
        joining: What else changes each new job.
    """

    def __init__(
        self,
        source: Source,
        bound: Options,
        home: Home | None = None,
        joining: tuple[Prepare, ...] = (),
    ) -> None:
        self._home = home
        self._source = source
        self._bound = bound
        self._joining = joining
        self._plans: tuple[Settings | None, dict[Callable[..., Any], _Plan]] = (None, {})
        """The settings they were made by, and the plans."""

    @property
    def group(self) -> str | None:
        """The group that is bound, if one is."""
        return self._bound.group

    def using(self, bound: Options, home: Home) -> Sealer:
        """Return a sealer with *bound* on top of the options bound here, for jobs of *home*."""
        return Sealer(self._source, bound.over(self._bound), home, self._joining)

    def joining(self, prepare: Prepare) -> Sealer:
        """Return a sealer whose jobs *prepare* changes, too."""
        return Sealer(self._source, self._bound, self._home, (*self._joining, prepare))

    def seal(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        delay: float | None = None,
        due_at: float | None = None,
    ) -> Sealed:
        """Return the job of this call and its envelope.

        Args:
            fn: The function.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            delay: Seconds, from `delay_of`.
            due_at: Epoch seconds, from `instant_of`.

        Raises:
            CallError: The function or an argument cannot be stored.
        """
        return self._seal(self._plan(fn), new_id(), time.time(), fn, args, kwargs, delay, due_at)

    def seal_many(
        self, fn: Callable[..., Any], items: Iterable[tuple[Any, ...] | Call[Any]]
    ) -> Iterator[Sealed]:
        """Yield for each item of `Client.enqueue_many` what `seal` returns.

        Raises:
            CallError: The function or an argument cannot be stored, or an item is none.
        """
        plan, at = self._plan(fn), 0.0
        for item, id_ in zip(items, new_ids(), strict=False):
            now = time.time()
            if not 0.0 <= now - at < _INSTANT:
                at = now
            args, kwargs = (item, NOTHING) if type(item) is tuple else _item_arguments(fn, item)
            yield self._seal(plan, id_, at, fn, args, kwargs)

    def _seal(
        self,
        plan: _Plan,
        id_: str,
        at: float,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        delay: float | None = None,
        due_at: float | None = None,
    ) -> Sealed:
        holes: tuple[Hole, ...] = ()
        try:
            values, named = encode_arguments(fn, args, kwargs)
        except ArgumentError:
            values, named, holes = encode_with_holes(fn, args, kwargs)
            if not holes:
                raise
        fields = plan.common.copy()
        fields["id"] = id_
        fields["args"] = values
        if named:
            fields["kwargs"] = named
        fields["enqueued_at"] = at
        if delay or due_at:
            fields["origin"] = "scheduled"
        if self._home is not None:
            fields["_home"] = self._home
        job = job_of(fields)
        if plan.frame is not None and delay is None and due_at is None and not holes:
            return job, plan.frame.seal(job, plan.max_bytes)
        if holes:
            job = depending(job, (), holes)
        for feature in plan.features:
            job = feature(job, Call(fn, args, kwargs))
        if plan.chain:
            return _changed(job, plan, delay, due_at)
        return job, seal(job, delay=delay, due_at=due_at, max_bytes=plan.max_bytes)

    def _hooks(self, settings: Settings) -> tuple[BeforeEnqueue, ...]:
        own = self._source.before_enqueue
        given = settings.before_enqueue if own is None else own
        return tuple(load(g, kind="before_enqueue") if isinstance(g, str) else g for g in given)

    def again(self, jobs: Mapping[Job[Any], Stored] | Iterable[Job[Any]]) -> list[Sealed]:
        """Return what `Client.submit` has to send: all of *jobs* not known to be stored.

        Raises:
            CallError: One is not a job, holds what is not JSON, or is over a limit.
            ConfigError: One has a queue that cannot be named so.
        """
        if isinstance(jobs, Mapping):
            jobs = [job for job, known in jobs.items() if known != "stored"]
        limit = self._source.settings().max_bytes
        sealed: list[Sealed] = []
        for job in jobs:
            if not isinstance(job, Job):
                raise CallError(f"submit takes jobs, not {job!r:.80}; to store a call use enqueue")
            delay, due_at = (job.delay, job.due_at) if isinstance(job, Unsent) else (None, None)
            check_queue(job.queue)
            try:
                envelope = seal(job, delay=delay, due_at=due_at, max_bytes=limit)
            except ValueError as error:
                raise CallError(str(error)) from None
            sealed.append((job, envelope))
        return sealed

    def _plan(self, fn: Callable[..., Any]) -> _Plan:
        settings = self._source.settings()
        planned_for, plans = self._plans
        if settings is not planned_for:
            # Both at once, so that no plan is ever kept for other settings than it was made by.
            plans = {}
            self._plans = settings, plans
        try:
            return plans[fn]
        except (KeyError, TypeError):  # TypeError: not hashable, so no function either
            pass
        name = name_of(fn)  # out here, as its error has nothing to do with a KeyError
        chosen = self._bound.over(options_of(fn)).over(self._source.own)
        retry = settings.retry if chosen.retry is None else chosen.retry
        timeout = settings.timeout if chosen.timeout is None else chosen.timeout
        given = {
            "group": chosen.group,
            "retry": None if retry is None else retry.to_wire(),
            "timeout": None if timeout == math.inf else timeout,
        }
        common: dict[str, Any] = {"fn": name, "queue": chosen.queue or settings.queue}
        common |= {field: value for field, value in given.items() if value is not None}
        features, chain = (*asked(chosen), *self._joining), self._hooks(settings)
        frame = None if features or chain else Frame(Job(id="", **common))
        plan = plans[fn] = _Plan(common, settings.max_bytes, features, chain, frame)
        return plan


def _changed(job: Job[Any], plan: _Plan, delay: float | None, due_at: float | None) -> Sealed:
    for change in plan.chain:
        changed = change(job)
        if not isinstance(changed, Job):
            raise ConfigError(
                f"before_enqueue {change!r} returned {changed!r:.80}, not a job: return the one it "
                "was given, or job.evolve(…); raise to refuse it"
            )
        job = changed
    check_queue(job.queue)
    try:
        return job, seal(job, delay=delay, due_at=due_at, max_bytes=plan.max_bytes)
    except ValueError as error:
        raise CallError(f"{error}; before_enqueue made it so") from None


def _item_arguments(
    fn: Callable[..., Any], item: tuple[Any, ...] | Call[Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the arguments in one item of `Client.enqueue_many`.

    Raises:
        ArgumentError: It is neither a tuple nor a call of *fn*.
    """
    if isinstance(item, tuple):
        return item, {}
    if isinstance(item, Call) and item.fn is fn:
        return item.args, item.kwargs
    name = getattr(fn, "__name__", fn)
    raise ArgumentError(
        f"{item!r:.80} is no item for enqueue_many({name}, …): give tuples of arguments, such as "
        f"('x',), or goose.call({name}, …)"
    )


def delay_of(delay: float | timedelta) -> float:
    """Return *delay* as seconds.

    Raises:
        CallError: It is negative, NaN, over a hundred years or no duration at all.
    """
    try:
        return seconds(delay, "delay")
    except (TypeError, ValueError) as error:
        raise CallError(str(error)) from None


def instant_of(instant: datetime) -> float:
    """Return *instant* as epoch seconds.

    Raises:
        CallError: It is naive, over a hundred years ahead or no `datetime` at all.
    """
    if not isinstance(instant, datetime):
        raise CallError(f"instant = {instant!r} is not a datetime; for seconds use enqueue_in")
    if instant.utcoffset() is None:
        raise CallError(
            f"instant = {instant!r} has no time zone, so it names no moment; "
            "use datetime.now(UTC), or instant.replace(tzinfo=…)"
        )
    epoch = instant.timestamp()
    if epoch > time.time() + MAX_SECONDS:
        raise CallError(f"instant = {instant!r} is over a hundred years ahead")
    return epoch
