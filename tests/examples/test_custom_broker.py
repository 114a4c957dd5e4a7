"""The example packages do what they show."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long


def run(*command: str | Path, at: Path, path: Path | None = None) -> str:
    """Run a Python module with *path* first on the module path; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=at, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example was installed as a package."""
    example = Path(__file__).parents[2] / "examples" / "custom_broker"
    target = tmp_path_factory.mktemp("installed")
    # With the build backend at hand nothing is downloaded.
    offline = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    run("pip", "install", "-q", "--no-deps", *offline, "--target", target, example, at=target)
    return target


@pytest.mark.timeout(180)
def test_the_scheme_is_known_once_installed(installed: Path, own_folder: Path) -> None:
    """The installed package's entry point makes `myscheme://` a broker, namespaces and all."""
    program = own_folder / "program.py"
    program.write_text(
        "from goose.brokers import connect\n"
        f"one = connect('myscheme://{own_folder}/jobs.json?namespace=eu')\n"
        "print(type(one).__module__, one._path.name)\n"
    )

    assert "myscheme jobs-eu.json\n" == run("program", at=own_folder, path=installed)


@pytest.mark.timeout(180)
def test_the_example_keeps_every_promise(installed: Path, own_folder: Path, root: Path) -> None:
    """The conformance suite passes on the installed example, by its three-line test."""
    test = own_folder / "test_myscheme.py"
    test.write_text((root / "examples" / "custom_broker" / "test_myscheme.py").read_text())

    printed = run("pytest", "-q", "-rs", test, at=own_folder, path=installed)

    assert " passed" in printed
    reasons = {line.split(": ", 1)[1] for line in printed.splitlines() if line.startswith("SKIP")}
    assert {
        "FileBroker does not implement Completing",
        "FileBroker does not implement Grouped",
        "FileBroker does not implement Inspector",
        "FileBroker does not implement Posting",
        "FileBroker does not implement Transactional",
        "FileBroker does not implement Upkeep",
        "FileBroker has no limits of dead jobs",
        "FileBroker has no namespaces",
        "FileBroker has no second object on one store",
    } == reasons
