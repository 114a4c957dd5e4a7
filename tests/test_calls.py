"""Functions as names, arguments as JSON that comes back equal, and what a worker offers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import functools
import inspect
import math
import subprocess
import sys
import threading
import typing
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import goose.calls
from goose._values import registered, show
from goose.calls import (
    Call,
    Function,
    Offer,
    call,
    encode_arguments,
    name_of,
    register_type,
)
from goose.errors import (
    ArgumentError,
    ConfigError,
    FunctionError,
    SignatureMismatch,
    UnknownFunction,
)
from goose.jobs import Envelope, Job, decode, encode, new_id

if typing.TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]

ME = __name__


# --- what travels ------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: Decimal
    raw: bytes = b""
    near: Point | None = None


@dataclasses.dataclass
class Cached:
    x: int
    seen: dict[str, int] = dataclasses.field(default_factory=dict, init=False, compare=False)


class Order(pydantic.BaseModel):
    id: uuid.UUID
    when: datetime
    tags: set[str] = set()
    place: Point | None = None


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    size: int = pydantic.Field(alias="theSize")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.size


class Spot(typing.NamedTuple):
    x: int
    raw: bytes


class Money:
    def __init__(self, pence: int) -> None:
        self.pence = pence

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and self.pence == other.pence

    __hash__ = None  # type: ignore[assignment]


class Temperature:
    def __init__(self, kelvin: float) -> None:
        self.kelvin = kelvin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Temperature) and self.kelvin == other.kelvin

    __hash__ = None  # type: ignore[assignment]


Kelvin = typing.Annotated[
    Temperature,
    pydantic.PlainValidator(Temperature),
    pydantic.PlainSerializer(lambda value: value.kelvin),
]
UserId = typing.NewType("UserId", int)


def plain(value): ...  # type: ignore[no-untyped-def]
def anything(value: typing.Any) -> None: ...
def text(value: str) -> None: ...
def whole(value: int) -> None: ...
def real(value: float) -> None: ...


def reals(values: list[float]) -> None: ...
def flag(value: bool) -> None: ...
def maybe(value: str | None) -> None: ...
def number(value: int | float) -> None: ...  # noqa: PYI041 - here they differ
def literal(value: typing.Literal["a", 1]) -> None: ...
def user(value: UserId) -> None: ...
def texts(value: list[str]) -> None: ...
def table(value: dict[str, list[int]]) -> None: ...
def any_list(value: list) -> None: ...  # type: ignore[type-arg]
def moment(value: datetime) -> None: ...
def moments(value: list[datetime]) -> None: ...
def day(value: date) -> None: ...
def clock(value: time) -> None: ...
def span(value: timedelta) -> None: ...
def ident(value: uuid.UUID) -> None: ...
def money(value: Decimal) -> None: ...
def colour(value: Colour) -> None: ...
def level(value: Level) -> None: ...
def point(value: Point) -> None: ...
def points(value: dict[uuid.UUID, tuple[Point, ...]]) -> None: ...
def cached(value: Cached) -> None: ...
def order(value: Order) -> None: ...
def aliased(value: Aliased) -> None: ...
def spot(value: Spot) -> None: ...
def raw(value: bytes) -> None: ...
def maybe_raw(value: bytes | None) -> None: ...
def some(value: set[int]) -> None: ...
def frozen(value: frozenset[str]) -> None: ...
def pair(value: tuple[int, str]) -> None: ...
def by_int(value: dict[int, str]) -> None: ...
def path(value: Path) -> None: ...
def kelvin(value: Kelvin) -> None: ...
def positive(value: typing.Annotated[int, pydantic.Field(gt=0)]) -> None: ...
def untaught(value: Temperature) -> None: ...
def pounds(value: Money) -> None: ...
def purse(value: dict[str, list[Money] | None]) -> None: ...
def mixed(a: int, /, b: str, *rest: uuid.UUID, key: date, **more: Decimal) -> None: ...
def optional(a: int, b: str = "", *, c: float = 0.0) -> None: ...
def unresolvable(value: Unknown) -> None: ...
def unresolvable_result(value: int) -> Unknown: ...


def subjects(to: str = "", *, subject: str = "") -> None: ...


class Extras(typing.TypedDict, total=False):
    when: date
    size: typing.Required[int]


class Torn(typing.TypedDict):
    value: Unknown


def torn(**options: typing.Unpack[Torn]) -> None: ...
def unpacked(**options: typing.Unpack[Extras]) -> None: ...


def travel(fn: Callable[..., object], *args: object, **kwargs: object) -> tuple[object, object]:
    """Send arguments all the way: to JSON, to bytes, through a worker's eyes, and back."""
    job = Job[None](new_id(), name_of(fn), *encode_arguments(fn, args, kwargs))
    back = decode(Envelope(job.id, job.queue, encode(job)))
    return Function(back.fn, fn).decode(back.args, back.kwargs)


