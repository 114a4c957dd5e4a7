"""Which files the demo works on."""

from __future__ import annotations

import os
import stat
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

LARGEST = 16 * 1024 * 1024
"""Bytes; what is larger is left out, so that the demo stays short."""
FOREIGN = frozenset({"site-packages", "dist-packages", "__pycache__"})


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was when it was found."""

    path: str
    size: int
    """Bytes."""
    written_ns: int

    def unchanged(self) -> bool:
        """Say whether it still is as it was found."""
        try:
            now = os.stat(self.path)
        except OSError:
            return False
        return (now.st_size, now.st_mtime_ns) == (self.size, self.written_ns)


@dataclass(slots=True)
class Found:
    """Files to work on, and how many were left out, by reason."""

    files: list[File] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


def under(directory: Path) -> Found:
    """Return the readable regular files below *directory*, in order; links are not followed."""
    found = Found()
    for path in _walk(directory, lambda _: True, found):
        _add(found, path)
    return found


def installed() -> Found:
    """Return Goose's own sources and those of Python's standard library."""
    found = Found()
    for place in (Path(__file__).parent.parent, Path(sysconfig.get_path("stdlib"))):
        for path in _walk(place, lambda name: name not in FOREIGN, found):
            if path.endswith(".py"):
                _add(found, path)
    return found


def _walk(directory: Path, enter: Callable[[str], bool], found: Found) -> Iterator[str]:
    def skip(_: OSError) -> None:
        found.skipped["unreadable"] += 1

    for folder, folders, names in os.walk(directory, onerror=skip):
        folders[:] = sorted(filter(enter, folders))
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted([*names, *links]):
            yield str(Path(folder, name).absolute())


def _add(found: Found, path: str) -> None:
    reason = ""
    try:
        status = os.lstat(path)
        path.encode()  # a job's arguments are Unicode text, which not every name is
    except OSError:
        reason = "unreadable"
    except UnicodeEncodeError:
        reason = "not named in Unicode"
    else:
        if not stat.S_ISREG(status.st_mode):
            reason = "not a regular file"
        elif status.st_size > LARGEST:
            reason = f"over {LARGEST // 1024**2} MiB"
        elif not os.access(path, os.R_OK):
            reason = "unreadable"
        else:
            found.files.append(File(path, status.st_size, status.st_mtime_ns))
    if reason:
        found.skipped[reason] += 1
