"""Options: what is said beside a call, and which word counts."""

import math
from datetime import timedelta
from typing import Any

import pytest

from goose.errors import ConfigError
from goose.options import Options, job, options, options_of, parse_retry
from goose.retries import Exponential, Retry


def test_the_decorator_returns_the_same_function() -> None:
    """`@goose.job` attaches options and leaves the function what it was."""

    def send() -> None: ...

    decorated = job(queue="mail", timeout=timedelta(seconds=30))(send)

    assert decorated is send
    assert Options(queue="mail", timeout=30.0) == options_of(send)


def test_a_decorator_without_parentheses_is_refused() -> None:
    """`@goose.job` alone names the function and says what to write instead."""
    with pytest.raises(ConfigError, match=r"job stands on <built-in .*write @goose.job\(queue=…\)"):
        job(len)  # type: ignore[arg-type]


@pytest.mark.parametrize("thing", [3, None, "app:send", len, str])
def test_what_takes_no_options_is_refused(thing: Any) -> None:
    """`@goose.job(…)` on something else than a function says where it belongs."""
    with pytest.raises(ConfigError, match=r"job\(…\) stands on .*: put it above the def"):
        job(queue="x")(thing)


def test_a_plain_function_has_open_options() -> None:
    """A function nobody decorated says nothing about its jobs."""
    assert Options() == options_of(len)


def test_the_nearer_word_wins_field_by_field() -> None:
    """`over` takes each field from the nearer options if they say anything about it."""
    near = Options(queue="a", timeout=1)
    far = Options(queue="b", group="g", retry=Retry(max_retries=1))

    assert Options(queue="a", timeout=1, group="g", retry=Retry(max_retries=1)) == near.over(far)


def test_a_retry_is_replaced_whole() -> None:
    """Two policies are never merged, so a field of the farther one cannot leak through."""
    near = Options(retry=Retry(max_retries=1))
    far = Options(retry=Retry(max_retries=9, queue="slow"))

    assert Retry(max_retries=1) == near.over(far).retry


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"queue": "two words"}, "'two words' cannot name a queue"),
        ({"queue": ""}, "'' cannot name a queue"),
        ({"timeout": 0}, "leaves no time"),
        ({"timeout": -1}, "timeout = -1 s"),
        ({"timeout": math.nan}, "timeout = nan s"),
        ({"timeout": True}, "timeout = True is neither"),
        ({"timeout": "soon"}, "timeout = 'soon': give seconds, or a text such as"),
        ({"timeout": "0s"}, "timeout = '0s': it must be above 0 seconds"),
        ({"retry": "5"}, "retry = '5' is neither a goose.Retry nor a number of retries"),
        ({"retry": True}, "retry = True is neither"),
        ({"retry": -1}, "max_retries=-1: give a whole number"),
        ({"group": ""}, "group = '' is not a text"),
        ({"group": "g" * 201}, "1 to 200 printable characters"),
        ({"group": "a\0b"}, "printable"),
        ({"group": "\ud800"}, "printable"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(given: dict, said: str) -> None:
    """A wrong option is refused where it is written, with its name and value."""
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        options(**given)


@pytest.mark.parametrize(
    ("given", "name", "said"),
    [
        ({"retry": 3}, "retry", Retry(max_retries=3)),
        ({"retry": 0}, "retry", Retry(max_retries=0)),
        ({"timeout": "5m"}, "timeout", 300.0),
        ({"timeout": "1h30m"}, "timeout", 5400.0),
        ({"timeout": "none"}, "timeout", math.inf),
    ],
)
def test_short_forms_mean_what_they_do_in_a_file(given: dict, name: str, said: object) -> None:
    """A number of retries and a written timeout are the same in code as in goose.toml."""
    assert said == getattr(options(**given), name)
    assert said == getattr(options_of(job(**given)(lambda: None)), name)


def test_a_timeout_can_be_taken_away() -> None:
    """`math.inf` says that there is none, over one set farther away."""
    assert math.inf == options(timeout=math.inf).over(options(timeout=5)).timeout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (5, Retry(max_retries=5)),
        ("5", Retry(max_retries=5)),
        ("forever", Retry(max_retries=None)),
        ({"max_retries": "forever", "backoff": "30s"}, Retry(max_retries=None, backoff=30)),
        ({"backoff": ["1s", "5m"]}, Retry(backoff=[1, 300])),
        ({"backoff": "app.jobs:wait"}, Retry(backoff="app.jobs:wait")),
        ('{"backoff": {"first": "2s"}}', Retry(backoff=Exponential(first=2))),
    ],
)
def test_a_policy_can_be_written_in_a_file(given: object, expected: Retry) -> None:
    """A retry policy is a number, a table or JSON, with readable times."""
    assert expected == parse_retry(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_retry": 5}, "did you mean 'max_retries'?"),
        ({"backoff": "soon"}, "give seconds"),
        ("{", "give JSON"),
        ("nonsense", "give JSON"),
        ({"max_retries": -1}, "at least 0"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(given: object, said: str) -> None:
    """Unknown fields and nonsense in a written policy are errors with a hint."""
    with pytest.raises((ValueError, TypeError)) as caught:
        parse_retry(given)

    assert said in str(caught.value)
