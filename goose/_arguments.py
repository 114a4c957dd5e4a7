"""The plan of one function: which arguments it takes and how each travels.

A plan is made once per function and kept. It binds arguments as Python would, then sends
each through its parameter's road (see `goose._values`). The usual call, plain values in
their right places, costs a comparison and a type check per argument.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from goose._codecs import Codec, hints
from goose._values import (
    NotPlain,
    Refused,
    is_text,
    plain,
    plain_road,
    show,
    show_type,
    why_not_plain,
)
from goose.errors import ArgumentError, SignatureMismatch
from goose.jobs import JSON

_OTHER_VERSION = (
    "; arguments stored for another version of the function: while such jobs wait, keep it able "
    "to take them (new parameters with a default, old ones as they were)"
)
_ADVICE = "annotate the parameter with the value's type, or pass an id or plain JSON"
_PLAIN_ONLY = (inspect.Parameter.empty, Any, object)


class Parameter:
    """One parameter's way to JSON and back. Thread-safe."""

    def __init__(self, name: str, annotation: Any, advice: str = _ADVICE) -> None:
        self.name = name
        self._annotation = annotation
        self._advice = advice
        """What to do about a value without an annotation that is not JSON."""
        self.plain_only = any(annotation is each for each in _PLAIN_ONLY)
        self._codec: Codec | None = None
        road = plain if self.plain_only else plain_road(annotation)
        self.fast: Callable[[Any], JSON] = road or _no_road
        """Returns a value that is JSON already; raises `NotPlain` for others."""

    def encode(self, value: Any) -> JSON:
        """Return *value* as JSON, or raise `Refused`."""
        try:
            return self.fast(value)
        except NotPlain:
            if self.plain_only:
                raise Refused(f"{why_not_plain(value)}; {self._advice}") from None
            return self._general().encode(value)

    def decode(self, value: JSON) -> Any:
        """Return the argument that *value* stands for, or raise `Refused`."""
        try:
            return self.fast(value)
        except NotPlain:
            if self.plain_only:
                raise Refused("it is not plain JSON") from None
            return self._general().decode(value)

    def annotated(self) -> str:
        """Return what the function says of this parameter, for errors."""
        if self._annotation is inspect.Parameter.empty:
            return "not annotated"
        return f"annotated as {show_type(self._annotation)}"

    def _general(self) -> Codec:
        # Two threads may both make one; they are alike.
        if self._codec is None:
            self._codec = Codec(self._annotation)
        return self._codec


def _no_road(_: Any) -> JSON:
    raise NotPlain


@dataclass(frozen=True, slots=True)
class Punched:
    """An argument that is JSON already, with null where outputs of other jobs will be."""

    value: JSON


