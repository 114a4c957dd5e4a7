"""How a job is to be run, said beside the call instead of inside it.

`Options` are some values, each of which may be left open. Every place that can say
something about a job holds one, and `Options.over` lays a nearer one over a farther one,
field by field: what is bound by ``using`` over ``@goose.job`` over the `Client` over the
settings. The winner of each field is frozen into the job when it is enqueued, so a worker
never needs to know where a value came from.

Options never share a signature with a function's own arguments, so a job function may
have a parameter called ``queue`` or ``timeout``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, TypeVar, Unpack

from goose._edges import After, Dependencies, edges_of
from goose.calls import Call
from goose.errors import ConfigError
from goose.jobs import check_queue
from goose.plugins import nearest
from goose.retries import Retry
from goose.values import duration, limit, seconds

if TYPE_CHECKING:
    from goose.brokers.base import Broker
    from goose.features.crons import CatchUp
    from goose.features.limits.values import Limit

F = TypeVar("F", bound=Callable[..., Any])

MAX_GROUP = 200
"""Characters a group may have."""

RESULT_SECONDS = 86_400.0
"""For how long a result is kept where nobody says."""

_ATTRIBUTE = "__goose_options__"
_TRANSACTIONAL = "__goose_transactional__"


class Bound(TypedDict, total=False):
    """What ``using``, ``@goose.job`` and a `Client` take; None leaves it to a farther place."""

    queue: str | None
    """The line jobs wait in."""
    retry: Retry | int | None
    """What happens after an error, or just how many retries there are; replaces the whole policy."""
    timeout: float | timedelta | str | None
    """Seconds (or `timedelta`, or a text such as ``"5m"``) a single run may take, above 0;
    `math.inf` for no limit."""
    group: str | None
    """Whose job it is: the groups with jobs in a queue take turns there, on brokers that can."""
    result: bool | float | timedelta | None
    """Whether what it returns is kept, and for how long: seconds (or `timedelta`), a day if True."""
    unique: bool | str | Callable[..., str | None] | None
    """At most one job of the function for a key: a text, what a function of the job's arguments
    returns (None: not unique), or True for all its arguments; False is not unique."""
    until: Literal["started", "done"] | float | timedelta | None
    """How long a unique job holds its key: until it starts, until it has ended (the default), or
    so many seconds from its enqueue, ended or not."""
    debounce: float | timedelta | None
    """Of calls with one key the last one runs, once there was none for so many seconds."""
    limit: Limit | Sequence[Limit] | None
    """How many jobs like it may start in a time, or run at once; ``()`` is no limit."""
    depends_on: Dependencies | None
    """Jobs (or ids, or `goose.after`, which takes unique keys, too) that have to end first; or a
    function of its arguments that returns them."""


Callback: TypeAlias = Callable[..., Any] | Call[Any]
"""What a batch calls: a function, or a ``goose.call(fn, …)`` with its arguments."""


class Plan(TypedDict, total=False):
    """What a batch is to be."""

    on_success: Callback | None
    """To run once all members are done or skipped."""
    on_complete: Callback | None
    """To run once all members have ended, however they ended."""
    name: str | None
    """What to find it by: 1 to 100 of A-Z a-z 0-9 _ . : -; no two at the same time."""
    linger: float | timedelta | None
    """Seconds (or `timedelta`) for which it is kept once it has ended; 7 days if not given."""
    resume: bool
    """Whether to go on with the batch of that name, if there is one."""
    stay_open: bool
    """Whether it ends only after `Batch.seal`, and anybody may add members until then."""


class Using(Bound, Plan, total=False):
    """What `Client.using` takes."""

    broker: str | Broker | None
    """URL or `Broker` jobs go to instead."""
    connection: Any
    """An open connection to the broker's own database: jobs exist if and only if its transaction
    commits. Use the client on that connection's thread."""
    outbox: Any
    """The same for any broker: a connection to a database, from whose outbox a relay moves jobs."""
    timezone: str | None
    """For `cron`: whose clock it goes by, such as ``Europe/Berlin``; UTC if not given."""
    catch_up: CatchUp | None
    """For `cron`: whether instants that passed while no worker ran are left out (``skip``), are one
    job (``one``, the default), or a job each (``all``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a job is run, as far as it was said; None means it was not.

    Raises:
        ConfigError: A value cannot be meant; the message says which and why.
    """

    queue: str | None = None
    """The line it waits in."""
    retry: Retry | None = None
    """What happens after an error; replaced whole, never merged."""
    timeout: float | None = None
    """Seconds a single run may take; `math.inf` for no limit, over one set elsewhere."""
    group: str | None = None
    """Whose job it is: the groups with jobs in a queue take turns there, on brokers that can."""
    result: float | None = None
    """Seconds for which what it returns is kept; 0 keeps nothing."""
    unique: bool | str | Callable[..., str | None] | None = None
    """Its key, or what makes it of the arguments; True is all of them."""
    until: Literal["started", "done"] | float | None = None
    """How long it holds its key; a number is seconds from its enqueue."""
    debounce: float | None = None
    """Seconds without another call of its key before it runs."""
    limit: Limit | Sequence[Limit] | None = None
    """How many jobs like it may start in a time, or run at once."""
    depends_on: tuple[After, ...] | Callable[..., Any] | None = None
    """What has to end first, or a function of the arguments that returns that."""

    def __post_init__(self) -> None:
        if self.queue is not None:
            check_queue(self.queue)
        if self.retry is not None:
            object.__setattr__(self, "retry", _retry(self.retry))
        if self.timeout is not None:
            object.__setattr__(self, "timeout", _timeout(self.timeout))
        if self.result is not None:
            object.__setattr__(self, "result", _kept(self.result))
        self._check_uniqueness()
        if self.depends_on is not None and not callable(self.depends_on):
            object.__setattr__(self, "depends_on", edges_of(self.depends_on))
        if self.group is not None and not _is_group(self.group):
            raise ConfigError(
                f"group = {self.group!r:.80} is not a text of 1 to {MAX_GROUP} printable characters"
            )

    def _check_uniqueness(self) -> None:
        unique, until = self.unique, self.until
        if unique is not None and not (isinstance(unique, bool | str) or callable(unique)):
            raise ConfigError(
                f"unique = {unique!r:.80}: give a text, a function of the job's arguments, or True"
            )
        if unique == "":
            raise ConfigError("unique = '' is no key; give a text, or True for all arguments")
        if until is not None and until not in ("started", "done"):
            if isinstance(until, str):
                raise ConfigError(f"until = {until!r:.80}: give 'started', 'done' or seconds")
            object.__setattr__(self, "until", _span(until, "until"))
        if self.debounce is not None:
            object.__setattr__(self, "debounce", _span(self.debounce, "debounce"))

    def over(self, other: Options) -> Options:
        """Return these options, with those left open taken from *other*."""
        if other is _NONE:
            return self
        if self is _NONE:
            return other
        return Options(
            **{
                name: getattr(other if getattr(self, name) is None else self, name)
                for name in _NAMES
            }
        )


