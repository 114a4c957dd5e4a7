"""What clients do on behalf of features: change a new job, and claim what it needs.

A feature that a job asks for by an option is found in `PREPARED`: it returns the job with its trait,
and talks to nobody. One that must know or keep something before the job is stored has a `Claim`
in `CLAIMED`, which is asked between the making of a job and its sending: the existing job of a
unique key may be the answer, or a job that has to wait for others stays in the store and is
sent by them. A job that asks for nothing passes by all of this.

A claim that was made is undone for jobs that are certainly not stored. Of those whose sending
nobody answered it is kept: they may be there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from goose._edges import After
from goose._holes import Hole
from goose._values import show
from goose.brokers.base import Broker
from goose.calls import Call, shown
from goose.errors import BrokerError, CallError, Stored
from goose.jobs import Envelope, Job
from goose.options import Options
from goose.plugins import load

if TYPE_CHECKING:
    from goose.stores.base import Store

logger = logging.getLogger("goose.features")

Prepare: TypeAlias = Callable[[Job[Any], Call[Any]], Job[Any]]
"""Returns a new job with a feature's trait; the call is the one it was made of."""
Sealed: TypeAlias = tuple[Job[Any], Envelope]

PREPARED: dict[str, str] = {
    "result": "goose.features.results.trait:asked",
    "unique": "goose.features.uniques.keys:prepare",
    "limit": "goose.features.limits.values:prepare",
    "depends_on": "goose.features.flows.asking:asked",
}
"""By option, what takes the `Options` and returns a `Prepare`, or None if it asks for nothing."""
CLAIMED: dict[str, str] = {
    "unique": "goose.features.uniques.claims:Claim",
    "flow": "goose.features.flows.claim:Claim",
}
"""By trait, what takes broker and store and returns a `Claim`; in the order in which they are made.

Jobs that one answers for are not shown to those after it: what may answer with another job stands
before what keeps the job itself.
"""


class Claim(Protocol):
    """What one feature does before jobs with its trait are sent. For one thread.

    It is shown the other jobs of the same enqueue, too, which those with its trait may rely on.
    """

    def claim(self, sealed: Sequence[Sealed]) -> Mapping[str, Job[Any]]:
        """Return, by id, the jobs that must not be sent, each with what its caller gets instead.

        That is another job that is there already, or the job itself if it is kept and will be sent
        when its time has come. May be asked again for a job that was claimed before.

        Raises:
            BrokerError: Nothing was claimed, as far as is known.
            GooseError: The jobs cannot be what they ask for; nothing was claimed.
        """
        ...

    def undo(self, jobs: Sequence[Job[Any]]) -> Sequence[Job[Any]]:
        """Give up the claims of *jobs*, which are not stored, and of those that relied on them.

        Returns:
            All that are lost with them.
        """
        ...


@runtime_checkable
class Confirming(Protocol):
    """A `Claim` that wants to know what became of its jobs."""

    def sent(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Job[Any]]:
        """Note that *jobs* are stored; return, by id, what the callers of some get instead of them."""
        ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """What has to be sent, what callers get, and the claims behind it."""

    sealed: Sequence[Sealed]
    answers: dict[str, Job[Any]] = field(default_factory=dict)
    """By id: what the callers of jobs that are not sent get."""
    claims: Sequence[tuple[str, Claim]] = ()

    def answer(self, job: Job[Any]) -> Job[Any]:
        """Return what the caller of *job* gets."""
        return self.answers.get(job.id, job)

    def sent(self) -> None:
        """Tell the claims that their jobs are stored, or kept by a feature.

        Jobs are stored whatever comes of this: a claim that cannot be confirmed is for the worker
        to judge that takes the job.
        """
        kept = [job for id_, job in self.answers.items() if job.id == id_]
        jobs = [*kept, *(job for job, _ in self.sealed)]
        for name, claim in self.claims:
            if isinstance(claim, Confirming):
                try:
                    self.answers.update(claim.sent([job for job in jobs if name in job.traits]))
                except BrokerError as error:
                    logger.warning("%s: jobs are stored, but not noted as such: %s", name, error)

    def undo(self, jobs: Mapping[Job[Any], Stored]) -> dict[Job[Any], Stored]:
        """Give up the claims of those that are certainly not stored.

        Returns:
            What is known of *jobs*, and of those that a feature had kept and that are lost with them.
        """
        found = dict(jobs)
        for _, claim in reversed(self.claims):
            lost = [job for job, known in found.items() if known == "not_stored"]
            if lost:
                found.update(dict.fromkeys(claim.undo(lost), "not_stored"))
        return found


def asked(chosen: Options) -> tuple[Prepare, ...]:
    """Return what changes new jobs by these options; usually nothing."""
    found = [
        load(spec, kind="feature")(chosen)
        for option, spec in PREPARED.items()
        if getattr(chosen, option) is not None
    ]
    return tuple(prepare for prepare in found if prepare is not None)


def depending(job: Job[Any], parents: tuple[After, ...], holes: tuple[Hole, ...]) -> Job[Any]:
    """Return *job* as a part of a flow, after *parents* and those that fill its *holes*."""
    from goose.features.flows.asking import depending as made  # not every program's

    return made(job, parents, holes)


def claimed(sealed: Sequence[Sealed], broker: Broker, store: Store) -> Claimed:
    """Claim what the traits of these jobs need.

    Raises:
        GooseError: As `Claim.claim`; claims made before are given up.
    """
    rest, answers, claims = list(sealed), dict[str, Job[Any]](), list[tuple[str, Claim]]()
    for name, spec in CLAIMED.items():
        if not any(name in job.traits for job, _ in rest):
            continue
        claim: Claim = load(spec, kind="feature")(broker, store)
        try:
            found = claim.claim(rest)
        except BaseException:
            before = Claimed(rest, answers, claims)
            before.undo({job: "not_stored" for job, _ in sealed})
            raise
        claims.append((name, claim))
        answers |= found
        rest = _without(rest, found)
    return Claimed(rest, answers, claims)


def _without(sealed: Sequence[Sealed], found: Mapping[str, Job[Any]]) -> list[Sealed]:
    """Return those that were not answered; what they named of the others is now the answer to that."""
    rest = [each for each in sealed if each[0].id not in found]
    answered = {
        job.id: (job, found[job.id])
        for job, _ in sealed
        if job.id in found and found[job.id].id != job.id
    }
    if answered and any("flow" in job.traits for job, _ in rest):
        from goose.features.flows.asking import relinked  # not every program's

        rest = [relinked(each, answered) for each in rest]
    return rest


def told(fn: Callable[..., Any], what: str, job: Job[Any], call: Call[Any]) -> Any:
    """Return what *fn*, a function of the job's arguments, says of *call*.

    Args:
        fn: The user's own.
        what: The option that it was given for.
        job: Made of the call.
        call: Its arguments.

    Raises:
        CallError: It raised.
    """
    try:
        return fn(*call.args, **call.kwargs)
    except Exception as error:
        given = [show(value) for value in call.args]
        given += [f"{name}={show(value)}" for name, value in call.kwargs.items()]
        raise CallError(
            f"{what} of {job.fn}: {shown(fn)} raised {type(error).__name__}: {error}; it is called "
            f"with the arguments of the job, here ({', '.join(given)})"
        ) from error
