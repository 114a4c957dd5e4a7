"""`tools/setup` says what is missing, gets it where it may, and does nothing twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def checkout(own_folder: Path, root: Path) -> Path:
    """A checkout with nothing but what the script reads, and a folder for commands."""
    (own_folder / "tools").mkdir()
    (own_folder / "commands").mkdir()
    for name in ("tools/setup", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, own_folder / name)
    return own_folder


def command(checkout: Path, name: str, script: str) -> None:
    """Put a command in front of the system's own; it writes down how it was called."""
    path = checkout / "commands" / name
    path.write_text(f'#!/bin/sh\necho {name} "$@" >>"{checkout}/calls"\n{script}\n')
    path.chmod(0o755)


def calls(checkout: Path) -> str:
    """Return how the commands were called, a line each."""
    path = checkout / "calls"
    return path.read_text() if path.exists() else ""


def setup(checkout: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run the script with *python* as the only choice."""
    path = f"{checkout}/commands:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "tools/setup", "run"],
        cwd=checkout,
        env={"PATH": path, "PYTHON": python},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# A Python as Debian has it without python3-venv: it has the module, but not ensurepip.
NO_VENV = f"""
case "$*" in
    *ensurepip*|*"-m venv"*) exit 1 ;;
    *) exec {sys.executable} "$@" ;;
esac
"""


def test_without_a_python_it_says_so(checkout: Path) -> None:
    """No fitting Python: the message names what was tried and how to name another."""
    command(checkout, "oldpython", "exit 1")

    done = setup(checkout, "oldpython")

    assert 1 == done.returncode
    assert "no Python >= 3.11 among: oldpython" in done.stderr
    assert "make PYTHON=" in done.stderr


def test_without_venv_and_root_it_names_the_package(checkout: Path) -> None:
    """Debian without python3-venv: a plain user is told what to install, and nothing is tried."""
    command(checkout, "halfpython", NO_VENV)
    command(checkout, "apt-get", "exit 0")
    command(checkout, "id", "echo 1000")

    done = setup(checkout, "halfpython")

    assert 1 == done.returncode
    package = f"python3.{sys.version_info.minor}-venv"
    assert f"sudo apt-get install {package}" in done.stderr
    assert "apt-get" not in calls(checkout)


def test_without_venv_root_installs_the_package(checkout: Path) -> None:
    """As root it installs the package itself, with fresh lists if there were none."""
    command(checkout, "halfpython", NO_VENV)
    command(checkout, "apt-get", f'case "$1" in update) touch "{checkout}/lists" ;; esac\n')
    command(checkout, "id", "echo 0")
    with (checkout / "commands/apt-get").open("a") as out:
        out.write(f'[ -e "{checkout}/lists" ]\n')

    done = setup(checkout, "halfpython")

    made = [line.split()[:2] for line in calls(checkout).splitlines() if line[:3] == "apt"]
    assert [["apt-get", "install"], ["apt-get", "update"], ["apt-get", "install"]] == made
    assert "could not create .venv" in done.stderr


def test_a_finished_environment_is_left_alone(checkout: Path) -> None:
    """The second run does nothing, until what it was made from changes."""
    binaries = checkout / ".venv/bin"
    binaries.mkdir(parents=True)
    command(checkout, "pip-and-all", f'exec {sys.executable} "$@"')
    script = (checkout / "commands/pip-and-all").read_text()
    (binaries / "python").write_text(
        script.replace("exec", 'case "$*" in *"-m pip"*) exit 0 ;; esac\nexec')
    )
    (binaries / "python").chmod(0o755)
    (checkout / ".venv/.path").write_text(f"{checkout}\n")

    first = setup(checkout, sys.executable)
    installed = calls(checkout).count("-m pip")
    second = setup(checkout, sys.executable)
    unchanged = calls(checkout).count("-m pip")
    with (checkout / "constraints.txt").open("a") as out:
        out.write("# another bound\n")
    third = setup(checkout, sys.executable)

    assert [0, 0, 0] == [first.returncode, second.returncode, third.returncode]
    assert 1 == installed == unchanged
    assert 2 == calls(checkout).count("-m pip")