def _is_group(value: object) -> bool:
    # Neither NUL nor lone surrogates, which some brokers cannot store, are printable.
    return isinstance(value, str) and 0 < len(value) <= MAX_GROUP and value.isprintable()


def _span(value: float | timedelta, name: str) -> float:
    try:
        checked = seconds(value, name)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None
    if not checked:
        raise ConfigError(f"{name} = 0 s is no time; give seconds")
    return checked


def _retry(value: object) -> Retry:
    if isinstance(value, int) and not isinstance(value, bool):
        return Retry(max_retries=value)
    if not isinstance(value, Retry):
        raise ConfigError(
            f"retry = {value!r:.80} is neither a goose.Retry nor a number of retries; write for "
            "example goose.Retry(max_retries=5)"
        )
    return value


def _timeout(value: float | timedelta | str) -> float:
    if value == math.inf:
        return math.inf
    if isinstance(value, str):
        try:
            return limit(value)
        except ValueError as error:
            raise ConfigError(f"timeout = {value!r:.80}: {error}") from None
    try:
        checked = seconds(value, "timeout")
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None
    if not checked:
        raise ConfigError("timeout = 0 s leaves no time to run; give seconds, or math.inf for none")
    return checked


def _kept(value: bool | float | timedelta) -> float:
    if isinstance(value, bool):
        return RESULT_SECONDS if value else 0.0
    try:
        return seconds(value, "result")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{error}; or True, to keep it for a day") from None


