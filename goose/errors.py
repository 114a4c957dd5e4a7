"""Every exception Goose raises.

::

    GooseError
    ├── ConfigError            a setting, URL or name is wrong
    │   └── MissingDriver      the broker's or metrics' package is not installed
    ├── CallError              a call cannot become a job (also a TypeError)
    │   ├── FunctionError      the function is not importable by name
    │   ├── ArgumentError      an argument does not fit or cannot be stored
    │   └── PayloadTooLarge    the encoded job is over the size or depth limit
    ├── FlowError              jobs cannot depend on each other like that
    ├── EnqueueError           the broker did not confirm; ``.jobs`` says what is known
    ├── BrokerError            the broker refused, or cannot do it now
    │   ├── BrokerUnavailable  it cannot be reached; worth trying again
    │   ├── SessionLost        the broker holds this session for dead
    │   └── StoreError         the store refuses an operation
    ├── BatchError             a batch cannot take, or be, what was asked
    ├── Unsupported            this broker or worker cannot do that at all
    ├── Undecodable            bytes in a queue are not a job
    │   └── NewerVersion       they are a job of a later Goose
    ├── UnknownFunction        this worker does not offer the job's function
    ├── SignatureMismatch      a job's arguments do not fit its function as it is now
    ├── JobFailed              a job ended in an error, or without having run
    ├── ResultUnavailable      what a job returned is not kept, or not any more
    └── ResultTimeout          a job has not ended in time (also a TimeoutError)

    Control (BaseException)    raised *inside* a job to steer it
    ├── Postpone               run again later, costing no attempt
    ├── Bury                   give up now: to the dead jobs
    ├── Skip                   done, without (more of) the function
    └── JobTimeout             the job's time is over

`Control` is not an `Exception`, so that ``except Exception`` in a job does not eat it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from goose.jobs import Job

Stored = Literal["stored", "not_stored", "unknown"]
"""What is known of a job after a failed enqueue."""


class GooseError(Exception):
    """Base of every error Goose raises to its callers."""


class ConfigError(GooseError):
    """A setting is wrong: unknown key, bad value, unknown scheme.

    Raised when the setting is read, that is at start-up or at the first use of a
    client. The message names the value, where it came from and the fix.
    """


class MissingDriver(ConfigError):
    """A broker or metrics backend needs a package that is not installed.

    The message holds the exact ``pip install`` line.
    """


class CallError(GooseError, TypeError):
    """A call cannot become a job; raised by `enqueue` and its relatives, nothing was stored."""


class FunctionError(CallError):
    """The function cannot be found again by ``module:name``.

    Raised for lambdas, nested functions, methods, partials, builtins and functions
    of a ``__main__`` that has no module name.
    """


class ArgumentError(CallError):
    """An argument is missing, superfluous, or would not come back equal in type and value."""


class PayloadTooLarge(CallError):
    """The encoded job is larger than the size limit (bytes) or nested deeper than the depth limit."""


class FlowError(GooseError):
    """Jobs depend on each other in a circle, or on one that nobody knows or that keeps no result.

    Nothing was stored.
    """


class EnqueueError(GooseError):
    """The broker did not confirm an enqueue.

    Attributes:
        jobs: Each job with what is known of it: ``stored``, ``not_stored`` or ``unknown``.
            ``client.submit(error.jobs)`` sends those not known to be stored again, under
            the same ids.
    """

    def __init__(self, message: str, jobs: Mapping[Job[object], Stored]) -> None:
        super().__init__(message)
        self.jobs: Mapping[Job[object], Stored] = jobs

    def __reduce__(self) -> tuple[type[EnqueueError], tuple[str, Mapping[Job[object], Stored]]]:
        return type(self), (str(self), self.jobs)


class BrokerError(GooseError):
    """The broker refused a request, or failed at it; what it says is in the message."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached now; the same call may succeed later.

    The outcome of a write that ends so is unknown, as it may have happened, unless it is `unsent`.

    Attributes:
        unsent: Whether the broker knows for certain that nothing of the call was sent, as when
            no connection could be made.
    """

    unsent = False


class SessionLost(BrokerError):
    """The broker holds this session for dead, so its deliveries belong to others by now.

    Raised by `Sessions.heartbeat` and `Broker.dequeue`; the worker drops what it has not
    started and opens a new epoch.
    """


class StoreError(BrokerError):
    """A store refuses an operation: another kind is there, keys of several groups, too large.

    Nothing of the call it came from has happened.
    """


class BatchError(GooseError):
    """There is a batch of that name already, or one that should take members is gone or has ended."""


class Unsupported(GooseError):
    """This broker or worker cannot do what was asked; the message names the way out."""


class Undecodable(GooseError):
    """Bytes taken from a queue are not a job; the worker buries them as they are."""


class NewerVersion(Undecodable):
    """The envelope was written by a later Goose; it is left for workers that know it."""


class UnknownFunction(GooseError):
    """The job names a function that this worker does not offer; left for other workers."""


class SignatureMismatch(GooseError):
    """A job's arguments do not fit its function: stored for another version of it.

    Raised in the worker before the function is called. The message names the parameter,
    never the value.
    """


class JobFailed(GooseError):
    """A job ended in an error, or was cancelled or deleted before it ran.

    Raised by `Job.result`, with the error's text as the worker saw it, never the exception itself;
    and by test helpers, which ran the job here and have the error as ``__cause__``.

    Attributes:
        ending: ``dead``, ``cancelled`` or ``deleted``; empty from test helpers.
        type: ``module:qualname`` of the error's class; empty if there was no error.
        message: The error's text.
        traceback: The worker's traceback, as text; its end, at most a few kilobytes.
        reason: Why it was given up: ``retries``, ``crashed``, ``timeout`` …
    """

    def __init__(
        self,
        text: str,
        *,
        ending: str = "",
        type: str = "",  # noqa: A002 - the field's own name
        message: str = "",
        traceback: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(text)
        self.ending = ending
        self.type = type
        self.message = message
        self.traceback = traceback
        self.reason = reason
        if traceback:
            self.add_note(f"In the worker:\n{traceback.rstrip()}")


class ResultUnavailable(GooseError):
    """A job keeps no result, its result is gone or could not be kept, or there is no such job."""


class ResultTimeout(GooseError, TimeoutError):
    """A job has not ended in the time its caller would wait; it goes on, and may be asked again."""


class Control(BaseException):
    """Base of what a job raises to steer itself; not an `Exception` on purpose."""


class Postpone(Control):
    """Run the job again after *seconds*, costing no attempt.

    Args:
        seconds: Seconds (or `timedelta`) from now, 0 to a hundred years, by the broker's clock.

    Raises:
        TypeError: *seconds* is neither a number nor a `timedelta`.
        ValueError: It is below 0, NaN, or over a hundred years.
    """

    def __init__(self, seconds: float | timedelta) -> None:
        plain = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if isinstance(plain, bool) or not isinstance(plain, (int, float)):
            raise TypeError(f"Postpone({seconds!r}) is neither seconds nor a timedelta")
        if not 0 <= plain <= 100 * 365.25 * 86_400:
            raise ValueError(f"Postpone({seconds!r}): give 0 s to 100 years")
        super().__init__(seconds)
        self.seconds = float(plain)


class Bury(Control):
    """Give up on the job now: it goes to the dead jobs with *reason*, a text or an error."""

    def __init__(self, reason: object) -> None:
        super().__init__(reason)
        self.reason = str(reason)


class Skip(Control):
    """End the job as done without running (the rest of) its function; *reason* is logged."""

    def __init__(self, reason: object = "") -> None:
        super().__init__(reason)
        self.reason = str(reason)


class JobTimeout(Control):
    """Raised inside a job whose time is over; counts as a failed attempt.

    Attributes:
        doing: Where the function was when its time ended, as ``file:line in name``; empty
            inside the function itself.
    """

    def __init__(self, message: str = "the job's time is over", doing: str = "") -> None:
        super().__init__(message)
        self.doing = doing


__all__ = [
    "ArgumentError",
    "BrokerError",
    "BrokerUnavailable",
    "Bury",
    "CallError",
    "ConfigError",
    "Control",
    "EnqueueError",
    "FlowError",
    "FunctionError",
    "GooseError",
    "JobFailed",
    "JobTimeout",
    "MissingDriver",
    "NewerVersion",
    "PayloadTooLarge",
    "Postpone",
    "ResultTimeout",
    "ResultUnavailable",
    "SessionLost",
    "SignatureMismatch",
    "Skip",
    "StoreError",
    "Stored",
    "Undecodable",
    "UnknownFunction",
    "Unsupported",
]
