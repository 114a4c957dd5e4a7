"""The package keeps its shape: imports go one way, and the door stays light.

Which module may import which is in pyproject.toml, for import-linter; `make check` runs
it too, and names the line that broke a contract.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DRIVERS = ("redis", "pika", "psycopg", "prometheus_client", "sqlite3", "rich", "click")
SLOW = ("pydantic", "asyncio", "goose.worker", "goose.cli", "goose.testing")


def python(code: str, *flags: str) -> str:
    """Return what *code* prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package in *root*."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_imports_go_one_way(root: Path) -> None:
    """Every module imports only what its layer may."""
    done = lint_imports(root)

    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        (
            "goose/jobs.py",
            "import goose.worker",
            "goose.jobs is not allowed to import goose.worker",
        ),
        ("goose/worker/x.py", "import goose.clients", "import goose.clients"),
        ("goose/brokers/sqlite/x.py", "import goose.brokers.memory", "import goose.brokers.memory"),
        ("goose/metrics/statsd.py", "import goose.worker", "import goose.worker"),
        ("goose/unplaced.py", "", "goose.unplaced"),
    ],
)
def test_an_import_the_wrong_way_is_found(
    own_folder: Path, root: Path, module: str, line: str, broken: str
) -> None:
    """The contracts see a layer that is skipped, a sibling that is known, a module without a place."""
    shutil.copytree(root / "goose", own_folder / "goose")
    shutil.copy(root / "pyproject.toml", own_folder)
    with (own_folder / module).open("a") as out:
        out.write(f"\n{line}\n")

    done = lint_imports(own_folder)

    assert 1 == done.returncode
    assert broken in done.stdout


def test_the_door_is_light() -> None:
    """`import goose` loads no driver, and nothing that is slow to load and not yet needed."""
    loaded = python("import goose, sys; print(*sys.modules)").split()
    bare = set(python("import sys; print(*sys.modules)").split())

    assert [] == [name for name in (*DRIVERS, *SLOW) if name in loaded and name not in bare]


def test_the_door_opens_quickly() -> None:
    """`import goose` takes less than 150 ms of CPU; the best of three counts."""
    code = "import time; t = time.process_time(); import goose; print(time.process_time() - t)"

    assert 0.150 > min(float(python(code)) for _ in range(3))


def test_no_module_hides_a_public_name() -> None:
    """After every module is imported, each public name of `goose` is what it was before."""
    code = """
import importlib, pkgutil, goose
before = {name: getattr(goose, name) for name in goose.__all__}
for found in pkgutil.walk_packages(goose.__path__, "goose."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
print([name for name in goose.__all__ if getattr(goose, name) is not before[name]], len(before))
"""
    changed, _, count = python(code).strip().rpartition(" ")

    assert "[]" == changed
    assert 20 < int(count)


def test_the_door_offers_what_it_says() -> None:
    """Every name in ``__all__`` exists, and every error of the tree is among them."""
    code = (
        "import goose; print([n for n in goose.__all__ if not hasattr(goose, n)], *goose.__all__)"
    )
    missing, _, names = python(code).partition("] ")
    tree = Path(python("import goose.errors; print(goose.errors.__file__)").strip()).read_text()
    errors = set(re.findall(r"^class (\w+)\(", tree, flags=re.MULTILINE))

    assert "[" == missing
    assert set() == errors - set(names.split())
