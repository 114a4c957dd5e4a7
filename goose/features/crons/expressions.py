"""A cron expression in a time zone: which instants it means.

The calendar is cronsim's: five fields (or six, with seconds first), names, ranges, steps, ``L``,
``LW`` and ``#``. It is asked only about readings of a clock without a time zone; what these
mean where clocks are turned is decided here:

* **Gap** (clocks go forward): readings that do not exist are one fire, at the first instant after
  the gap. A job at 02:30 runs at 03:00 that day, and so does one at 02:15 and 02:45 both, once.
* **Fold** (clocks go back, readings come twice): an expression whose hour field begins with
  ``*`` fires at both, as it means "every so often"; any other at the first only, as it means
  "at that time of the day".

In UTC neither exists. An expression that has no instant in 50 years is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from goose.errors import ConfigError, MissingDriver
from goose.plugins import nearest

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_NEAR = timedelta(hours=26)
"""No clock was ever turned by more than this."""


class Schedule:
    """The instants of one expression in one time zone. Immutable.

    Args:
        expression: Such as ``*/5 9-17 * * MON-FRI`` or ``@daily``.
        timezone: A name such as ``Europe/Berlin``.

    Raises:
        ConfigError: One of them means nothing, or there is no such instant in 50 years.
        MissingDriver: cronsim is not installed.
    """

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        self.expression = expression
        self.zone = zone(timezone)
        self._make, self._error = _calendar()
        self._fields = NICKNAMES.get(expression.strip().lower(), expression)
        try:
            next(self._make(self._fields, datetime(2000, 1, 1)))  # noqa: DTZ001 - a reading
        except StopIteration:
            raise ConfigError(f"cron expression {expression!r} never comes true") from None
        except self._error as error:
            if "day-of-month" in str(error) and _is_too_late(self._fields.split()[-3:-2]):
                raise ConfigError(
                    f"cron expression {expression!r} never comes true: none of its months has a day "
                    f"{self._fields.split()[-3]}"
                ) from None
            raise ConfigError(
                f"cron expression {expression!r}: {error}; write minute, hour, day of the month, "
                f"month and day of the week, as in '*/5 9-17 * * MON-FRI', or {', '.join(NICKNAMES)}"
            ) from None
        self._every_so_often = self._fields.split()[-4].startswith("*")

    def after(self, instant: float) -> float:
        """Return the first instant after *instant*; both in epoch seconds."""
        here = datetime.fromtimestamp(instant, UTC)
        best: float | None = None
        for reading in self._make(self._fields, self._begin(here)):
            meant = self._instants(reading)
            for candidate in meant:
                if candidate > instant and (best is None or candidate < best):
                    best = candidate
            # Those of later readings are later, but for what comes twice of the earlier ones.
            if meant[0] > instant:
                break
        assert best is not None  # there was one in 50 years, so there is in the next
        return best

    def between(self, first: float, last: float) -> Iterator[float]:
        """Yield the instants from *first* to *last*, both included."""
        instant = self.after(first - 1e-6)
        while instant <= last:
            yield instant
            instant = self.after(instant)

    def latest(self, first: float, last: float) -> float | None:
        """Return the last instant from *first* to *last*, None if there is none there.

        Looks near *last* first, so that years between the two cost nothing.
        """
        span = 60.0
        while True:
            begin = max(first, last - span)
            found: float | None = None
            for found in self.between(begin, last):  # noqa: B007 - the last one is wanted
                pass
            if found is not None or begin <= first:
                return found
            span *= 30

    def _begin(self, here: datetime) -> datetime:
        """Return the reading from which to look for instants after *here*."""
        local = here.astimezone(self.zone)
        offsets = [_offset(here + way, self.zone) for way in (-_NEAR, timedelta(), _NEAR)]
        # Where a fold may be near, readings before ours may come again.
        turned = max(offsets) - min(offsets)
        reading = local.replace(tzinfo=None) - turned
        if here.microsecond == 0 and not turned:
            return reading
        return reading - timedelta(seconds=1)

    def _instants(self, reading: datetime) -> list[float]:
        """Return when the clock shows *reading*: in a gap the end of it, in a fold perhaps twice."""
        first = reading.replace(tzinfo=self.zone)
        second = first.replace(fold=1)
        before, after = first.utcoffset(), second.utcoffset()
        assert before is not None
        assert after is not None
        if before == after:
            return [first.timestamp()]
        if before < after:
            return [self._end_of_gap(reading, before, after)]
        if self._every_so_often:
            return [first.timestamp(), second.timestamp()]
        return [first.timestamp()]

    def _end_of_gap(self, reading: datetime, before: timedelta, after: timedelta) -> float:
        """Return the first instant after the gap that *reading* is in, by halving."""
        naive = reading.replace(tzinfo=UTC)
        low, high = (naive - after).timestamp(), (naive - before).timestamp()
        while high - low > 1:
            middle = float((low + high) // 2)
            if _offset(datetime.fromtimestamp(middle, UTC), self.zone) == before:
                low = middle
            else:
                high = middle
        return high


def zone(name: str) -> tzinfo:
    """Return the time zone of that name.

    Raises:
        ConfigError: There is none.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError, AttributeError):
        from zoneinfo import available_timezones

        known = available_timezones()
        hint = nearest(name, known) if isinstance(name, str) else ""
        missing = (
            "" if known else '; this machine has no time zones: pip install "goose-jobs[cron]"'
        )
        raise ConfigError(
            f"timezone {name!r} is not known{hint}{missing}; write for example Europe/Berlin"
        ) from None


def _offset(here: datetime, where: tzinfo) -> timedelta:
    offset = here.astimezone(where).utcoffset()
    assert offset is not None
    return offset


def _is_too_late(days: list[str]) -> bool:
    """Say whether *days*, which the calendar refuses, would be a day in another month."""
    return bool(days) and days[0].isdecimal() and 29 <= int(days[0]) <= 31


def _calendar() -> tuple[Any, type[Exception]]:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError as error:
        raise MissingDriver(
            'cron needs the package cronsim, which is not installed: pip install "goose-jobs[cron]"'
        ) from error
    return CronSim, CronSimError