def label(value: object) -> str:
    """Name a parameter of a test."""
    if type(value) is object:  # its address is another in each process
        return "object"
    return getattr(value, "__name__", None) or show(value)[:30]


SOME_ID = uuid.UUID("0192d3f0-1c2e-4c1f-9d67-2f6a9b4e7a11")
"""Names of tests hold it, and must be the same in every process."""


ROUND_TRIPS: list[tuple[Callable[..., object], object]] = [
    (plain, "é\0"),
    (plain, None),
    (plain, -0.0),
    (plain, [1, 2.5, {"a": [True, None]}]),
    (anything, {"k": []}),
    (text, "𝄞"),
    (whole, -(10**300)),
    (real, 1.0),
    (flag, True),
    (maybe, None),
    (maybe, "x"),
    (number, 1),
    (number, 1.0),
    (literal, 1),
    (literal, "a"),
    (user, 7),
    (texts, ["a", "é"]),
    (table, {"a": [1], "b": []}),
    (any_list, [1, "a"]),
    (moment, datetime(2024, 2, 29, 12, 0, 0, 7, tzinfo=UTC)),
    (moment, datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-5, minutes=-30)))),
    (moments, [datetime.now(UTC)]),
    (day, date(2024, 2, 29)),
    (clock, time(1, 2, 3, 4)),
    (span, timedelta(days=-1, microseconds=7)),
    (ident, SOME_ID),
    (money, Decimal("1.10")),
    (colour, Colour.BLUE),
    (level, Level.LOW),
    (point, Point(1, Decimal(2), b"\xff", Point(0, Decimal(0)))),
    (points, {SOME_ID: (Point(1, Decimal(1)),)}),
    (cached, Cached(1)),
    (order, Order(id=SOME_ID, when=datetime.now(UTC), tags={"a"}, place=Point(1, Decimal(1)))),
    (aliased, Aliased(theSize=3)),
    (spot, Spot(1, b"\x80")),
    (raw, bytes(range(256))),
    (maybe_raw, None),
    (some, {1, 2}),
    (frozen, frozenset("a")),
    (pair, (1, "a")),
    (by_int, {1: "a"}),
    (path, Path("/tmp/x")),
    (kelvin, Temperature(1.5)),
    (positive, 1),
]


@pytest.mark.parametrize(("fn", "value"), ROUND_TRIPS, ids=label)
def test_a_value_comes_back_equal_and_of_its_type(fn: Callable[..., object], value: object) -> None:
    """What was enqueued is what the function gets, given by place or by name."""
    (positional,), _ = travel(fn, value)  # type: ignore[misc]
    _, named = travel(fn, value=value)

    assert value == positional
    assert type(value) is type(positional)
    assert {"value": value} == named
    assert repr(value) == repr(positional) or "tzinfo" in repr(value) or "object at" in repr(value)


NAIVE = datetime(2024, 1, 1)  # noqa: DTZ001 - what is to be refused


class Nonsense:
    """What cannot be stored, and is called the same in every process."""

    def __repr__(self) -> str:
        return "nonsense"


NONSENSE = Nonsense()

