"""A schedule means the instants that a clock on the wall would show, also when it is turned."""

from __future__ import annotations

import builtins
import random
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest

from goose.errors import ConfigError, MissingDriver
from goose.features.crons.expressions import NICKNAMES, Schedule
from tests.features.cron_reference import EXPRESSIONS, compare, transitions

ZONES = (
    "Europe/Berlin",
    "Australia/Lord_Howe",  # turned by half an hour
    "Pacific/Chatham",
    "Antarctica/Troll",  # by two hours
    "America/Santiago",  # at midnight
    "Pacific/Apia",  # once left out a day
    "Africa/Monrovia",  # had seconds in its offset
    "Africa/Casablanca",
)


@pytest.mark.parametrize("name", ZONES)
def test_every_transition_agrees_with_the_clock_on_the_wall(name: str) -> None:
    """Around all transitions of 68 years there, expressions fire as the brute force says.

    One of the fifty at each, in turn; ``make cron`` compares all.
    """
    for number, turned in enumerate(transitions(name)):
        assert 1 == compare(name, [turned], [EXPRESSIONS[7 * number % len(EXPRESSIONS)]])


def test_any_zone_agrees_with_the_clock_on_the_wall() -> None:
    """In some zones taken by chance, all fifty expressions agree at one transition."""
    chance = random.Random(68)
    zones = [name for name in sorted(available_timezones()) if "/" in name]
    assert 50 == len(set(EXPRESSIONS))
    for name in chance.sample(zones, 4):
        turned = transitions(name)
        if turned:
            assert 50 == compare(name, [chance.choice(turned)])


def instants(expression: str, zone: str, first: str, days: float) -> list[str]:
    """Return the readings of the fires from that reading on, with their offsets."""
    schedule = Schedule(expression, zone)
    begin = datetime.fromisoformat(first).replace(tzinfo=ZoneInfo(zone)).timestamp()
    return [
        datetime.fromtimestamp(instant, ZoneInfo(zone)).strftime("%d %H:%M %z")
        for instant in schedule.between(begin, begin + days * 86_400)
    ]


def test_a_gap_is_one_fire_at_its_end() -> None:
    """What was to come at readings that are left out comes once, when clocks go on."""
    expected = ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]
    assert expected == instants("30 2 * * *", "Europe/Berlin", "2026-03-28", 3)
    assert ["29 03:00 +0200"] == instants("*/10 2 * * *", "Europe/Berlin", "2026-03-29", 1)


def test_a_day_that_is_left_out_is_one_fire() -> None:
    """Samoa had no 30 December 2011; what was due then came as the 31st began."""
    expected = ["29 09:00 -1000", "31 00:00 +1400", "31 09:00 +1400"]
    assert expected == instants("0 9 * * *", "Pacific/Apia", "2011-12-29", 2)


def test_a_fold_is_two_fires_of_what_is_hourly_and_one_of_what_is_daily() -> None:
    """Hours that come twice are two hours, but a time of day comes once a day."""
    assert ["25 02:30 +0200"] == instants("30 2 * * *", "Europe/Berlin", "2026-10-25", 1)
    assert ["25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100"] == instants(
        "0 * * * *", "Europe/Berlin", "2026-10-25 02:00", 2 / 24
    )


@pytest.mark.parametrize(
    ("expression", "first"),
    [
        ("0 0 29 2 *", "2028-02-29T00:00:00"),
        ("0 0 * 2 MON#5", "2044-02-29T00:00:00"),
        ("0 12 L * *", "2026-11-30T12:00:00"),
        ("*/10 * * * * *", "2026-11-25T00:00:10"),
        *((name, None) for name in NICKNAMES),
    ],
)
def test_rare_ones_are_found(expression: str, first: str | None) -> None:
    """Leap days, the fifth Monday of a February, last days, seconds and nicknames."""
    found = Schedule(expression).after(datetime(2026, 11, 25, tzinfo=UTC).timestamp())

    assert first in (None, datetime.fromtimestamp(found, UTC).isoformat()[:19])


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 30 2 *",
        "0 0 31 4,6,9,11 *",
        "0 0 40 1 *",
        "0 99 30 1 *",
        "61 * * * *",
        "* * *",
        "",
        "@dayly",
        "a b c d e",
        "*/0 * * * *",
    ],
)
def test_what_never_comes_true_is_refused(expression: str) -> None:
    """An impossible day and a text that is no expression are told at once, with the fix."""
    with pytest.raises(ConfigError, match="cron expression"):
        Schedule(expression)


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4,6,9,11 *"])
def test_a_day_that_no_month_of_it_has(expression: str) -> None:
    """It is a day of other months, so what is wrong is said."""
    with pytest.raises(ConfigError, match=r"never comes true: none of its months has a day 3"):
        Schedule(expression)


@pytest.mark.parametrize(
    ("name", "told"),
    [("Europe/Berln", "did you mean 'Europe/Berlin'"), ("../x", "Berlin"), (3, "3")],
)
def test_an_unknown_time_zone_is_refused(name: Any, told: str) -> None:
    """A time zone that does not exist is told at once, with the nearest name."""
    with pytest.raises(ConfigError, match=told):
        Schedule("0 * * * *", name)


def test_the_latest_is_found_without_walking_the_years() -> None:
    """From the epoch on, the last fire before now is found by looking near now."""
    now = datetime(2026, 11, 25, 12, 0, 30, tzinfo=UTC).timestamp()

    assert now - 30 == Schedule("* * * * *").latest(0, now)
    assert datetime(2024, 2, 29, tzinfo=UTC).timestamp() == Schedule("0 0 29 2 *").latest(0, now)
    assert None is Schedule("0 0 29 2 *").latest(now - 86_400, now)


def test_without_the_package_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without cronsim says exactly what to install."""
    import_ = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "cronsim":
            raise ImportError(name)
        return import_(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDriver, match=r'pip install "goose-jobs\[cron\]"'):
        Schedule("0 * * * *")
