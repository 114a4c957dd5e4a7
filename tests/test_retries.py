"""What a retry policy decides, how it travels, and what it does not let through."""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goose.errors import ConfigError, FunctionError, Postpone, UnknownFunction
from goose.retries import DEFAULT, TEN_YEARS, Exponential, Retry

ME = __name__


class Temporary(OSError):
    """An error of this module."""


async def never_awaited(*_: object) -> None:
    """A callback that nobody would await."""


def linear(attempt: int, error: BaseException) -> float:
    """A back-off of its own."""
    return 2.0 * attempt


def report(job: object, error: BaseException) -> None:
    """A callback."""


def resolve(name: str) -> Callable[..., Any]:
    """What a worker that offers this module finds."""
    if name == f"{ME}:linear":
        return linear
    raise UnknownFunction(name)


def delay(retry: Retry, attempt: int = 1, *, seed: int = 0, find: Any = resolve) -> float:
    """Ask *retry* for a delay after a plain error."""
    return retry.delay(attempt, ValueError("x"), random.Random(seed), find)


# --- when --------------------------------------------------------------------------------


@given(st.integers(1, 10_000), st.integers())
def test_the_default_leaves_the_whole_wait_to_chance(attempt: int, seed: int) -> None:
    """Each wait is between 0 and 15 s doubled per error, never over a day, however many errors."""
    waited = delay(Retry(), attempt, seed=seed)

    assert 0 <= waited <= min(86_400.0, 15.0 * 2.0 ** min(attempt - 1, 100))


def test_chance_spreads_over_the_whole_range() -> None:
    """Jobs that failed together do not come back together."""
    source = random.Random(7)
    waits = [Retry().delay(3, ValueError(), source, resolve) for _ in range(1000)]

    assert min(waits) < 3
    assert max(waits) > 57
    assert 28 < sum(waits) / 1000 < 32


def test_the_default_retries_for_about_a_week() -> None:
    """Twenty-five waits, half as long as they can be on average, add up to between 6 and 7 days."""
    longest = Retry().preview()

    assert 25 == len(longest)
    assert [15.0, 30.0, 60.0] == longest[:3]
    assert 86_400.0 == longest[-1]
    assert 6 < sum(longest) / 2 / 86_400 < 7


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (5, [5.0, 5.0, 5.0, 5.0]),
        (0, [0.0, 0.0, 0.0, 0.0]),
        (timedelta(minutes=1), [60.0, 60.0, 60.0, 60.0]),
        ([1, timedelta(seconds=10)], [1.0, 10.0, 10.0, 10.0]),
        (Exponential(first=1, factor=3, longest=10), [1.0, 3.0, 9.0, 10.0]),
        (linear, [2.0, 4.0, 6.0, 8.0]),
    ],
)
def test_a_preview_lists_the_longest_waits(backoff: Any, expected: list[float]) -> None:
    """Constants, sequences whose last item repeats, exponentials and functions."""
    retry = Retry(max_retries=4, backoff=backoff)

    assert expected == retry.preview()
    if not isinstance(backoff, Exponential):
        assert expected == [delay(retry, attempt) for attempt in (1, 2, 3, 4)]


def test_a_preview_of_forever_ends() -> None:
    """An endless policy shows its first 25 waits."""
    assert [3.0] * 25 == Retry(max_retries=None, backoff=3).preview()


def test_a_function_known_by_name_has_no_preview() -> None:
    """The error says so instead of guessing."""
    with pytest.raises(ConfigError, match="known by name only"):
        Retry(backoff=f"{ME}:linear").preview()


def test_a_function_by_name_is_resolved_among_the_offered() -> None:
    """In the worker a back-off arrives as a name, and its function decides."""
    assert 6.0 == delay(Retry(backoff=f"{ME}:linear"), 3)


