"""The modules that an operator named: their import, and what to say when that fails."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from difflib import get_close_matches
from types import ModuleType

from goose._values import show
from goose.errors import ConfigError

_CLOSE = 0.75
"""How like a module's name must be to have been meant; at the top there are many to be like."""


def is_module_name(name: object) -> bool:
    """Say whether *name* is the dotted name that a module could have."""
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def check_module_name(name: object) -> None:
    """Refuse what is no dotted name.

    Raises:
        ConfigError: It is none; the message says what was meant, if that can be seen.
    """
    if is_module_name(name):
        return
    hint = ""
    if isinstance(name, str) and name.endswith(".py"):
        hint = f"; did you mean {name[:-3].strip('./').replace('/', '.')!r}?"
    elif isinstance(name, str) and ":" in name:
        hint = f"; whole modules are offered, so give {name.partition(':')[0]!r}"
    raise ConfigError(f"{show(name)} is not the dotted name of a module{hint}")


def load(name: str, loaded: dict[str, ModuleType]) -> None:
    """Import the module *name*, and those inside if it is a package, into *loaded*.

    Raises:
        ConfigError: One cannot be imported.
    """
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ConfigError(_why_not_imported(name, error)) from error
    loaded[name] = module
    path = vars(module).get("__path__")
    if path is not None:
        for found in pkgutil.iter_modules(path, name + "."):
            if not found.name.endswith(".__main__"):
                load(found.name, loaded)


def _why_not_imported(name: str, error: BaseException) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and (name == missing or name.startswith(missing + ".")):
        holder = missing.rpartition(".")[0]
        if holder in sys.modules and not hasattr(sys.modules[holder], "__path__"):
            return f"cannot import {name}: {holder} is a module; it is offered whole, so give {holder!r}"
        near = _nearest(missing)
        hint = f"did you mean {near}{name[len(missing) :]}? If not, " if near else ""
        return (
            f"cannot import {name}: there is no module {missing} here; {hint}check the spelling, and "
            "start in the directory that holds it or set PYTHONPATH"
        )
    return (
        f"cannot import {name}: {type(error).__name__}: {error}; "
        f'find out with: python -c "import {name}"'
    )


def _nearest(missing: str) -> str:
    """Return the module beside *missing* whose name is most like it; empty if none is."""
    holder, dot, last = missing.rpartition(".")
    path = getattr(sys.modules.get(holder), "__path__", []) if dot else None
    beside = [found.name for found in pkgutil.iter_modules(path)]
    if not dot:  # nobody's jobs are in Python's own
        beside = [name for name in beside if name not in sys.stdlib_module_names]
    near = get_close_matches(last, beside, n=1, cutoff=_CLOSE)
    return f"{holder}{dot}{near[0]}" if near else ""
