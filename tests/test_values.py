"""Values as people write them."""

import math
from datetime import timedelta

import pytest

from goose import values


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("7d", 604_800.0),
        ("300ms", 0.3),
        ("1h30m", 5_400.0),
        ("1.5 h", 5_400.0),
        ("2w", 1_209_600.0),
        ("45", 45.0),
        ("0.5", 0.5),
        (0, 0.0),
        (3, 3.0),
    ],
)
def test_a_duration_is_a_number_or_a_text(written: object, seconds: float) -> None:
    """Durations are seconds, or numbers with units, added up."""
    assert seconds == values.duration(written)


@pytest.mark.parametrize(
    "written",
    ["", "d", "7 days", "-1s", "1d!", "٣s", "nan", "inf", -1, math.nan, True, None, [1], "200000w"],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    """Anything else is refused, with examples of what fits."""
    with pytest.raises(ValueError, match="'300ms', '30s', '5m'"):
        values.duration(written)


def test_bytes_may_have_a_unit() -> None:
    """Sizes are bytes, or numbers with a unit of 1024."""
    assert [512 * 1024**2, 1024**3, 10_240, 7] == [
        values.size(each) for each in ("512 MB", "1GiB", "10k", 7)
    ]


@pytest.mark.parametrize("written", ["", "MB", "0", 0, -1, 1.5, True, "1T"])
def test_what_is_no_size_is_refused(written: object) -> None:
    """Anything else is no number of bytes."""
    with pytest.raises(ValueError, match="give bytes"):
        values.size(written)


@pytest.mark.parametrize("written", ["0", 0, -1, 1.5, True, "ten", ""])
def test_a_count_is_at_least_one(written: object) -> None:
    """Counts are whole numbers above 0."""
    with pytest.raises(ValueError, match="at least 1"):
        values.count(written)


def test_durations_at_the_door_are_seconds_or_timedelta() -> None:
    """Code gives numbers or `timedelta`; both come out as seconds."""
    assert [90.0, 2.0, 0.0] == [
        values.seconds(each, "delay") for each in (timedelta(minutes=1.5), 2, 0)
    ]


@pytest.mark.parametrize("given", [-0.001, math.nan, math.inf, timedelta(seconds=-1), 1e10])
def test_a_duration_out_of_range_is_a_value_error(given: object) -> None:
    """Negative, unending and overlong durations are refused by name."""
    with pytest.raises(ValueError, match="delay = "):
        values.seconds(given, "delay")  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["5", None, True, [1]])
def test_what_is_no_number_is_a_type_error(given: object) -> None:
    """Texts are durations in files only, not in code."""
    with pytest.raises(TypeError, match="neither seconds nor a timedelta"):
        values.seconds(given, "delay")  # type: ignore[arg-type]