REFUSED: list[tuple[Callable[..., object], object, str]] = [
    (plain, (1, 2), "would come back as list"),
    (plain, [1, {"a": (1,)}], "(1,) is tuple and would come back as list"),
    (plain, {1: "a"}, "the key 1 is int and would come back as text"),
    (plain, math.nan, "nan is not a JSON number"),
    (plain, [math.inf], "inf is not a JSON number"),
    (plain, "\ud800", "lone surrogate"),
    (plain, {"\ud800": 1}, "lone surrogate"),
    (plain, datetime.now(UTC), "annotate the parameter with the value's type"),
    (plain, b"a", "not annotated; bytes is not JSON"),
    (plain, Level.LOW, "Level is not JSON"),
    (plain, {1, 2}, "set is not JSON"),
    (plain, object(), "object is not JSON"),
    (plain, 10**5000, "integer of 16,610 bits"),
    (anything, date(2024, 1, 1), "annotated as Any; date is not JSON"),
    (text, 1, "valid string"),
    (text, "\udfff", "surrogate"),
    (text, b"a", "b'a' (bytes) would come back as"),
    (whole, True, "True (bool) would come back as 1 (int); pass that"),
    (whole, "1", "valid integer"),
    (whole, 1.0, "valid integer"),
    (whole, Level.LOW, "(Level) would come back as 1 (int)"),
    (real, True, "True (bool) would come back as 1.0 (float)"),
    (real, "1", "valid number"),
    (real, math.nan, "nan is not a JSON number"),
    (flag, 1, "valid boolean"),
    (maybe, 1, "valid string"),
    (literal, "b", "'a' or 1"),
    (literal, True, "True (bool) would come back as 1 (int)"),
    (texts, ("a",), "('a',) (tuple) would come back as ['a'] (list)"),
    (texts, ["a", 1], "[1]"),
    (table, {"a": [True]}, "True (bool) would come back as 1 (int)"),
    (moment, NAIVE, "has no time zone; use an aware datetime"),
    (moments, [NAIVE], "has no time zone"),
    (order, Order(id=SOME_ID, when=NAIVE), "has no time zone"),
    (moment, date(2024, 1, 1), "datetime"),
    (day, datetime.now(UTC), "date"),
    (ident, str(SOME_ID), "would come back as UUID("),
    (money, Decimal("NaN"), "finite"),
    (money, 1.5, "(float) would come back as Decimal('1.5') (Decimal)"),
    (colour, "red", "would come back as <Colour.RED: 'red'>"),
    (point, {"x": 1, "y": 2}, "(dict) would come back as Point("),
    (point, Point("a", Decimal(1)), "valid integer"),  # type: ignore[arg-type]
    (some, [1], "[1] (list) would come back as {1} (set)"),
    (some, {True}, "True (bool) would come back as 1 (int)"),
    (pair, (1, 2), "valid string"),
    (by_int, {"1": "a"}, "'1' (str) would come back as 1 (int)"),
    (positive, 0, "greater than 0"),
    (
        text,
        object(),
        "annotated as str; object cannot be stored as JSON: pass an id or a plain value",
    ),
    (texts, ["a", NONSENSE], "annotated as list[str]; Nonsense cannot be stored as JSON"),
    (untaught, Temperature(1), "register_type"),
]


@pytest.mark.parametrize(("fn", "value", "why"), REFUSED, ids=label)
def test_a_value_that_would_change_is_refused(
    fn: Callable[..., object], value: object, why: str
) -> None:
    """The error is also a TypeError, and names function, argument, value and what is wrong."""
    with pytest.raises(ArgumentError) as caught:
        encode_arguments(fn, (value,), {})

    message = str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert message.startswith(f"{ME}:{fn.__name__}: argument value = ")
    assert why in message
    assert message.encode()
    assert caught.value.__cause__ is None, "one short traceback"
    assert caught.value.__suppress_context__


def test_a_value_that_contains_itself_is_refused() -> None:
    """No stack runs out, with or without an annotation."""
    endless: list[object] = []
    endless.append(endless)

    for fn in (plain, any_list):
        with pytest.raises(ArgumentError):
            encode_arguments(fn, (endless,), {})


def test_a_repr_that_raises_does_not_hide_the_error() -> None:
    """The error about an argument comes even from values that cannot be shown."""

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(ArgumentError, match="whose repr raises RuntimeError"):
        encode_arguments(plain, (Shy(),), {})


