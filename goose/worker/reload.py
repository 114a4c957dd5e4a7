"""Notices that the source of a loaded module has changed, for ``goose worker --reload``.

It looks at the modification times of files that are part of the project: loaded modules
outside the installed Python and its packages. A look costs one ``stat`` per file.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

_INSTALLED = tuple(
    f"{Path(path).resolve()}/"
    for name, path in sysconfig.get_paths().items()
    if name in {"stdlib", "platstdlib", "purelib", "platlib"}
)


class SourceWatch:
    """Remembers the files of the loaded modules and when they were written."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self.changed()

    def changed(self) -> str | None:
        """Return a file that was written since it was first seen, if there is one.

        Modules that were loaded meanwhile are watched from now on.
        """
        for path in _sources(list(sys.modules.values())):
            written = _written(path)
            if self._seen.setdefault(path, written) != written:
                return path
        return None


def _sources(modules: Iterable[ModuleType]) -> Iterable[str]:
    for module in modules:
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and path.endswith(".py") and not path.startswith(_INSTALLED):
            yield path


def _written(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0  # being replaced by an editor, or gone: a change either way
