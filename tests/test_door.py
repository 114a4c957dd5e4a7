"""The public door: what `import goose` gives, and what it does not load."""

import contextlib
import importlib
import json
import pkgutil
import subprocess
import sys
import types

import pytest

import goose

# What the design promises to be importable from `goose` itself.
VERBS = {
    "call",
    "configure",
    "current",
    "enqueue",
    "enqueue_at",
    "enqueue_in",
    "enqueue_many",
    "job",
    "register_type",
    "submit",
    "using",
}
CLASSES = {"Call", "Client", "Execution", "Exponential", "Job", "Retry", "Settings", "Worker"}


def submodules() -> list[str]:
    return [
        found.name
        for found in pkgutil.walk_packages(goose.__path__, "goose.", onerror=lambda name: None)
        if not found.name.endswith("__main__")
    ]


class MissingElsewhere(Exception):
    """A package that is not part of Goose is not installed."""


def load(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not error.name.startswith("goose"):
            raise MissingElsewhere from error
        raise


def test_every_public_name_is_there() -> None:
    """Each name of `__all__` exists, and the promised ones are among them."""
    for name in goose.__all__:
        assert getattr(goose, name) is not None

    assert set(goose.__all__) >= VERBS | CLASSES | {"aio", "__version__"}
    assert sorted(goose.__all__) == goose.__all__
    assert set(goose.__all__) <= set(dir(goose))


def test_all_errors_are_public() -> None:
    """Every exception Goose raises is importable from `goose`."""
    errors = importlib.import_module("goose.errors")
    raised = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}

    assert raised <= set(goose.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as on any module."""
    with pytest.raises(AttributeError, match="module 'goose' has no attribute 'enqeue'"):
        _ = goose.enqeue  # type: ignore[attr-defined]


def test_no_module_takes_the_place_of_a_public_name() -> None:
    """After every submodule was imported each public name is still itself."""
    before = {name: getattr(goose, name) for name in goose.__all__}
    for name in submodules():
        # A driver that is not installed here may be missing; nothing of Goose itself may.
        with contextlib.suppress(MissingElsewhere):
            load(name)

    assert before == {name: getattr(goose, name) for name in goose.__all__}
    assert ["aio"] == [
        name for name in goose.__all__ if isinstance(getattr(goose, name), types.ModuleType)
    ]


PROBE = """
import json, sys, time
before = time.process_time()
import goose
spent = time.process_time() - before
print(json.dumps({"seconds": spent, "modules": sorted(sys.modules)}))
"""


def probe() -> dict:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def test_importing_goose_loads_nothing_else() -> None:
    """`import goose` loads no module of Goose, let alone a driver, pydantic or asyncio."""
    loaded = set(probe()["modules"])

    assert not [name for name in loaded if name.startswith("goose.")]
    assert set() == loaded & {"asyncio", "click", "concurrent.futures", "pydantic", "redis"}


def test_importing_goose_is_quick() -> None:
    """`import goose` takes less than 20 ms of CPU, the best of three."""
    assert min(probe()["seconds"] for _ in range(3)) < 0.020


ENQUEUE = """
import sys, goose
goose.Client("memory://x").using(queue="mail")
print(*sorted(sys.modules))
"""


def test_a_client_loads_no_worker() -> None:
    """A program that only enqueues pays for no worker, driver, pydantic or asyncio."""
    done = subprocess.run(
        [sys.executable, "-c", ENQUEUE], capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {"asyncio", "goose.aio", "goose.inspecting", "goose.worker", "pydantic", "sqlite3"}
    heavy |= {"importlib.metadata", "pika", "prometheus_client", "psycopg", "redis", "tomllib"}

    assert set() == set(done.stdout.split()) & heavy


SEEN = """
import goose
assert "Client" in dir(goose)
assert goose.errors.GooseError is goose.GooseError
from goose import *
import goose.clients
assert enqueue == goose.enqueue == goose.clients.default.enqueue
assert job is goose.job and call is goose.call
"""


def test_names_are_the_same_however_they_are_reached() -> None:
    """By attribute, by star, by module: one object each, in a process where nothing is loaded yet."""
    subprocess.run([sys.executable, "-c", SEEN], check=True, timeout=60)
