"""The project's file: where it is, what stands in it, and what belongs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from goose.errors import ConfigError


def find(directory: Path) -> tuple[Path | None, dict[str, Any]]:
    """Return the nearest file with settings, from *directory* upwards, and its table."""
    for place in (directory, *directory.parents):
        own, project = place / "goose.toml", place / "pyproject.toml"
        table = _read(project).get("tool", {}).get("goose") if project.is_file() else None
        if own.is_file():
            if table is not None:
                raise ConfigError(
                    f"{own} and [tool.goose] in {project} both have settings; keep one"
                )
            return own, _read(own)
        if table is not None:
            if not isinstance(table, dict):
                raise ConfigError(f"{project}: tool.goose = {table!r} is not a table")
            return project, table
    return None, {}


def _read(path: Path) -> dict[str, Any]:
    import tomllib  # only projects with a file pay for it

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}; texts stand in quotes") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def home(directory: Path, path: Path | None) -> Path:
    """Return the directory the default database belongs to."""
    if path is not None:
        return path.parent
    places = (directory, *directory.parents)
    return next((place for place in places if (place / "pyproject.toml").is_file()), directory)


def anchored(table: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Make relative SQLite paths of a file relative to it, not to where a program is started."""
    anchored = dict(table)
    for name in ("broker", "store", "outbox"):
        url = anchored.get(name)
        if isinstance(url, str) and url.startswith("sqlite:///"):
            rest = url.removeprefix("sqlite:///")
            if rest and not rest.startswith(("/", ":memory:")):
                anchored[name] = f"sqlite:///{directory}/{rest}"
    return anchored