def test_a_time_that_a_clock_change_repeats_travels() -> None:
    """An ambiguous local time is refused by ``==`` between zones, but names one instant."""
    twice = datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=1)

    (back,), _ = travel(moment, twice)  # type: ignore[misc]

    assert twice.timestamp() == back.timestamp()  # type: ignore[has-type]


def test_containers_are_copied() -> None:
    """A list changed after the call does not change the job, on either road."""
    for fn in (plain, texts, any_list):
        value = ["a", "b"]
        (stored,), _ = encode_arguments(fn, (value,), {})
        value.append("c")

        assert ["a", "b"] == stored


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
        max_leaves=10,
    )
)
def test_plain_values_come_back_or_are_refused(value: object) -> None:
    """Whatever is accepted without an annotation comes back to the letter."""
    try:
        (back,), _ = travel(plain, value)  # type: ignore[misc]
    except ArgumentError:
        assert any(word in repr(value) for word in ("(", "inf"))
    else:
        assert repr(value) == repr(back)  # type: ignore[has-type]


# --- signatures --------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from([0, 1]), max_size=4),
    st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.just(0), max_size=4),
)
def test_arguments_bind_as_python_binds_them(args: list[int], kwargs: dict[str, int]) -> None:
    """For every shape of signature, what Python would call is taken and the rest refused."""
    for fn in SHAPES:
        try:
            fn(*args, **kwargs)
        except TypeError:
            with pytest.raises(ArgumentError):
                encode_arguments(fn, tuple(args), kwargs)
            with pytest.raises(SignatureMismatch):
                Function("m:f", fn).decode(tuple(args), kwargs)
        else:
            assert (tuple(args), kwargs) == encode_arguments(fn, tuple(args), kwargs)
            assert (tuple(args), kwargs) == Function("m:f", fn).decode(tuple(args), kwargs)


def s0(): ...  # type: ignore[no-untyped-def]
def s1(a, b): ...  # type: ignore[no-untyped-def]
def s2(a, b=0): ...  # type: ignore[no-untyped-def]
def s3(a, /, b, *, c): ...  # type: ignore[no-untyped-def]
def s4(a, /, b=0, *, c=0): ...  # type: ignore[no-untyped-def]
def s5(a, *b, c): ...  # type: ignore[no-untyped-def]
def s6(a, **b): ...  # type: ignore[no-untyped-def]
def s7(a, /, **b): ...  # type: ignore[no-untyped-def]
def s8(*a, **b): ...  # type: ignore[no-untyped-def]
def s9(*, c, d=0): ...  # type: ignore[no-untyped-def]
def s10(a=0, b=0, /): ...  # type: ignore[no-untyped-def]


SHAPES: list[Callable[..., object]] = [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10]


def test_every_kind_of_parameter_has_its_annotation() -> None:
    """``*rest`` and ``**more`` travel by their annotation like named parameters."""
    one, two = uuid.uuid4(), uuid.uuid4()

    args, kwargs = travel(mixed, 1, "b", one, two, key=date(2024, 1, 1), extra=Decimal(1))

    assert (1, "b", one, two) == args
    assert {"key": date(2024, 1, 1), "extra": Decimal(1)} == kwargs


def test_unpacked_keywords_travel_by_their_own_annotations() -> None:
    """``**options: Unpack[SomeTypedDict]`` reads each keyword by the dictionary's entry."""
    _, kwargs = travel(unpacked, when=date(2024, 1, 1), size=1)

    assert {"when": date(2024, 1, 1), "size": 1} == kwargs


def test_a_surrogate_in_a_keyword_is_refused() -> None:
    """A name for ``**more`` that UTF-8 cannot carry is refused like a value."""
    with pytest.raises(ArgumentError, match="surrogate"):
        encode_arguments(s8, (), {"\ud800": 1})


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, "b", 0.0), {}, "too many positional arguments"),
        ((1,), {"d": 1}, "unexpected keyword argument 'd'"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
    ],
)
def test_wrong_arguments_are_named(
    args: tuple[object, ...], kwargs: dict[str, object], why: str
) -> None:
    """Missing, superfluous and doubled arguments are refused where the call is written."""
    with pytest.raises(ArgumentError, match=why) as caught:
        encode_arguments(optional, args, kwargs)

    assert f"{ME}:optional: " in str(caught.value)
    assert "signature is (a: 'int', b: 'str' = ''" in str(caught.value)


