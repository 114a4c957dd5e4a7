"""Functions as names, calls as data, and names as functions again.

A client turns a call into a name and JSON: `name_of` says ``module:name`` for a function
that a worker can find again, `encode_arguments` binds the arguments to its signature and
writes each by its annotation. Whatever would not come back equal in type and value is
refused there, where the caller can still mend it.

A worker goes the other way through an `Offer`: the modules its operator named, imported
once at the start. A payload's name is only ever looked up among them and never causes an
import; only plain functions *defined* in those modules answer to it.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from goose._arguments import Plan
from goose._modules import check_module_name, is_module_name, load
from goose._values import on_register, register_type, show
from goose.errors import (
    ArgumentError,
    ConfigError,
    FunctionError,
    SignatureMismatch,
    UnknownFunction,
)
from goose.jobs import JSON

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """A typed, unsent invocation; `R` is what the function returns."""

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@overload
def call(
    fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
) -> Call[R]: ...
@overload
def call(fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...
def call(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Call[Any]:
    """Return ``fn(*args, **kwargs)`` as a value, for ``enqueue_many``; checked when enqueued."""
    return Call(fn, args, kwargs)


# --- functions as names ------------------------------------------------------------------

plans: dict[Callable[..., Any], Plan] = {}
"""Of every function that was enqueued or asked about, how its arguments travel."""
on_register.append(plans.clear)


def name_of(fn: Callable[..., Any]) -> str:
    """Return the name under which a worker finds *fn*: ``module:name``.

    The name is that of the innermost function, under any decorators that set
    ``__wrapped__``. What the worker calls is the decorated one.

    Raises:
        FunctionError: No worker could find it: a lambda, nested function, method, partial,
            builtin, class or generator; one its module does not hold under its own name;
            or one of a ``__main__`` that has no module name.
    """
    try:
        plan = plans.get(fn)
    except TypeError:  # unhashable, so not a function
        plan = None
    return plan.name if plan is not None else _name(fn)


def encode_arguments(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[JSON, ...], dict[str, JSON]]:
    """Return *args* and *kwargs* as JSON, written by the annotations of *fn*.

    Thread-safe. The first call for a function reads its signature; later ones do not.

    Raises:
        FunctionError: As `name_of`.
        ArgumentError: An argument is missing, superfluous, would not come back equal in
            type and value, or has an annotation that cannot be resolved.
    """
    try:
        plan = plans.get(fn)
    except TypeError:
        plan = None
    if plan is None:
        # Two threads may both make one; they are alike. Never too many: only functions
        # that their module holds by name get this far.
        name = _name(fn)
        plan = plans[fn] = Plan(name, fn, _innermost(fn))
    return plan.encode(args, kwargs)


def _innermost(fn: Any) -> Any:
    """Return what *fn* wraps, looking only at instance attributes: no code of *fn* runs."""
    seen = []
    while not isinstance(fn, type) and "__wrapped__" in getattr(fn, "__dict__", {}):
        seen.append(id(fn))
        fn = fn.__dict__["__wrapped__"]
        if id(fn) in seen:
            break
    return fn


def _unfit(fn: Any) -> str | None:
    """Return why *fn* cannot be the function of a job, whatever its module; None if it can."""
    inner = _innermost(fn)
    if isinstance(fn, type):
        return "is a class; pass a function that makes the object"
    if isinstance(fn, MethodType):
        return "is a method; pass a module-level function and what it needs as arguments"
    if isinstance(fn, BuiltinFunctionType) or isinstance(inner, BuiltinFunctionType):
        return "is a builtin; wrap it in a function of your own"
    if fn is None or isinstance(fn, Coroutine):
        return (
            "is not a function; if you called one, pass it uncalled, and its arguments after it: "
            "enqueue(send, 'ada')"
        )
    if not isinstance(inner, FunctionType):
        return (
            f"is a {type(fn).__name__}, not a function; pass a module-level function itself, and "
            "its arguments after it: enqueue(send, 'ada')"
        )
    if inner.__name__ == "<lambda>":
        return "is a lambda; write a module-level function"
    if "<locals>" in inner.__qualname__:
        return (
            "is defined inside another function; move it to module level "
            "(and if a decorator made it, use functools.wraps there)"
        )
    if "." in inner.__qualname__:
        return "is defined inside a class; write a module-level function"
    if any(_yields(each) for each in (fn, inner)):
        return "is a generator, whose body would never run; write a function without yield"
    return None


def _yields(fn: Any) -> bool:
    return inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn)


def _name(fn: Any) -> str:
    problem = _unfit(fn)
    if problem is not None:
        raise FunctionError(f"{shown(fn)} {problem}")
    inner = _innermost(fn)
    module = real_module(inner.__module__)
    if module is None:
        raise FunctionError(
            f"{inner.__qualname__} is defined in a script, which no worker can import; move it to "
            "a module, or start the script as one: python -m package.module"
        )
    held = getattr(sys.modules.get(inner.__module__), "__dict__", {}).get(inner.__qualname__)
    if _innermost(held) is not inner:
        raise FunctionError(
            f"{module}:{inner.__qualname__} is {shown(held)}, not the function given; a worker finds "
            "functions by name, so the module must hold this one under its own name"
        )
    return f"{module}:{inner.__qualname__}"


def shown(fn: Any) -> str:
    """Return *fn* as text: its name and where it is written, if it is written anywhere."""
    inner = _innermost(fn)
    if isinstance(inner, MethodType):
        inner = inner.__func__
    if not isinstance(inner, FunctionType):
        return show(fn)
    code = inner.__code__
    return f"{inner.__qualname__} ({code.co_filename}:{code.co_firstlineno})"


def real_module(name: str) -> str | None:
    """Return the name to import *name* by: for ``__main__``, what ``python -m`` was given, or None."""
    if name != "__main__":
        return name
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return None if spec is None else spec.name


# --- names as functions ------------------------------------------------------------------


class Function:
    """A function a worker offers, with how its arguments are read. Thread-safe."""

    __slots__ = ("_plan", "fn", "is_async", "name")

    def __init__(self, name: str, fn: Callable[..., Any]) -> None:
        self.name = name
        self.fn = fn
        """What to call: the function with its decorators."""
        self.is_async: bool = inspect.iscoroutinefunction(_innermost(fn))
        if self.is_async and not inspect.iscoroutinefunction(fn):
            # A plain decorator around an async function returns its coroutine: called as
            # a plain function it would end at once, with nothing done.
            self.fn = _awaited(fn)
        self._plan: Plan | None = None

    def decode(
        self, args: tuple[JSON, ...], kwargs: Mapping[str, JSON]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments as the function takes them.

        Raises:
            SignatureMismatch: They were stored for another version of the function, or an
                annotation of this one cannot be resolved.
        """
        if self._plan is None:
            try:
                self._plan = Plan(self.name, self.fn, _innermost(self.fn))
            except ArgumentError as error:
                raise SignatureMismatch(str(error)) from error
        return self._plan.decode(args, kwargs)


