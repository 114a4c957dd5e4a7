"""Where each peer is installed: an environment of its own, made once, outside the repository.

They lie in ``$BENCH_CACHE``, else in ``goose-bench`` under ``$XDG_CACHE_HOME`` or
``~/.cache``. Packages come from whatever index pip and npm are set up to use. An environment
is made again when what is asked of it has changed; remove its folder to make it anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

STAMP = "installed.txt"
"""The file that says what an environment was made for, written last."""


class NotInstalledError(Exception):
    """A peer could not be installed; the message says what to do."""


def cache() -> Path:
    """Return the folder the environments are in."""
    given = os.environ.get("BENCH_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "goose-bench"


def python(name: str, requirements: tuple[str, ...], version: str = "") -> Path:
    """Return the ``bin`` folder of the virtual environment *name*, made if need be.

    Args:
        name: Of the peer.
        requirements: What it needs.
        version: Of the Python it needs, such as ``3.12``, if this one will not do.
    """
    folder = cache() / name
    wanted = "\n".join((version or sys.version, *requirements))
    if _is_for(folder, wanted):
        return folder / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print(f"installing {' '.join(requirements)} into {folder} …", file=sys.stderr)
    _call(name, [_interpreter(name, version), "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check"]
    _call(name, [*pip, "install", *quiet, *requirements])
    (folder / STAMP).write_text(wanted)
    return folder / "bin"


def node(name: str, requirements: tuple[str, ...]) -> Path:
    """Return the folder whose ``node_modules`` has *requirements*, made if need be."""
    folder = cache() / name
    wanted = "\n".join(requirements)
    if _is_for(folder, wanted):
        return folder
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NotInstalledError(
                f"{name} needs {program}, which is not on the PATH: install Node.js 20 or newer, "
                f"or leave {name} out with --peers"
            )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"installing {' '.join(requirements)} into {folder} …", file=sys.stderr)
    (folder / "package.json").write_text('{"private": true}\n')
    _call(name, ["npm", "install", "--silent", "--prefix", str(folder), *requirements])
    (folder / STAMP).write_text(wanted)
    return folder


def _interpreter(name: str, version: str) -> str:
    """Return a Python of at least that version, this one if it will do."""
    if not version or sys.version_info >= tuple(map(int, version.split("."))):
        return sys.executable
    installed = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for found in (shutil.which(f"python{version}"), *map(str, installed)):
        # What pyenv puts on the PATH may be a name for nothing.
        if (
            found
            and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode
        ):
            return found
    raise NotInstalledError(
        f"{name} needs Python {version}: install it, or leave {name} out with --peers"
    )


def _is_for(folder: Path, wanted: str) -> bool:
    stamp = folder / STAMP
    return stamp.exists() and stamp.read_text() == wanted


def _call(name: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalledError(
            f"{name} could not be installed:\n  {' '.join(command)}\n"
            f"{(done.stderr or done.stdout)[-1500:]}\n"
            f"Look at the message above, or leave {name} out with --peers"
        )