@pytest.mark.parametrize(
    ("fn", "kwargs", "hint"),
    [
        (subjects, {"subjct": 1}, "for 'subjct', did you mean 'subject'?"),
        (subjects, {"subject": 1, "queue": "x"}, r"goose.using\(queue=…\).enqueue"),
    ],
)
def test_a_keyword_that_was_meant_otherwise(
    fn: typing.Any, kwargs: dict[str, typing.Any], hint: str
) -> None:
    """A misspelt keyword gets the nearest there is, an option the place where options go."""
    with pytest.raises(ArgumentError, match=hint):
        encode_arguments(fn, (), kwargs)


def test_an_annotation_that_cannot_be_resolved_is_refused() -> None:
    """It names the function, the parameter, the annotation and the way out, even for plain values."""
    with pytest.raises(ArgumentError, match="TYPE_CHECKING") as caught:
        encode_arguments(unresolvable, (1,), {})

    assert f"{ME}:unresolvable: the annotation 'Unknown' of 'value'" in str(caught.value)
    with pytest.raises(ArgumentError, match="an annotation in Torn cannot be resolved"):
        encode_arguments(torn, (), {})
    with pytest.raises(SignatureMismatch, match="TYPE_CHECKING"):
        Function("m:f", unresolvable).decode((1,), {})


def test_an_annotation_of_the_result_is_not_looked_at() -> None:
    """Only what parameters say matters for arguments."""
    assert ((1,), {}) == encode_arguments(unresolvable_result, (1,), {})


def test_a_registered_type_travels_inside_generics() -> None:
    """`register_type` works at once, also for a function that was refused before."""
    with pytest.raises(ArgumentError, match="register_type"):
        encode_arguments(pounds, (Money(5),), {})
    register_type(Money, encode=lambda value: [value.pence], decode=lambda found: Money(*found))
    try:
        assert (([5],), {}) == encode_arguments(pounds, (Money(5),), {})
        (back,), _ = travel(purse, {"a": [Money(1)], "b": None})  # type: ignore[misc]
        assert {"a": [Money(1)], "b": None} == back  # type: ignore[has-type]
    finally:
        del registered[Money]
        goose.calls.plans.clear()


def test_a_registration_takes_the_place_of_pydantics_own_form() -> None:
    """Also for a function that was called before; what was made from its annotations is forgotten."""
    where = Path("/tmp")
    assert (("/tmp",), {}) == encode_arguments(path, (where,), {})

    register_type(Path, encode=lambda value: [str(value)], decode=lambda found: Path(*found))
    try:
        assert ((["/tmp"],), {}) == encode_arguments(path, (where,), {})
    finally:
        del registered[Path]
        goose.calls.plans.clear()


def test_what_a_class_does_not_compare_may_be_lost() -> None:
    """A dataclass field outside of constructor and comparison is the class's own affair."""
    value = Cached(1)
    value.seen["a"] = 1

    (back,), _ = travel(cached, value)  # type: ignore[misc]

    assert value == back  # type: ignore[has-type]


def test_only_classes_can_be_registered() -> None:
    """Anything else is a mistake told at once, and so is a type that is JSON already."""
    with pytest.raises(ConfigError, match="takes a class"):
        register_type(list[int], encode=list, decode=list)
    with pytest.raises(ConfigError, match="values of str travel as they are"):
        register_type(str, encode=str, decode=str)


def test_stored_arguments_of_another_version_are_a_mismatch() -> None:
    """The error names the parameter but not the value, which may be a secret."""
    function = Function("m:ident", ident)

    for args in (("hunter2",), (), ("a", "b"), (["hunter2"],)):
        with pytest.raises(SignatureMismatch) as caught:
            function.decode(args, {})  # type: ignore[arg-type]

        assert "m:ident" in str(caught.value)
        assert "hunter2" not in str(caught.value)
        assert "new parameters with a default" in str(caught.value)