@pytest.mark.parametrize(
    "answer",
    [math.nan, math.inf, -1, TEN_YEARS * 1.01, None, "5", True, 10**400, timedelta(seconds=-1)],
    ids=repr,
)
def test_a_delay_that_is_none_gives_way_to_the_default(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A back-off function's nonsense is logged, and the job waits as by default."""
    with caplog.at_level(logging.ERROR, "goose.retries"):
        waited = delay(Retry(backoff=lambda attempt, error: answer), 2)  # type: ignore[arg-type,return-value]

    assert delay(Retry(), 2) == waited
    assert "the default is used" in caplog.text


@pytest.mark.parametrize("error", [ZeroDivisionError(), Postpone(1), UnknownFunction("gone")])
def test_a_backoff_that_raises_gives_way_to_the_default(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether its function raises or is not offered any more, the job still gets its delay."""

    def fail(*_: object) -> float:
        raise error

    with caplog.at_level(logging.ERROR, "goose.retries"):
        by_function = delay(Retry(backoff=fail), 2)
        by_name = delay(Retry(backoff="gone:away"), 2, find=fail)

    assert [delay(Retry(), 2)] * 2 == [by_function, by_name]
    assert 2 == caplog.text.count("the default is used")


# --- whether -----------------------------------------------------------------------------


def test_retries_run_out() -> None:
    """With n retries the error after the n-th is the last; with None there is no last."""
    assert [False, False, True] == [Retry(max_retries=2).exhausted(n) for n in (1, 2, 3)]
    assert Retry(max_retries=0).exhausted(1)
    assert not Retry(max_retries=None).exhausted(10**9)


def test_the_most_specific_class_decides() -> None:
    """Names are compared with the error's class, then its bases, nearest first."""
    retry = Retry(give_up_on=(LookupError, Temporary), succeed_on=(KeyError, OSError))

    assert "succeed" == retry.ending(KeyError())
    assert "give_up" == retry.ending(IndexError())
    assert "give_up" == retry.ending(Temporary())
    assert "succeed" == retry.ending(FileNotFoundError())
    assert "retry" == retry.ending(ValueError())
    assert "retry" == Retry().ending(KeyError())


def test_classes_may_be_named() -> None:
    """A class that the client cannot import is given as text."""
    assert "give_up" == Retry(give_up_on=[f"{ME}:Temporary"]).ending(Temporary())


# --- on the wire -------------------------------------------------------------------------


def test_the_default_writes_nothing() -> None:
    """A policy equal to the default costs no bytes, and nothing reads as the default."""
    assert Retry().to_wire() is None
    assert Retry(max_retries=25, backoff=Exponential()).to_wire() is None
    assert Retry.from_wire(None) is DEFAULT
    assert Retry() == Retry.from_wire({})


def test_only_what_differs_is_written() -> None:
    """Functions and classes are written by name."""
    retry = Retry(
        max_retries=None,
        backoff=linear,
        on_error=report,
        on_death=f"{ME}:report",
        give_up_on=(ValueError, Temporary),
        keep_dead=False,
    )

    assert {
        "max_retries": None,
        "backoff": f"{ME}:linear",
        "on_error": f"{ME}:report",
        "on_death": f"{ME}:report",
        "give_up_on": ["builtins:ValueError", f"{ME}:Temporary"],
        "keep_dead": False,
    } == retry.to_wire()


@given(
    st.builds(
        Retry,
        max_retries=st.none() | st.integers(0, 1000),
        backoff=st.floats(0, TEN_YEARS)
        | st.lists(st.floats(0, TEN_YEARS), min_size=1)
        | st.builds(Exponential, st.floats(0.1, 10), st.floats(1, 10), st.floats(10, 1e6))
        | st.just("m:f"),
        queue=st.none() | st.just("low"),
        on_error=st.none() | st.just("m:f"),
        give_up_on=st.lists(st.sampled_from([KeyError, OSError, "a.b:C.D"])),
        keep_dead=st.booleans(),
    )
)
def test_a_policy_comes_back_equal(retry: Retry) -> None:
    """Through JSON and back, every policy is itself."""
    wire = json.loads(json.dumps(retry.to_wire()))

    assert retry == Retry.from_wire(wire)
    assert retry.to_wire() == Retry.from_wire(wire).to_wire()


def test_fields_of_a_later_version_are_left_out() -> None:
    """An older worker follows what it knows of a newer policy."""
    assert Retry(max_retries=3) == Retry.from_wire({"max_retries": 3, "later": {"x": 1}})


@pytest.mark.parametrize(
    "wire",
    [
        {"max_retries": -1},
        {"max_retries": 1.0},
        {"max_retries": True},
        {"max_retries": "3"},
        {"backoff": -1},
        {"backoff": []},
        {"backoff": ["1"]},
        {"backoff": {"first": 0}},
        {"backoff": {"first": 10, "longest": 1}},
        {"backoff": {"factor": 0.5}},
        {"backoff": {"factor": 10**400}},
        {"backoff": {"factor": "2"}},
        {"backoff": {"nonsense": 1}},
        {"backoff": {1: 2}},
        {"backoff": None},
        {"backoff": "os.system"},
        {"backoff": "m:f.g"},
        {"queue": ""},
        {"queue": 5},
        {"on_error": 5},
        {"on_error": ["m:f"]},
        {"on_death": "m:f(x)"},
        {"give_up_on": "builtins:ValueError"},
        {"give_up_on": [5]},
        {"give_up_on": ["ValueError"]},
        {"succeed_on": {"builtins:ValueError": 1}},
        {"keep_dead": 1},
        {"keep_dead": None},
    ],
    ids=lambda wire: repr(wire)[:40],
)
def test_nonsense_on_the_wire_is_a_value_error(wire: dict[str, Any]) -> None:
    """Nothing but ValueError comes out, so that the worker can fall back to the default."""
    with pytest.raises(ValueError, match="not a retry policy"):
        Retry.from_wire(wire)


@given(
    st.dictionaries(
        st.sampled_from([*Retry.__dataclass_fields__, "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["first", "factor", "longest", "y"]), inner)
            ),
            max_leaves=5,
        ),
    )
)
def test_whatever_is_on_the_wire_a_decision_follows(wire: dict[str, Any]) -> None:
    """A hostile policy is refused, or gives a usable delay."""
    try:
        retry = Retry.from_wire(wire)
    except ValueError:
        return

    assert 0 <= delay(retry, 5) <= TEN_YEARS
    assert retry.exhausted(5) in (True, False)
    assert "retry" == retry.ending(ZeroDivisionError())


# --- mistakes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Retry(max_retries=-1), "max_retries=-1: give a whole number of at least 0"),
        (lambda: Retry(backoff=-1), "backoff is -1: give seconds or a timedelta"),
        (lambda: Retry(backoff="5"), "backoff='5': give a module-level function, or"),
        (lambda: Retry(backoff=Exponential), "backoff is <class"),
        (lambda: Retry(queue="no spaces"), "'no spaces' cannot name a queue"),
        (lambda: Retry(on_error=5), "on_error=5: give a module-level function"),
        (lambda: Retry(on_death=never_awaited), "is async, and nothing would await it"),
        (lambda: Retry(backoff=never_awaited), "is async, and nothing would await it"),
        (lambda: Retry(give_up_on=ValueError), "give a sequence of exception classes"),
        (lambda: Retry(give_up_on=(int,)), "give_up_on holds <class 'int'>"),
        (lambda: Retry(keep_dead="no"), "keep_dead='no': give True or False"),
        (lambda: Exponential(first=0), "first must be above 0"),
        (lambda: Exponential(factor=math.nan), "factor=nan: give a number from 1 to 1000"),
        (lambda: Exponential(longest=math.inf), "longest is inf"),
    ],
)
def test_a_mistake_is_told_where_it_is_made(make: Callable[[], object], why: str) -> None:
    """The error names field, value and what to give instead."""
    with pytest.raises(ConfigError) as caught:
        make()

    assert why in str(caught.value)


def test_a_function_no_worker_could_find_is_refused_when_written() -> None:
    """A lambda works where the policy was made, but cannot travel."""
    with pytest.raises(FunctionError, match="lambda"):
        Retry(backoff=lambda attempt, error: 1).to_wire()


def test_a_policy_is_a_value() -> None:
    """Equal policies are equal and hash alike, however their sequences were given."""
    one, other = (
        Retry(backoff=[1, 2], give_up_on=[KeyError]),
        Retry(backoff=(1.0, 2.0), give_up_on=("builtins:KeyError",)),
    )

    assert one == other
    assert hash(one) == hash(other)
