"""Cron's instants by brute force, to compare schedules with, around every turn of every clock.

``make cron`` compares all of it: 50 expressions, each transition of each time zone from 1970 to
2037. Where clocks of several zones are turned alike for days, one of them stands for all: a schedule
asks a zone only how far its clocks are off. The tests compare a part, chosen by chance.

The reference looks at every minute that a clock on the wall shows around a transition, or leaves
out, and knows nothing of how `Schedule` finds its instants: neither its calendar nor its zones.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from goose.features.crons.expressions import Schedule

EXPRESSIONS = (
    *("* * * * *", "*/2 * * * *", "*/7 * * * *", "*/15 * * * *", "*/20 * * * *", "*/45 * * * *"),
    *(
        "0 * * * *",
        "30 * * * *",
        "59 * * * *",
        "5,25,45 * * * *",
        "0-10 * * * *",
        "10-50/10 * * * *",
    ),
    *(
        "0 */2 * * *",
        "30 */2 * * *",
        "0 */3 * * *",
        "15 */6 * * *",
        "0 */12 * * *",
        "0,30 */5 * * *",
    ),
    *(
        "0 0 * * *",
        "30 0 * * *",
        "0 1 * * *",
        "30 1 * * *",
        "0 2 * * *",
        "15 2 * * *",
        "30 2 * * *",
    ),
    *("59 2 * * *", "0 3 * * *", "30 3 * * *", "0 12 * * *", "59 23 * * *", "30 23 * * *"),
    *("*/15 1-3 * * *", "*/10 2 * * *", "0 0-6 * * *", "0 9-17 * * MON-FRI", "0 22-23 * * *"),
    *("45 23,0,1 * * SAT,SUN", "30 2 * * SUN", "30 1,2,3 * * 0", "0 0 * * 0,6", "0 2 * * MON"),
    *("0 0 1 * *", "30 2 1,15 * *", "0 3 28-31 3,10 *", "*/30 * 25-31 MAR,OCT *", "30 2 31 * *"),
    *("0 2 * 3,4,9,10,11 *", "0 0 1 1 *", "30 2 13 * FRI", "*/20 * 1-7 * SUN"),
)
AROUND = 3 * 3600
"""Seconds on both sides of a transition that are compared."""
STEP = 6 * 3600
"""Seconds between two looks for a transition: no clock was ever turned twice within them."""
BEGIN, END = 0, 2_145_916_800
"""1970 to the end of 2037."""
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
NAMES = {
    name: number
    for names, first in ((WEEKDAYS, 0), (MONTHS, 1))
    for number, name in enumerate(names, first)
}
LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


class Fields(NamedTuple):
    """What an expression wants of a reading."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    """Whether one of the two kinds of day is enough, since both are said."""
    both: bool
    """Whether a reading that comes twice counts twice."""

    def match(self, reading: datetime) -> bool:
        """Whether it fires when a clock shows that."""
        if reading.minute not in self.minutes or reading.hour not in self.hours:
            return False
        if reading.month not in self.months or reading.second:
            return False
        day, weekday = reading.day in self.days, reading.isoweekday() % 7 in self.weekdays
        return (day or weekday) if self.either else (day and weekday)


@functools.cache
def fields(expression: str) -> Fields:
    """Return what *expression* says: numbers, names, ranges, steps and lists."""
    texts = expression.split()
    sets = [
        frozenset(number for part in text.split(",") for number in _numbers(part, *limits))
        for text, limits in zip(texts, LIMITS, strict=True)
    ]
    either = not texts[2].startswith("*") and not texts[4].startswith("*")
    return Fields(*sets, either, texts[1].startswith("*"))


def _numbers(part: str, low: int, high: int) -> Iterable[int]:
    span, _, step = part.partition("/")
    first, _, last = span.partition("-")
    if span == "*":
        return range(low, high + 1, int(step or 1))
    begin = NAMES[first] if first in NAMES else int(first)
    end = begin if not last else NAMES[last] if last in NAMES else int(last)
    return range(begin, end + 1, int(step or 1))


@functools.cache
def transitions(name: str) -> tuple[int, ...]:
    """Return the instants from 1970 to 2037 at which clocks are turned there."""
    zone, found = ZoneInfo(name), []

    def offset(instant: int) -> timedelta | None:
        return datetime.fromtimestamp(instant, zone).utcoffset()

    before = offset(BEGIN)
    for begin in range(BEGIN, END, STEP):
        low, high = begin, begin + STEP
        after = offset(high)
        if before != after:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            found.append(high)
        before = after
    return tuple(found)


class Minutes(NamedTuple):
    """What clocks of one zone show around the instant *turned*."""

    turned: int
    left_out: Sequence[datetime]
    shown: Sequence[tuple[int, datetime]]


def minutes(name: str, turned: int) -> Minutes:
    """Return every whole minute around *turned* that clocks show, or leave out."""
    zone = ZoneInfo(name)
    before = datetime.fromtimestamp(turned - 1, zone)
    after = datetime.fromtimestamp(turned, zone)
    left_out = []
    reading = before.replace(tzinfo=None) + timedelta(seconds=1)
    while reading < after.replace(tzinfo=None):
        left_out.append(reading)
        reading += timedelta(seconds=60 - reading.second)
    # Offsets may have seconds, so whole minutes of the clock begin at others of ours.
    shown = []
    for side, clock in (
        (range(turned - AROUND, turned), before),
        (range(turned, turned + AROUND), after),
    ):
        offset = clock.utcoffset()
        assert offset is not None
        first = side.start + int(-(side.start + offset.total_seconds()) % 60)
        shown += [
            (instant, datetime.fromtimestamp(instant, zone))
            for instant in range(first, side.stop, 60)
        ]
    return Minutes(turned, left_out, shown)


def brute_force(around: Minutes, expression: str) -> list[int]:
    """Return the fires of *expression* around a transition."""
    wanted = fields(expression)
    fires = {around.turned} if any(map(wanted.match, around.left_out)) else set()
    for instant, reading in around.shown:
        if wanted.match(reading) and (wanted.both or not reading.fold):
            fires.add(instant)
    return sorted(fires)


def compare(name: str, turned: Iterable[int], expressions: Sequence[str] = EXPRESSIONS) -> int:
    """Compare schedules of *expressions* around *turned* with the brute force; return how many.

    Raises:
        AssertionError: They differ; says where.
    """
    compared = 0
    schedules = {expression: Schedule(expression, name) for expression in expressions}
    for instant in turned:
        around = minutes(name, instant)
        for expression, schedule in schedules.items():
            expected = brute_force(around, expression)
            between = schedule.between(instant - AROUND, instant + AROUND - 1)
            found = [int(each) for each in between]
            when = datetime.fromtimestamp(instant, UTC)
            assert expected == found, f"{expression} in {name} around {when}"
            compared += 1
    return compared


def alike(name: str, turned: int) -> tuple[object, ...]:
    """Return what decides all that a schedule says around *turned*: how clocks are off then."""
    zone, near = ZoneInfo(name), 4 * 86_400
    steps = [each for each in transitions(name) if abs(each - turned) < near]
    begin = datetime.fromtimestamp(turned - near, zone).utcoffset()
    return (turned, begin, *((s, datetime.fromtimestamp(s, zone).utcoffset()) for s in steps))


def _turns(name: str) -> list[tuple[object, str, int]]:
    return [(alike(name, turned), name, turned) for turned in transitions(name)]


def _compare(turn: tuple[object, str, int]) -> int:
    _, name, turned = turn
    return compare(name, [turned])


def main() -> None:
    """Compare everything; the arguments ``PART PARTS`` compare a part of it."""
    part, parts = map(int, sys.argv[1:] or ("1", "1"))
    began = time.monotonic()
    names = sorted(available_timezones())
    compared = 0
    with multiprocessing.Pool() as pool:
        turns = [turn for some in pool.imap(_turns, names) for turn in some]
        distinct = [*{turn[0]: turn for turn in turns}.values()]
        print(f"{len(names)} zones, {len(turns):,} transitions, {len(distinct):,} of them distinct")
        mine = distinct[part - 1 :: parts]
        for done, pairs in enumerate(pool.imap_unordered(_compare, mine, chunksize=4), 1):
            compared += pairs
            if done % 500 == 0 or done == len(mine):
                seconds = time.monotonic() - began
                print(f"{done:,} of {len(mine):,}: {compared:,} agree, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