def _awaited(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def run(*args: Any, **kwargs: Any) -> Any:
        result = fn(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return run


class Offer:
    """The functions that jobs may name: those defined in the given modules.

    `load` imports the modules, and the submodules of those that are packages (but not
    their ``__main__``, which is a program; name it to offer it). Names of jobs never
    import anything. Thread-safe.

    Args:
        modules: Dotted names, at least one.

    Raises:
        ConfigError: *modules* is empty or not a sequence of dotted names.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        if isinstance(modules, str) or not modules:
            raise ConfigError(
                f"the modules whose functions may run are {modules!r}; "
                'give a list of at least one, such as ["app.jobs"]'
            )
        for name in modules:
            check_module_name(name)
        self.modules: tuple[str, ...] = tuple(modules)
        self._loaded: dict[str, ModuleType] = {}
        self._functions: dict[str, Function] = {}
        self._lock = threading.Lock()

    def load(self) -> None:
        """Import the modules and all their submodules; later calls do nothing.

        Raises:
            ConfigError: One cannot be imported; the message names it, the cause and the
                fix, and the ``__cause__`` is what the import raised.
        """
        with self._lock:
            if not self._loaded:
                loaded: dict[str, ModuleType] = {}
                for name in self.modules:
                    load(name, loaded)
                self._loaded = loaded

    def resolve(self, name: str) -> Function:
        """Return the function that *name* (``module:name``) stands for.

        Raises:
            UnknownFunction: It is not a plain function defined in an offered module.
        """
        function = self._functions.get(name)
        if function is None:
            # Only names that resolve are kept, so hostile ones cannot fill the memory.
            function = self._functions[name] = Function(name, self._find(name))
        return function

    def resolve_callable(self, name: str) -> Callable[..., Any]:
        """Return the function behind a policy's or callback's *name*, by the rules of `resolve`.

        Raises:
            UnknownFunction: As `resolve`.
        """
        return self._find(name)

    def functions(self) -> list[Function]:
        """Return every function there is to resolve, once the modules are loaded."""
        return [
            self.resolve(f"{module_name}:{attribute}")
            for module_name, module in self._loaded.items()
            for attribute, found in list(vars(module).items())
            if not attribute.startswith("__") and _defined_as(found, module_name, attribute)
        ]

    def _find(self, name: str) -> Callable[..., Any]:
        if not self._loaded:
            raise UnknownFunction("nothing is offered yet: Offer.load() comes first")
        module_name, _, attribute = name.partition(":")
        module = self._loaded.get(module_name)
        if module is None:
            offered = ", ".join(self.modules)
            fix = ""
            if is_module_name(module_name) and len(module_name) < 80:  # it may be anything
                fix = f"; add it: goose worker {' '.join(self.modules)} {module_name}"
            raise UnknownFunction(
                f"{show(name)} is in none of the offered modules ({offered}){fix}"
            )
        # From the module's own dictionary: no attribute chains, no module __getattr__.
        found: Any = None if attribute.startswith("__") else vars(module).get(attribute)
        if not _defined_as(found, module_name, attribute):
            raise UnknownFunction(
                f"{show(name)} is not a function defined in {module_name}; if it was renamed or "
                "moved, leave one of the old name that calls it"
            )
        function: Callable[..., Any] = found
        return function


def _defined_as(found: Any, module_name: str, attribute: str) -> bool:
    try:
        inner = _innermost(found)
        return (
            _unfit(found) is None
            and inner.__module__ == module_name
            and inner.__qualname__ == attribute
        )
    except Exception:  # noqa: BLE001 - a module may hold proxies, which run code for any attribute
        return False


__all__ = [
    "Call",
    "Function",
    "Offer",
    "call",
    "encode_arguments",
    "name_of",
    "real_module",
    "register_type",
]