class Plan:
    """How the arguments of one function are bound, written and read. Thread-safe.

    Args:
        name: The function as ``module:name``, for errors.
        fn: The function as it is called, decorators included.
        inner: The innermost function, whose module its annotations are read in.

    Raises:
        ArgumentError: An annotation cannot be resolved.
    """

    def __init__(self, name: str, fn: Callable[..., Any], inner: Callable[..., Any]) -> None:
        self.name = name
        self._extra_positional: Parameter | None = None
        self._extra_keyword: Parameter | None = None
        self._typed_extra: dict[str, Parameter] = {}
        self._positional: list[Parameter] = []
        self._keyword: dict[str, Parameter] = {}
        self._place: dict[str, int] = {}
        self._required: list[str] = []
        self._required_positional = 0
        self._least = self._most = -1
        """How many positional arguments make a whole call without keywords; -1 if none do."""
        try:
            self._signature = inspect.signature(fn)
            self._read(inner)
        except (Refused, NameError, ValueError) as error:
            raise ArgumentError(f"{name}: {error}") from None

    def _read(self, inner: Callable[..., Any]) -> None:
        parameters = self._signature.parameters.values()
        written = {p.name: p.annotation for p in parameters if p.annotation is not p.empty}
        namespace = dict(getattr(inner, "__globals__", {}))
        namespace.update((t.__name__, t) for t in getattr(inner, "__type_params__", ()))
        resolved = hints(written, namespace)
        for p in parameters:
            parameter = Parameter(p.name, resolved.get(p.name, p.empty))
            if p.kind is p.VAR_POSITIONAL:
                self._extra_positional = parameter
            elif p.kind is p.VAR_KEYWORD:
                self._typed_extra = _members(resolved.get(p.name), namespace)
                self._extra_keyword = parameter if not self._typed_extra else Parameter(p.name, Any)
            else:
                self._add(p, parameter)
        self._fast = [parameter.fast for parameter in self._positional]
        if all(name in self._place for name in self._required):
            self._least = self._required_positional + len(self._required)
            self._most = len(self._positional)

    def _add(self, p: inspect.Parameter, parameter: Parameter) -> None:
        required = p.default is p.empty
        if p.kind is not p.KEYWORD_ONLY:
            self._place[p.name] = len(self._positional)
            self._positional.append(parameter)
        if p.kind is p.POSITIONAL_ONLY:
            self._required_positional += required
        else:
            self._keyword[p.name] = parameter
            if required:
                self._required.append(p.name)

    def encode(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[JSON, ...], dict[str, JSON]]:
        """Return the arguments as JSON.

        Raises:
            ArgumentError: They do not fit the signature, or one would not come back equal.
        """
        return self._convert(args, kwargs, self._encode_one, ArgumentError)

    def encode_punched(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[JSON, ...], dict[str, JSON]]:
        """Return the arguments as JSON, those that are `Punched` as they are.

        Raises:
            ArgumentError: As `encode`.
        """

        def one(parameter: Parameter, value: Any) -> JSON:
            if isinstance(value, Punched):
                return value.value
            return self._encode_one(parameter, value)

        return self._convert(args, kwargs, one, ArgumentError)

    def _encode_one(self, parameter: Parameter, value: Any) -> JSON:
        try:
            return parameter.encode(value)
        except Refused as error:
            raise ArgumentError(
                f"{self.name}: argument {parameter.name} = {show(value)}: "
                f"{parameter.annotated()}; {error}"
            ) from error.__cause__  # the user's own error, if there is one

    def decode(
        self, args: tuple[JSON, ...], kwargs: Mapping[str, JSON]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments that were encoded.

        Raises:
            SignatureMismatch: They do not fit the function as it is now; values are not named.
        """
        return self._convert(args, kwargs, self._decode_one, SignatureMismatch)

    def _convert(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        one: Callable[[Parameter, Any], Any],
        wrong: type[ArgumentError | SignatureMismatch],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return every argument converted: on the short road if all are plain, else by *one*."""
        if not kwargs and self._least <= len(args) <= self._most:
            try:
                # There may be more parameters than arguments. (`strict=False` costs a third of this.)
                return tuple([fast(v) for fast, v in zip(self._fast, args)]), {}  # noqa: B905
            except NotPlain:
                pass  # one needs its codec, below
        positional, named = self._bind(args, kwargs, wrong)
        try:
            return (
                tuple([p.fast(value) for p, value in zip(positional, args, strict=True)]),
                {key: named[key].fast(value) for key, value in kwargs.items()},
            )
        except NotPlain:
            return (
                tuple(one(p, value) for p, value in zip(positional, args, strict=True)),
                {key: one(named[key], value) for key, value in kwargs.items()},
            )

    def _decode_one(self, parameter: Parameter, value: JSON) -> Any:
        try:
            return parameter.decode(value)
        except Refused as error:
            raise SignatureMismatch(
                f"{self.name}: argument {parameter.name}: {parameter.annotated()}; "
                f"{error}{_OTHER_VERSION}"
            ) from error

    def _bind(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        wrong: type[ArgumentError | SignatureMismatch],
    ) -> tuple[list[Parameter], Mapping[str, Parameter]]:
        """Return the parameter of each argument, or raise *wrong* as Python would a TypeError."""
        given = len(args)
        if not kwargs and self._least <= given <= self._most:
            return self._positional[:given], self._keyword
        if not self._fits(given, kwargs):
            hint = self._hint(kwargs) if wrong is ArgumentError else _OTHER_VERSION
            raise wrong(f"{self.name}: {self._complaint(args, kwargs)}{hint}")
        positional = self._positional[:given]
        if self._extra_positional is not None:
            positional += [self._extra_positional] * (given - len(positional))
        if self._extra_keyword is None:
            return positional, self._keyword
        named = {**dict.fromkeys(kwargs, self._extra_keyword), **self._typed_extra, **self._keyword}
        return positional, named

    def _fits(self, given: int, kwargs: Mapping[str, Any]) -> bool:
        if given < self._required_positional:
            return False
        if given > len(self._positional) and self._extra_positional is None:
            return False
        for name in kwargs:
            if name in self._keyword:
                if self._place.get(name, given) < given:
                    return False  # given twice
            elif self._extra_keyword is None or not is_text(name):
                return False
        return all(
            name in kwargs or self._place.get(name, given) < given for name in self._required
        )

    def _complaint(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            return f"{error}; its signature is {self._signature}"
        return "a keyword holds a lone surrogate, which UTF-8 cannot carry"

    def _hint(self, kwargs: Mapping[str, Any]) -> str:
        """Return what was likely meant by the first keyword that the function does not have."""
        unknown = [name for name in kwargs if name not in self._keyword]
        if not unknown or self._extra_keyword is not None:
            return ""
        near = get_close_matches(unknown[0], self._keyword, n=1)
        if near:
            return f"; for {unknown[0]!r}, did you mean {near[0]!r}?"
        if unknown[0] in {"queue", "retry", "timeout", "group"}:
            return f"; an option is bound before: goose.using({unknown[0]}=…).enqueue(…)"
        return ""


def _members(annotation: Any, namespace: Mapping[str, Any]) -> dict[str, Parameter]:
    """Return the parameters of ``**kwargs: Unpack[SomeTypedDict]``; none for other annotations."""
    if typing.get_origin(annotation) is not typing.Unpack:
        return {}
    (fields,) = typing.get_args(annotation)
    try:
        found = typing.get_type_hints(fields, localns=dict(namespace), include_extras=True)
    except Exception as error:
        raise Refused(
            f"an annotation in {show_type(fields)} cannot be resolved: {error}"
        ) from error
    unwrapped = {
        name: typing.get_args(hint)[0]
        if typing.get_origin(hint) in (typing.Required, typing.NotRequired)
        else hint
        for name, hint in found.items()
    }
    return {name: Parameter(name, hint) for name, hint in unwrapped.items()}