_NONE = Options()
_NAMES = tuple(field.name for field in fields(Options))


def options(**given: Unpack[Bound]) -> Options:
    """Return checked `Options`; a `timedelta` becomes seconds, and None is left open.

    Raises:
        ConfigError: A value cannot be meant.
        TypeError: There is no such option.
    """
    said: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not said:
        return _NONE
    for name in said:
        if name not in _NAMES:
            raise TypeError(f"there is no option {name!r}{nearest(name, _NAMES)}")
    return Options(**said)


def job(
    bare: None = None, /, *, transactional: bool = False, **given: Unpack[Bound]
) -> Callable[[F], F]:
    """Return a decorator that attaches options to a function and returns it, the same object.

    The options are frozen into each job when it is enqueued; what ``using`` binds wins
    over them. A function needs no decorator to be enqueued.

    Args:
        bare: What a decorator without parentheses is given, which is refused.
        transactional: What it writes by ``goose.current().connection`` and the end of its job are
            one transaction, on PostgreSQL and SQLite. That goes for the function, wherever and
            whenever its jobs were enqueued.
        **given: See `Bound`.

    Raises:
        ConfigError: A value cannot be meant, or the parentheses are missing.
    """
    if bare is not None:
        raise ConfigError(
            f"@goose.job stands on {bare!r:.80} without options: write @goose.job(queue=…), or leave "
            "it out, since a plain function needs no decorator"
        )
    attached = options(**given)

    def attach(fn: F) -> F:
        try:
            setattr(fn, _ATTRIBUTE, attached)
        except (AttributeError, TypeError):
            raise ConfigError(
                f"@goose.job(…) stands on {fn!r:.80}, which takes no options: put it above the def of a "
                "function of yours"
            ) from None
        if transactional:
            setattr(fn, _TRANSACTIONAL, True)
        return fn

    return attach


def options_of(fn: Callable[..., Any]) -> Options:
    """Return the options attached to *fn* by `job`; all open if there are none."""
    found = getattr(fn, _ATTRIBUTE, _NONE)
    return found if isinstance(found, Options) else _NONE


def is_transactional(fn: Callable[..., Any]) -> bool:
    """Say whether *fn* was declared so by `job`."""
    return getattr(fn, _TRANSACTIONAL, False) is True


def parse_retry(value: object) -> Retry:
    """Return the policy that a file, an environment variable or code gives.

    Takes a `Retry`; a table of its fields (JSON if a text), where times may be texts such as
    ``"30s"`` and ``max_retries`` the word ``"forever"``; or `max_retries` alone.

    Raises:
        ValueError: A field is unknown or holds nonsense.
        TypeError: It is nothing of that.
    """
    if isinstance(value, Retry):
        return value
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        value = {"max_retries": value}
    if not isinstance(value, Mapping):
        raise TypeError("give a table such as {max_retries = 5}, or just the number")
    names = [field.name for field in fields(Retry)]
    for name in value:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            raise ValueError(f"{name!r} is no field of a retry policy; {hint}")
    given: dict[str, Any] = dict(value)
    if given.get("max_retries") == "forever":
        given["max_retries"] = None
    if "backoff" in given:
        given["backoff"] = _times(given["backoff"])
    return Retry.from_wire(given)


def _json(text: str) -> object:
    if text.strip() == "forever":
        return "forever"
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError('give JSON such as {"max_retries": 5}, or just the number') from None


def _times(value: Any) -> Any:
    """Return *value* with texts like ``"30s"`` as seconds, also inside a list or a table."""
    if isinstance(value, list):
        return [_times(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _times(item) for name, item in value.items()}
    return duration(value) if isinstance(value, str) and ":" not in value else value
