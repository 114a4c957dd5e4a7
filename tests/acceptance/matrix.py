"""One function for each kind of argument, and the arguments it is to get.

The client and a real worker both import this module. Each function writes down a picture of
what it received, under its job's id, into the folder that ``PICTURES`` names; `CASES` says what
was sent. A picture shows type and value at every level, so that nothing which is merely equal
passes for the same.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pydantic
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

import goose

F = TypeVar("F", bound=Callable[..., Any])


def picture(value: Any) -> str:
    """Return the type and value of *value*, at every level, the same in every process."""
    kind = type(value).__name__
    if isinstance(value, (set, frozenset)):
        return f"{kind}({', '.join(sorted(map(picture, value)))})"
    if isinstance(value, (list, tuple)):
        return f"{kind}({', '.join(map(picture, value))})"
    if isinstance(value, dict):
        return f"{kind}({', '.join(f'{picture(k)}: {picture(v)}' for k, v in value.items())})"
    if dataclasses.is_dataclass(value) or isinstance(value, pydantic.BaseModel | Money):
        return f"{kind}({', '.join(f'{k}={picture(v)}' for k, v in vars(value).items())})"
    if isinstance(value, datetime):
        return f"{kind}({value.isoformat()})"
    return f"{kind}({value!r})"


def received(*args: Any, **kwargs: Any) -> None:
    """Write down what the running job got."""
    path = Path(os.environ["PICTURES"], goose.current().job.id)
    path.write_text(picture((args, kwargs)))


# --- types of a user's own ---------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Flags(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    when: datetime
    tags: frozenset[str] = frozenset()
    inner: Point | None = None


class Order(pydantic.BaseModel):
    id: uuid.UUID
    price: Decimal
    lines: list[tuple[str, int]]
    place: Point | None = None


class Pair(NamedTuple):
    name: str
    born: date


class Movie(TypedDict):
    title: str
    year: int


class Money:
    """A class that neither Goose nor pydantic knows."""

    def __init__(self, amount: int, currency: str) -> None:
        self.amount = amount
        self.currency = currency

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.amount, self.currency))


goose.register_type(
    Money, encode=lambda money: [money.amount, money.currency], decode=lambda got: Money(*got)
)

Hex = Annotated[
    int,
    pydantic.PlainSerializer(hex),
    pydantic.PlainValidator(lambda got: got if isinstance(got, int) else int(got, 16)),
]


# --- the cases ---------------------------------------------------------------------------

Case = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any], tuple[Any, ...]]
"""A function, what is sent, and what `received` is to get, if that is not the positional ones."""
CASES: dict[str, Case] = {}


def sent(*args: Any, got: tuple[Any, ...] | None = None, **kwargs: Any) -> Callable[[F], F]:
    """Add a case for the function below; *got* is what it notes, by default its arguments."""

    def add(fn: F) -> F:
        expected = (*args, *kwargs.values()) if got is None else got
        number = sum(name.startswith(fn.__name__ + "-") for name in CASES)
        CASES[f"{fn.__name__}-{number}"] = (fn, args, kwargs, expected)
        return fn

    return add


MOMENT = datetime(2031, 3, 30, 2, 30, 0, 123456, UTC)
IDENTITY = uuid.UUID(int=7)
POINT = Point(1, MOMENT, frozenset({"a", "b"}), Point(2, MOMENT))


@sent(None)
@sent({"a": [1, 2.5, "ü\n", None, True, {"b": []}]})
@sent("😀\0")
@sent(2**70)
def untyped(value):  # type: ignore[no-untyped-def]
    received(value)


@sent("text", 3, 2.5, True, None)
@sent("", 0, -0.0, False, None)
@sent("an int for a float", 1, 10**17 + 1, True, None)
def plain(a: str, b: int, c: float, d: bool, e: None) -> None:
    received(a, b, c, d, e)


@sent(MOMENT)
@sent(MOMENT.astimezone(timezone(timedelta(hours=-7, minutes=-30))))
def moment(when: datetime) -> None:
    received(when)


@sent(
    datetime(2031, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")), got=("2031-07-01T12:00:00+02:00",)
)
def zoned(when: datetime) -> None:
    received(when.isoformat())


@sent(date(2024, 2, 29), time(23, 59, 59, 999999), timedelta(days=-1, microseconds=1))
def calendar(day: date, at: time, span: timedelta) -> None:
    received(day, at, span)


@sent(IDENTITY, Decimal("1.10"), Colour.BLUE, Flags.B, Path("/tmp/x"))
def scalars(a: uuid.UUID, b: Decimal, c: Colour, d: Flags, e: Path) -> None:
    received(a, b, c, d, e)


@sent(b"", b"\x00\xff\xfe~")
@sent(bytes(range(256)), b"a")
def binary(a: bytes, b: bytes) -> None:
    received(a, b)


@sent({1, 2}, frozenset({"a"}), (1, "b"), (1, 2, 3), {IDENTITY: {MOMENT}})
@sent(set(), frozenset(), (2, ""), (), {})
def containers(
    a: set[int],
    b: frozenset[str],
    c: tuple[int, str],
    d: tuple[int, ...],
    e: dict[uuid.UUID, set[datetime]],
) -> None:
    received(a, b, c, d, e)


@sent([{"a": ({Decimal(1)}, [b"x", None])}])
def nested(value: list[dict[str, tuple[set[Decimal], list[bytes | None]]]]) -> None:
    received(value)


@sent(POINT, Order(id=IDENTITY, price=Decimal("9.90"), lines=[("a", 1)], place=POINT))
def records(point: Point, order: Order) -> None:
    received(point, order)


@sent(Pair("Ada", date(1815, 12, 10)), {"title": "M", "year": 1931})
def shapes(pair: Pair, movie: Movie) -> None:
    received(pair, movie)


@sent(255, got=(255,))
def annotated(value: Hex) -> None:
    received(value)


@sent(Money(5, "EUR"), [Money(1, "USD")], None)
@sent(Money(5, "EUR"), [], Money(2, "CHF"))
def registered(one: Money, many: list[Money], maybe: Money | None) -> None:
    received(one, many, maybe)


@sent(None, 1, "b", MOMENT)
@sent(2, "two", "a", IDENTITY)
def unions(a: int | None, b: int | str, c: Literal["a", "b"], d: datetime | uuid.UUID) -> None:
    received(a, b, c, d)


@sent(1, got=(1, date(1970, 1, 1), "x"))
@sent(1, z="y", got=(1, date(1970, 1, 1), "y"))
@sent(1, date(2000, 1, 1), z="y", got=(1, date(2000, 1, 1), "y"))
@sent(z="y", y=date(2000, 1, 1), x=3, got=(3, date(2000, 1, 1), "y"))
def defaults(x: int, y: date = date(1970, 1, 1), *, z: str = "x") -> None:
    received(x, y, z)


@sent(1, MOMENT, MOMENT, a=b"1", b=b"2", got=(1, (MOMENT, MOMENT), {"a": b"1", "b": b"2"}))
@sent(1, got=(1, (), {}))
def variadic(first: int, *rest: datetime, **named: bytes) -> None:
    received(first, rest, named)


@sent(1, b=2, a=3, got=(1, 2, {"a": 3}))
def positional_only(a: int, /, *, b: int, **rest: int) -> None:
    received(a, b, rest)


@sent(1, queue="q", timeout=2, retry=3, delay=4, fn=5, got=(1, "q", 2, 3, 4, 5))
def names_of_our_own(a: int, queue: str, timeout: int, retry: int, delay: int, fn: int) -> None:
    """A function's keywords are its own, whatever they are called."""
    received(a, queue, timeout, retry, delay, fn)


@sent(POINT)
async def asynchronous(point: Point) -> None:
    received(point)
