"""What happens after an error: again, when, or never.

A `Retry` is a pure value. The worker asks it three things about a job that failed with an
error: `ending` (is this an error to retry at all?), `exhausted` (was that the last one?)
and `delay` (how long to wait). It travels inside the job *by value*, only the fields that
differ from the default, so that a worker needs no configuration to honour it.

Functions and exception classes in it travel as ``module:name``. Functions are resolved in
the worker, only among the modules it offers; exception classes never are: their names are
compared with those of the raised error's class and its bases.
"""

from __future__ import annotations

import logging
import random as random_module
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cached_property
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeAlias, cast

from goose.calls import name_of, real_module
from goose.errors import ConfigError, Control
from goose.jobs import JSON, check_queue

_log = logging.getLogger("goose.retries")

TEN_YEARS = 10 * 365.25 * 86_400
"""The longest delay, in seconds; beyond it is taken for a mistake."""


def _seconds(value: object, what: str) -> float:
    """Return *value* as seconds, or raise `ConfigError` if it is not 0 to ten years of them."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if type(seconds) not in (int, float) or not 0 <= cast("float", seconds) <= TEN_YEARS:
        raise ConfigError(
            f"{what} is {value!r:.80}: give seconds or a timedelta, at least 0 and at most ten years"
        )
    return float(cast("float", seconds))


@dataclass(frozen=True, slots=True)
class Exponential:
    """Waits that grow, drawn by chance: between 0 and ``min(longest, first * factor**(attempt-1))``.

    The whole of each wait is left to chance ("full jitter"), so that jobs which failed
    together do not come back together. With the default, 25 retries spread over a week on
    average, the first within 15 seconds.

    Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Raises:
        ConfigError: A number is out of range.
    """

    first: float = 15.0
    """Seconds, above 0: the most to wait after the first error."""
    factor: float = 2.0
    """How much more after each further one; 1 to 1000."""
    longest: float = 86_400.0
    """Seconds: the most to wait at all; at least `first`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "first", _seconds(self.first, "first"))
        object.__setattr__(self, "longest", _seconds(self.longest, "longest"))
        if self.first == 0 or self.longest < self.first:
            raise ConfigError(
                f"back-off from first={self.first!r} to longest={self.longest!r} seconds: "
                "first must be above 0 and longest at least first"
            )
        if type(self.factor) not in (int, float) or not 1 <= self.factor <= 1000:
            raise ConfigError(f"back-off factor={self.factor!r:.80}: give a number from 1 to 1000")
        object.__setattr__(self, "factor", float(self.factor))

    def most(self, attempt: int) -> float:
        """Return the most seconds to wait after *attempt* errors, at least 1."""
        try:
            return min(self.longest, self.first * self.factor ** (attempt - 1))
        except OverflowError:
            return self.longest


CustomBackoff: TypeAlias = Callable[[int, BaseException], "float | timedelta"]
Backoff: TypeAlias = (
    "Exponential | float | timedelta | Sequence[float | timedelta] | CustomBackoff | str"
)
Callback: TypeAlias = "Callable[..., Any] | str"
Ending: TypeAlias = Literal["retry", "give_up", "succeed"]

_DEFAULT_BACKOFF = Exponential()


