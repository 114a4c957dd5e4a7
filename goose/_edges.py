"""How a job points at others, by id or by a key: it waits for them, and takes what they return.

Values for clients; import `after` from `goose`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, overload

from goose.errors import ConfigError

if TYPE_CHECKING:
    from goose._job import Job
    from goose.calls import Call

OnFailure = Literal["cancel", "run", "wait"]
"""What becomes of a job when one it depends on is dead, cancelled or deleted."""

_POLICIES: tuple[OnFailure, ...] = ("cancel", "run", "wait")


@dataclass(frozen=True, slots=True)
class Output:
    """Stands for what a job will return, as an argument of another."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Key:
    """A unique key of a function: not a job, but whichever holds it."""

    call: Callable[..., Any] | Call[Any]
    """The function; a call of it where the key is made of the arguments."""
    unique: str | Literal[True]
    """What the option of that name says."""


@dataclass(frozen=True, slots=True)
class After:
    """One job that another depends on."""

    job: str | Key
    """Its id, or the key that it holds when the dependent job is enqueued."""
    on_failure: OnFailure = "cancel"


Parent: TypeAlias = "Job[Any] | str | After"
Dependencies: TypeAlias = "Parent | Iterable[Parent] | Callable[..., Parent | Iterable[Parent]]"


@overload
def after(job: Job[Any] | str, *, on_failure: OnFailure = "cancel") -> After: ...
@overload
def after(fn: Callable[..., Any], /, *, unique: str, on_failure: OnFailure = "cancel") -> After: ...
@overload
def after(
    call: Call[Any], /, *, unique: Literal[True], on_failure: OnFailure = "cancel"
) -> After: ...
def after(job: Any, *, unique: object = None, on_failure: OnFailure = "cancel") -> After:
    """Return *job* (or its id) as something to depend on, with what happens if it fails.

    With *unique* it is the job that holds a key when the dependent one is enqueued, like
    ``goose.after(sync, unique="account-7")``. A free key is nothing to wait for.

    Args:
        job: A job that keeps its result, as every job of a flow does. With *unique* the function
            whose key it is, since each has keys of its own.
        unique: The key, a text; or True with a ``goose.call(fn, …)`` in place of the function: the
            key that ``@goose.job(unique=…)`` gives that call, or else all its arguments.
        on_failure: If it is dead, cancelled or deleted: ``cancel`` the dependent job, and with it
            all that depend on that; ``run`` it all the same; or have it ``wait`` for the dead one to
            be replayed. A job that was skipped has not failed.

    Raises:
        ConfigError: It is neither a job nor an id, nor a function with its key; the job keeps no
            result; or there is no such policy.
    """
    if on_failure not in _POLICIES:
        raise ConfigError(f"on_failure = {on_failure!r:.80} is none of {', '.join(_POLICIES)}")
    if unique is not None:
        return After(_key(job, unique), on_failure)
    if isinstance(job, str):
        return After(job, on_failure)
    identity, traits = getattr(job, "id", None), getattr(job, "traits", None)
    if not isinstance(identity, str) or traits is None:
        hint = "give a job, or its id; or a function with the key its job holds, as unique="
        raise ConfigError(f"{job!r:.80} is nothing to depend on: {hint}")
    if "result" not in traits:
        raise ConfigError(
            f"job {identity} of {job.fn} keeps no result, so nobody is told when it ends: enqueue it "
            "with goose.using(result=True), or as a part of the flow"
        )
    return After(identity, on_failure)


def _key(call: Any, unique: object) -> Key:
    is_call = not callable(call) and callable(getattr(call, "fn", None))
    if unique is True and is_call:
        return Key(call, True)
    if isinstance(unique, str) and unique and callable(call):
        return Key(call, unique)
    raise ConfigError(
        f"after({call!r:.80}, unique={unique!r:.80}): give a function and the text of a key, or "
        "goose.call(fn, …) and True where its arguments are the key"
    )


def edges_of(given: object) -> tuple[After, ...]:
    """Return what is depended on, in the order given; the last word about a job is the one that holds.

    Raises:
        ConfigError: Something of it is neither a job nor an id.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = (given,)
    return tuple(
        each if isinstance(each, After) else after(each) for each in cast("Sequence[Any]", given)
    )
