"""How features take part in a job's life: what they keep on it, and when they are asked.

A feature keeps what it needs on the job itself, in `Job.traits` under its own key, and says the
rest to a `Trait` of that name:

* a worker asks `Trait.admit` before jobs that bear it may start: go on, come back later, or end
  here without a run;
* whoever ends a job for good tells `Trait.ended` *before* the broker forgets the job. So what
  follows from an end (a batch's count, a flow's next job) is durable first, and a crash in between
  has it told once more: traits are idempotent.

`Traits` is all of them for one process. They are asked in the order of `KNOWN` and told in the
opposite one, as context managers are entered and left: what refuses copies stands first and
remembers last, what takes something that must be given back stands last.

How it can break, and what holds:

* The process dies between `ended` and the broker's settle: the job is lent again, and ends again.
  `ended` comes a second time, perhaps with another ending, and the later one is not the truer.
* A worker whose session was lost ends a job that others have by now: `ended` comes from both. Only
  the broker can refuse the first, and it is asked after.
* The store is away: endings of jobs that bear the trait wait, unsettled, and nobody else's do.
* A trait refuses, or fails by a defect: only the job it fails on waits, or goes on untold, in the log.
* The worker does not know a trait, being older than the client: the job is left for others, as one
  whose function it does not know.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from goose._words import several
from goose.brokers.base import Broker
from goose.errors import BrokerError, BrokerUnavailable, GooseError, UnknownFunction
from goose.jobs import JSON, Failure, Job
from goose.metrics.base import Metrics
from goose.metrics.fanout import Fanout
from goose.plugins import load
from goose.stores import OnDemand
from goose.stores.base import Store

logger = logging.getLogger("goose.features")

TTL = 30.0
"""Seconds for which a silent process keeps what it holds, at least: as long as its session by default."""

Ending = Literal["done", "skipped", "dead", "cancelled", "deleted", "renewed"]
"""How a job ended for good; ``renewed``: a dead one starts again."""


@dataclass(frozen=True, slots=True)
class Defer:
    """The job may not start yet: it goes back for *seconds*, and no attempt is counted."""

    seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Finish:
    """The job ends here without a run."""

    ending: Literal["skipped", "dead", "cancelled"]
    reason: str
    told: bool = False
    """Whether all traits know of its end already, so that nobody is told again."""


@dataclass(frozen=True, slots=True)
class Fill:
    """The job may start, with these arguments in place of its own for this one run."""

    args: tuple[JSON, ...]
    kwargs: Mapping[str, JSON]


Admission: TypeAlias = Defer | Finish | Fill


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of one job, whoever decided it."""

    job: Job[Any]
    """As it ran, or was found."""
    ending: Ending
    result: Any = None
    """What the function returned, if it is done."""
    failure: Failure | None = None
    """What is remembered of its errors, if it is dead."""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Tools:
    """What a trait works with."""

    broker: Broker
    store: Callable[[], Store]
    """Returns the store of this process; raises `Unsupported` where there is none."""
    ended: Callable[[Sequence[Ended]], None]
    """Tells all traits of jobs that end without having been lent; raises `BrokerError`."""
    resolve: Callable[[str], Callable[..., Any]]
    """Returns the function of a job that ran here, by its ``module:name``."""
    metrics: Metrics
    """Counts, never raises, and may be called from any thread."""
    mono: Callable[[], float] = time.monotonic
    """Monotonic seconds."""
    ttl: float = TTL
    """Seconds for which what this process holds is kept for it, though nobody hears from it."""
    random: Random = field(default_factory=Random)
    """Draws what is left to chance."""


class Trait(Protocol):
    """One feature's part in the life of jobs that bear its key. Any thread may call it."""

    def admit(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Admission]:
        """Return what is to become of *jobs*, by id; what is left out goes on.

        Raises:
            BrokerError: It cannot be said now; the jobs come back in a moment.
        """
        ...

    def ended(self, endings: Sequence[Ended]) -> None:
        """Note that these jobs have ended, perhaps not for the first time.

        Raises:
            BrokerError: It could not be noted; it is told again, all of it.
        """
        ...


@runtime_checkable
class Holding(Protocol):
    """A `Trait` that holds something for a job only while it is in this process."""

    def left(self, jobs: Sequence[Job[Any]]) -> None:
        """Give back what is held for these, which have left without having ended.

        Raises:
            BrokerError: It could not be given back; it has to go by itself.
        """
        ...

    def tick(self) -> None:
        """Keep alive what is held; called every few seconds.

        Raises:
            BrokerError: It could not be kept.
        """
        ...


@runtime_checkable
class Retried(Protocol):
    """A trait that wants to know of failures, too."""

    def retried(self, jobs: Sequence[Job[Any]]) -> None:
        """Note that these jobs failed and will run again; what it raises is logged, no more."""
        ...


KNOWN: dict[str, str] = {
    "once": "goose.features.once:Once",
    "batch": "goose.features.batches.trait:BatchTrait",
    "flow": "goose.features.flows.trait:Flow",
    "result": "goose.features.results.trait:Results",
    "unique": "goose.features.uniques.holders:Unique",
    "limit": "goose.features.limits.trait:Limits",
}
"""Each trait's key and what makes it, given `Tools`; in the order in which they are asked."""

AGAIN = 1.0
"""Seconds that a job waits whose trait cannot say yet whether it may start."""


def _nowhere(name: str) -> Callable[..., Any]:
    raise UnknownFunction(f"{name} does not run here")