def test_an_integer_is_a_float_for_type_checkers_and_stays_an_integer() -> None:
    """Where a float is asked for, 1 and 10**18 + 1 go and come back as they are, in lists too."""
    function = Function("m:real", real)
    for value in (1, 10**18 + 1, -0.0):
        (back,), _ = function.decode(*encode_arguments(real, (value,), {}))

        assert repr(value) == repr(back)
    assert "[1, 2.5]" == repr(encode_arguments(reals, ([1, 2.5],), {})[0][0])


def test_many_threads_may_make_the_first_call() -> None:
    """Plans and codecs are made without a lock, and all callers get the same answer."""
    when = datetime.now(UTC)
    goose.calls.plans.pop(moments, None)
    start = threading.Barrier(8)
    results: list[object] = []

    def encode_one() -> None:
        start.wait()
        results.append(encode_arguments(moments, ([when],), {}))

    threads = [threading.Thread(target=encode_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [results[0]] * 8 == results


def test_plain_arguments_need_no_pydantic() -> None:
    """A process that only sends and reads plain values never pays for the import."""
    code = """
import sys, goose.calls as c, goose.retries
from tests_of_goose import f
assert ((1, "a"), {"c": [None]}) == c.encode_arguments(f, (1, "a"), {"c": [None]})
assert ((1, "a"), {"c": [None]}) == c.Function("tests_of_goose:f", f).decode((1, "a"), {"c": [None]})
assert "pydantic" not in sys.modules
"""
    Path("tests_of_goose.py").write_text(
        "def f(a: int, b: str, *, c: list[str | None] | None = None): ..."
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


# --- names -------------------------------------------------------------------------------


def decorate(fn: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(fn)
    def wrapper(*args: object, **kwargs: object) -> object:
        return fn(*args, **kwargs)

    return wrapper


@decorate
@decorate
def decorated(value: int) -> int:
    return value + 1


@functools.lru_cache
def memoised(value: int) -> int:
    return value


class Holder:
    def method(self) -> None: ...
    @staticmethod
    def static() -> None: ...
    def __call__(self) -> None: ...


def generator() -> Iterator[int]:
    yield 1


@contextmanager
def manager() -> Iterator[None]:
    yield


def original() -> None: ...


renamed = original


def shadowed() -> None: ...


first_shadowed = shadowed


def shadowed() -> None: ...  # type: ignore[no-redef]


def test_a_function_is_named_by_module_and_name() -> None:
    """Decorators and other names in the module make no difference."""
    assert f"{ME}:text" == name_of(text)
    assert f"{ME}:decorated" == name_of(decorated)
    assert f"{ME}:memoised" == name_of(memoised)
    assert f"{ME}:original" == name_of(renamed)


@pytest.mark.parametrize(
    ("fn", "why"),
    [
        (lambda: None, r"<lambda> \(.*test_calls\.py:\d+\) is a lambda"),
        (decorate(lambda: None), "is a lambda"),
        (functools.partial(text, "a"), "is a partial"),
        (Holder().method, r"Holder\.method \(.*test_calls\.py:\d+\) is a method"),
        (Holder.method, "inside a class"),
        (Holder.static, "inside a class"),
        (Holder(), "is a Holder, not a function"),
        (Holder, "is a class"),
        (len, "is a builtin"),
        ([].append, "is a builtin"),
        (str.upper, "not a function"),
        (generator, "is a generator"),
        (manager, "is a generator"),
        (first_shadowed, "not the function given"),
        (None, "is not a function; if you called one"),
        ("app:send", "not a function"),
        ([], "not a function"),
    ],
)
def test_what_no_worker_could_find_is_refused(fn: object, why: str) -> None:
    """The error says what was given and what to write instead."""

    def nested() -> None: ...

    with pytest.raises(FunctionError, match=why):
        name_of(fn)  # type: ignore[arg-type]
    with pytest.raises(FunctionError, match=why):
        encode_arguments(fn, (), {})  # type: ignore[arg-type]
    with pytest.raises(FunctionError, match="inside another function"):
        name_of(nested)


def test_main_has_its_real_name_when_there_is_one(importable: Path) -> None:
    """``python -m`` gives a script a module name; without it the error says how to get one."""
    package = importable / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "script.py").write_text(
        "from goose.calls import name_of\ndef f(): ...\nprint(name_of(f))"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=50
        )

    as_module, as_script = run("-m", "pack.script"), run("pack/script.py")
    assert "pack.script:f\n" == as_module.stdout
    assert "f is defined in a script, which no worker can import" in as_script.stderr
    assert "python -m package.module" in as_script.stderr


def test_a_call_is_a_value() -> None:
    """`call` keeps function and arguments, whatever their names, and checks nothing yet."""
    assert Call(text, ("a",), {"fn": 1}) == call(text, "a", fn=1)  # type: ignore[call-arg]


# --- offers ------------------------------------------------------------------------------


@pytest.fixture
def app(importable: Path) -> Path:
    """A package with a submodule, a nested package, and a program that must not run."""
    package = importable / "app"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from shutil import rmtree\nimport os\nfrom app.mail import send as resend\nhidden = len\n"
        "def run(x: int): return x\n"
    )
    (package / "mail.py").write_text(
        """
import functools
def plain(fn):
    @functools.wraps(fn)
    def wrapper(*a): return fn(*a)
    return wrapper
def send(to: str) -> None: ...
alias = send
def _private(): ...
def __getattr__(name): raise AttributeError if name.startswith("__") else SystemExit(name)
def make():
    def inner(): ...
    return inner
made = make()
shout = lambda: None
def generate(): yield
class Box:
    def method(self): ...
    def __call__(self): ...
box = Box()
class Proxy:
    @property
    def __dict__(self): raise RuntimeError("outside of a context")
proxy = Proxy()
@plain
async def later(): return 7
async def soon(): return 8
@plain
def twice(x: int): return 2 * x
"""
    )
    (package / "__main__.py").write_text("raise SystemExit('this is a program')")
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "down.py").write_text("def dig(): ...")
    (importable / "other.py").write_text("def f(): ...")
    return importable


@pytest.fixture
def offer(app: Path) -> Offer:
    """The package, loaded."""
    offer = Offer(["app"])
    offer.load()
    return offer


def test_an_offer_holds_the_functions_of_its_modules(offer: Offer) -> None:
    """Packages are offered with their submodules, and a function is looked up once."""
    names = ["app:run", "app.mail:send", "app.mail:_private", "app.mail:twice", "app.deep.down:dig"]

    assert names == [offer.resolve(name).name for name in names]
    assert offer.resolve("app:run") is offer.resolve("app:run")
    assert 6 == offer.resolve("app.mail:twice").fn(3)
    assert 6 == offer.resolve_callable("app.mail:twice")(3)
    assert ((3,), {}) == offer.resolve("app.mail:twice").decode((3,), {})


def test_an_offer_lists_its_functions(offer: Offer) -> None:
    """Exactly those that answer to a name, each once."""
    found = offer.functions()
    names = [function.name for function in found]

    assert {"app:run", "app.mail:send", "app.mail:later", "app.deep.down:dig"} <= set(names)
    assert len(set(names)) == len(names)
    assert not {"app.mail:alias", "app.mail:generate", "app.mail:box", "app:os"} & set(names)
    assert found == [offer.resolve(name) for name in names]


def test_async_functions_are_known_as_such(offer: Offer) -> None:
    """Also under a plain decorator, where the coroutine would otherwise never be awaited."""
    assert not offer.resolve("app.mail:send").is_async
    for name, result in (("app.mail:soon", 8), ("app.mail:later", 7)):
        function = offer.resolve(name)

        assert function.is_async
        assert inspect.iscoroutinefunction(function.fn)
        assert result == asyncio.run(function.fn())


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "app",
        "app:",
        ":run",
        "os:system",
        "builtins:eval",
        "other:f",
        "app:os",
        "app:os.system",
        "app:rmtree",
        "app:hidden",
        "app:resend",
        "app:mail",
        "app:mail.send",
        "app.mail:send:x",
        "app:__builtins__",
        "app:run.__globals__",
        "app:__init__",
        "app.mail:__getattr__",
        "app.mail:missing",
        "app.mail:alias",
        "app.mail:inner",
        "app.mail:made",
        "app.mail:shout",
        "app.mail:<lambda>",
        "app.mail:make.<locals>.inner",
        "app.mail:generate",
        "app.mail:Box",
        "app.mail:Box.method",
        "app.mail:box",
        "app.mail:proxy",
        "app.__main__:f",
        "app.nothere:f",
        "app.\ud800:x",
        "subprocess:run",
        "app.mail:send\n",
        " app.mail:send",
    ],
)
def test_nothing_else_answers(offer: Offer, name: str) -> None:
    """A name that is not a plain function defined in an offered module imports and runs nothing."""
    before = set(sys.modules)

    for look_up in (offer.resolve, offer.resolve_callable):
        with pytest.raises(UnknownFunction) as caught:
            look_up(name)

        assert str(caught.value).encode()
    assert before == set(sys.modules)


