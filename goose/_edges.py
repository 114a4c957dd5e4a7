"""How a job points at others: it waits for them, and takes what they return.

Values for clients; import `after` from `goose`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from goose.errors import ConfigError

if TYPE_CHECKING:
    from goose._job import Job

OnFailure = Literal["cancel", "run", "wait"]
"""What becomes of a job when one it depends on is dead, cancelled or deleted."""

_POLICIES: tuple[OnFailure, ...] = ("cancel", "run", "wait")


@dataclass(frozen=True, slots=True)
class Output:
    """Stands for what a job will return, as an argument of another."""

    job_id: str


@dataclass(frozen=True, slots=True)
class After:
    """One job that another depends on."""

    job_id: str
    on_failure: OnFailure = "cancel"


Parent: TypeAlias = "Job[Any] | str | After"
Dependencies: TypeAlias = "Parent | Iterable[Parent] | Callable[..., Parent | Iterable[Parent]]"


def after(job: Job[Any] | str, *, on_failure: OnFailure = "cancel") -> After:
    """Return *job* (or its id) as something to depend on, with what happens if it fails.

    Args:
        job: A job that keeps its result, as every job of a flow does.
        on_failure: If it is dead, cancelled or deleted: ``cancel`` the dependent job, and with it
            all that depend on that; ``run`` it all the same; or have it ``wait`` for the dead one to
            be replayed. A job that was skipped has not failed.

    Raises:
        ConfigError: It is neither a job nor an id, or there is no such policy.
    """
    if on_failure not in _POLICIES:
        raise ConfigError(f"on_failure = {on_failure!r:.80} is none of {', '.join(_POLICIES)}")
    if isinstance(job, str):
        return After(job, on_failure)
    identity, traits = getattr(job, "id", None), getattr(job, "traits", None)
    if not isinstance(identity, str) or traits is None:
        raise ConfigError(f"{job!r:.80} is nothing to depend on: give a job, or its id")
    if "result" not in traits:
        raise ConfigError(
            f"job {identity} of {job.fn} keeps no result, so nobody is told when it ends: enqueue it "
            "with goose.using(result=True), or as a part of the flow"
        )
    return After(identity, on_failure)


def parents_of(given: object) -> tuple[After, ...]:
    """Return what is depended on, each job once; the last word about it holds.

    Raises:
        ConfigError: Something of it is neither a job nor an id.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = (given,)
    found: dict[str, After] = {}
    for each in cast("Sequence[Any]", given):
        parent = each if isinstance(each, After) else after(each)
        found[parent.job_id] = parent
    return tuple(found.values())