@dataclass(frozen=True)
class Retry:
    """What to do with a job whose function raised. Frozen; replaced whole, never merged.

    Args:
        max_retries: How often to run the job again after errors, at least 0; None is for ever.
        backoff: Time before each retry: an `Exponential`, a constant, or a sequence whose
            last item repeats (seconds or timedelta); or a module-level function
            ``(attempt, error) -> seconds``, with *attempt* the errors so far.
        queue: Queue of the retries; None is the job's own.
        on_error: Module-level function ``(job, error)`` for the worker to call after each error.
        on_death: Module-level function ``(job, error)`` for the worker to call when it gives the
            job up; *error* is None where no exception was caught, as after a crash.
        give_up_on: Exception classes (or their ``module:qualname``) never to retry.
        succeed_on: Exception classes with which the job is done. When both name a class
            of the error, the more specific one counts.
        keep_dead: Whether a job that was given up is kept among the dead ones.

    Raises:
        ConfigError: A field is none of these.
    """

    max_retries: int | None = 25
    backoff: Backoff = _DEFAULT_BACKOFF
    queue: str | None = None
    on_error: Callback | None = None
    on_death: Callback | None = None
    give_up_on: Sequence[type[BaseException] | str] = ()
    succeed_on: Sequence[type[BaseException] | str] = ()
    keep_dead: bool = True

    def __post_init__(self) -> None:
        most = self.max_retries
        if most is not None and (type(most) is not int or most < 0):
            raise ConfigError(f"max_retries={most!r}: give a whole number of at least 0, or None")
        if self.queue is not None:
            check_queue(self.queue)
        for field in ("on_error", "on_death"):
            _check_callback(getattr(self, field), field)
        if type(self.keep_dead) is not bool:
            raise ConfigError(f"keep_dead={self.keep_dead!r}: give True or False")
        object.__setattr__(self, "backoff", _check_backoff(self.backoff))
        object.__setattr__(self, "give_up_on", _class_names(self.give_up_on, "give_up_on"))
        object.__setattr__(self, "succeed_on", _class_names(self.succeed_on, "succeed_on"))

    # --- the three questions ---

    def ending(self, error: BaseException) -> Ending:
        """Return what *error* means: another try, giving up, or that the job is done."""
        if self.give_up_on or self.succeed_on:
            for kind in type(error).__mro__:
                name = _class_name(kind)
                if name in self.give_up_on:
                    return "give_up"
                if name in self.succeed_on:
                    return "succeed"
        return "retry"

    def exhausted(self, attempt: int) -> bool:
        """Return whether no retry is left after *attempt* errors, the latest included."""
        return self.max_retries is not None and attempt > self.max_retries

    def delay(
        self,
        attempt: int,
        error: BaseException,
        random: random_module.Random,
        resolve: Callable[[str], Callable[..., Any]],
    ) -> float:
        """Return the seconds to wait before the next run, at least 0.

        Never fails: where a back-off function cannot be resolved, raises, or returns
        anything but 0 to ten years of seconds, that is logged and the default used.

        Args:
            attempt: Errors so far, the latest included; at least 1.
            error: The latest.
            random: Source of chance.
            resolve: Finds the function of a back-off given by name.
        """
        backoff = self.backoff
        if isinstance(backoff, str) or callable(backoff):
            try:
                function = resolve(backoff) if isinstance(backoff, str) else backoff
                return _seconds(function(attempt, error), "what the back-off function returned")
            except (Exception, Control):  # noqa: BLE001 - it is the user's code, and logged
                _log.exception("back-off %r failed; the default is used", backoff)
                backoff = _DEFAULT_BACKOFF
        if isinstance(backoff, Exponential):
            return random.uniform(0.0, backoff.most(attempt))
        return self._fixed(attempt)

    def preview(self) -> list[float]:
        """Return the most seconds that each retry waits, first to last.

        For ever is shown as 25. A back-off function is called with a plain `Exception`.

        Raises:
            ConfigError: The back-off is a function known by name only, or returned no time.
        """
        backoff = self.backoff
        if isinstance(backoff, str):
            raise ConfigError(f"back-off {backoff!r} is known by name only; it has no preview")
        attempts = range(1, (25 if self.max_retries is None else self.max_retries) + 1)
        if isinstance(backoff, Exponential):
            return [backoff.most(attempt) for attempt in attempts]
        if callable(backoff):
            error = Exception("a preview")
            return [_seconds(backoff(attempt, error), "a delay") for attempt in attempts]
        return [self._fixed(attempt) for attempt in attempts]

    def _fixed(self, attempt: int) -> float:
        if isinstance(self.backoff, tuple):
            return cast("float", self.backoff[min(attempt, len(self.backoff)) - 1])
        return cast("float", self.backoff)

    # --- on the wire ---

    def to_wire(self) -> dict[str, JSON] | None:
        """Return the fields that differ from the default, as JSON; None if there are none.

        Made once; the caller must not change it.

        Raises:
            FunctionError: A function in it cannot be found by a worker.
        """
        return self._wire

    @cached_property
    def _wire(self) -> dict[str, JSON] | None:
        return {
            field.name: _to_json(getattr(self, field.name))
            for field in fields(self)
            if getattr(self, field.name) != field.default
        } or None

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any] | None) -> Retry:
        """Return the policy that `to_wire` wrote; fields it does not know are left out.

        Raises:
            ValueError: A field holds nonsense.
        """
        if not wire:
            return DEFAULT
        try:
            given = {key: wire[key] for key in _FIELDS if key in wire}
            if isinstance(given.get("backoff"), dict):
                given["backoff"] = Exponential(**given["backoff"])
            return cls(**given)
        except (ConfigError, TypeError) as error:
            raise ValueError(f"not a retry policy: {error}") from error


# --- checks ------------------------------------------------------------------------------


def _check_backoff(backoff: Any) -> Exponential | float | tuple[float, ...] | CustomBackoff | str:
    """Return *backoff* with its times in seconds."""
    if isinstance(backoff, Exponential):
        return backoff
    if isinstance(backoff, str) or (callable(backoff) and not isinstance(backoff, type)):
        _check_callback(backoff, "backoff")
        return cast("CustomBackoff | str", backoff)
    if isinstance(backoff, (list, tuple)):
        if not backoff:
            raise ConfigError("backoff is an empty sequence: give at least one number of seconds")
        return tuple(_seconds(each, "an item of backoff") for each in backoff)
    return _seconds(backoff, "backoff")


def _check_callback(function: object, field: str) -> None:
    if isinstance(function, str):
        module, _, name = function.partition(":")
        if name.isidentifier() and all(part.isidentifier() for part in module.split(".")):
            return
    elif iscoroutinefunction(function):
        raise ConfigError(
            f"{field}={function!r:.80} is async, and nothing would await it: give a plain function"
        )
    elif function is None or (callable(function) and not isinstance(function, type)):
        return
    raise ConfigError(f"{field}={function!r:.80}: give a module-level function, or 'module:name'")


def _class_name(kind: type) -> str:
    return f"{real_module(kind.__module__) or kind.__module__}:{kind.__qualname__}"


def _class_names(classes: Any, field: str) -> tuple[str, ...]:
    if isinstance(classes, (str, type)) or not isinstance(classes, Sequence):
        raise ConfigError(
            f"{field}={classes!r:.80}: give a sequence of exception classes, such as (ValueError,)"
        )
    names = []
    for each in classes:
        if isinstance(each, type) and issubclass(each, BaseException):
            names.append(_class_name(each))
        elif isinstance(each, str) and all(each.partition(":")):
            names.append(each)
        else:
            raise ConfigError(
                f"{field} holds {each!r:.80}: give exception classes, or 'module:qualname'"
            )
    return tuple(names)


def _to_json(value: Any) -> JSON:
    if isinstance(value, Exponential):
        return {"first": value.first, "factor": value.factor, "longest": value.longest}
    if isinstance(value, tuple):
        return list(value)
    return name_of(value) if callable(value) else cast("JSON", value)


_FIELDS = tuple(field.name for field in fields(Retry))
DEFAULT = Retry()
"""What a job without a policy of its own gets."""


__all__ = ["DEFAULT", "Exponential", "Retry"]