def test_a_module_that_is_not_offered_says_how_to_offer_it(offer: Offer) -> None:
    """The fix is a command to copy, and never made of what no module is called."""
    with pytest.raises(UnknownFunction, match=r"; add it: goose worker app shop\.more$"):
        offer.resolve("shop.more:add")
    with pytest.raises(UnknownFunction, match=r"offered modules \(app\)$"):
        offer.resolve("; rm -r /:add")


def test_names_that_do_not_resolve_are_not_kept(offer: Offer) -> None:
    """Hostile names do not fill the memory."""
    for number in range(100):
        with pytest.raises(UnknownFunction):
            offer.resolve(f"app:f{number}")

    assert {} == offer._functions


def test_an_offer_must_be_loaded_first(app: Path) -> None:
    """Looking up a name imports nothing, not even what is offered."""
    with pytest.raises(UnknownFunction, match="load"):
        Offer(["app"]).resolve("app:run")


@pytest.mark.parametrize(
    ("modules", "why"),
    [
        ("app", "give a list"),
        ([], "at least one"),
        (["app/mail.py"], "did you mean 'app.mail'"),
        (["app:send"], "give 'app'"),
        (["app..mail"], "not the dotted name of a module"),
        ([None], "not the dotted name"),
    ],
)
def test_an_offer_of_no_modules_is_refused(modules: typing.Any, why: str) -> None:
    """A mistake in the worker's arguments is told with the likely correction."""
    with pytest.raises(ConfigError, match=why):
        Offer(modules)