def unknown(job: Job[Any]) -> str:
    """Return a trait of *job* that this Goose does not have; empty if it knows them all."""
    return next((name for name in job.traits if name not in KNOWN), "")


class Traits:
    """All traits of one process. Thread-safe; what it does not need it does not make.

    Args:
        broker: Where the jobs are.
        store: Returns where traits remember, or raises `Unsupported`; the broker's own store if
            left out.
        resolve: See `Tools`; needed where jobs run.
        metrics: See `Tools`; nothing is counted without.
        mono: See `Tools`.
        ttl: See `Tools`.
        random: See `Tools`; one of its own if left out.
    """

    def __init__(
        self,
        broker: Broker,
        store: Callable[[], Store] | None = None,
        *,
        resolve: Callable[[str], Callable[..., Any]] | None = None,
        metrics: Metrics | None = None,
        mono: Callable[[], float] = time.monotonic,
        ttl: float = TTL,
        random: Random | None = None,
    ) -> None:
        self.tools = Tools(
            broker,
            store or OnDemand(broker).open,
            self._tell_all,
            resolve or _nowhere,
            metrics or Fanout(),
            mono,
            ttl,
            random or Random(),
        )
        self._made: dict[str, Trait] = {}
        self.holds = False
        """Whether one of them is `Holding`."""
        self._lock = threading.Lock()

    def of(self, name: str) -> Trait:
        """Return the trait of that name, which is known."""
        trait = self._made.get(name)
        if trait is None:
            with self._lock:
                made: Trait = self._made.get(name) or load(KNOWN[name], kind="trait")(self.tools)
                trait = made
                self._made[name] = trait
                self.holds = self.holds or isinstance(trait, Holding)
        return trait

    # --- before a run ----------------------------------------------------------------------

    def admit(self, jobs: Sequence[Job[Any]]) -> dict[str, Admission]:
        """Return what is to become of *jobs*, by id; what is left out goes on. Never raises."""
        answers: dict[str, Admission] = {}
        try:
            self.tools.store()
        except GooseError as error:
            logger.error("%s left for a worker that has a store: %s", several(len(jobs)), error)
            return {job.id: Defer(60 * AGAIN, "no store here") for job in jobs}
        for name in KNOWN:
            asked = [
                job
                for job in jobs
                if name in job.traits and not isinstance(answers.get(job.id), Defer | Finish)
            ]
            if asked:
                answers.update(self._asked(name, asked))
        return answers

    def _asked(self, name: str, jobs: Sequence[Job[Any]]) -> Mapping[str, Admission]:
        try:
            return self.of(name).admit(jobs)
        except BrokerError as error:
            logger.warning("%s: %s made to wait: %s", name, several(len(jobs)), error)
        except Exception as error:
            if len(jobs) > 1:  # perhaps one of them is to blame: each by itself
                return {id_: said for job in jobs for id_, said in self._asked(name, [job]).items()}
            logger.exception("%s: job %s cannot be admitted", name, jobs[0].id)
            return {jobs[0].id: Defer(60 * AGAIN, f"{name}: {error}")}
        return {job.id: Defer(AGAIN, f"{name} could not be asked") for job in jobs}

    # --- after the last one ----------------------------------------------------------------

    def ended(self, endings: Sequence[Ended]) -> dict[str, BrokerError]:
        """Tell of *endings*; return what kept jobs, by id, from being told of. Never raises."""
        kept: dict[str, BrokerError] = {}
        for name in reversed(KNOWN):
            told = [end for end in endings if name in end.job.traits and end.job.id not in kept]
            if told:
                kept.update(self._told(name, told))
        return kept

    def _told(self, name: str, endings: Sequence[Ended]) -> dict[str, BrokerError]:
        try:
            self.of(name).ended(endings)
        except BrokerUnavailable as error:
            return {end.job.id: error for end in endings}
        except Exception as error:
            if len(endings) > 1:
                found: dict[str, BrokerError] = {}
                for end in endings:
                    found |= self._told(name, [end])
                return found
            if isinstance(error, BrokerError):
                return {endings[0].job.id: error}
            # Told again it would fail again, and the job would never be settled.
            logger.exception("%s: the end of job %s is not noted", name, endings[0].job.id)
        return {}

    # --- meanwhile -------------------------------------------------------------------------

    def left(self, jobs: Sequence[Job[Any]]) -> None:
        """Note that these jobs have left this process and will go on elsewhere. Never raises."""
        for name, trait in list(self._made.items()):
            concerned = [job for job in jobs if name in job.traits]
            if concerned and isinstance(trait, Holding):
                try:
                    trait.left(concerned)
                except BrokerError as error:
                    logger.warning("%s: not let go yet for %s: %s", name, several(len(jobs)), error)

    def tick(self) -> None:
        """Keep alive what is held for jobs here.

        Raises:
            BrokerError: Something could not be kept.
        """
        for trait in list(self._made.values()):
            if isinstance(trait, Holding):
                trait.tick()

    def retried(self, jobs: Sequence[Job[Any]]) -> None:
        """Tell those that want to know of *jobs*, which failed and will run again. Never raises."""
        for name in KNOWN:
            concerned = [job for job in jobs if name in job.traits]
            try:
                trait = self.of(name) if concerned else None
                if isinstance(trait, Retried):
                    trait.retried(concerned)
            except Exception as error:  # noqa: BLE001 - a number that is late is no reason to wait
                logger.warning("%s: %d retries are not noted: %s", name, len(concerned), error)

    def _tell_all(self, endings: Sequence[Ended]) -> None:
        for error in self.ended(endings).values():
            raise error