@pytest.mark.parametrize(
    ("name", "source", "why"),
    [
        ("nowhere", None, "there is no module nowhere here; check the spelling"),
        ("nowhere.deep", None, "there is no module nowhere here"),
        ("json.encode", None, r"no module json.encode here; did you mean json\.encoder\?"),
        ("gose.calls", None, r"no module gose here; did you mean goose\.calls\?"),
        ("jsn", None, "no module jsn here; check the spelling"),
        (
            "json.decoder.JSONDecoder",
            None,
            "json.decoder is a module; it is offered whole, so give",
        ),
        ("broken", "import nothing_like_it", "No module named 'nothing_like_it'"),
        ("broken", "1 / 0", "ZeroDivisionError"),
        ("broken", "def f(:", "SyntaxError"),
        ("broken", "raise SystemExit(3)", "SystemExit"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told(
    importable: Path, name: str, source: str | None, why: str
) -> None:
    """The error names the module, the cause and what to do, and keeps the import's own error."""
    if source is not None:
        (importable / f"{name}.py").write_text(source)

    with pytest.raises(ConfigError, match=why) as caught:
        Offer([name]).load()

    assert f"cannot import {name}: " in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_call_in_place_of_a_function_is_named_as_such() -> None:
    """``enqueue(ping())`` hands over a coroutine: the error says what was meant."""

    async def ping() -> None: ...

    called = ping()
    with contextlib.closing(called), pytest.raises(FunctionError, match="pass it uncalled"):
        name_of(called)  # type: ignore[arg-type]
