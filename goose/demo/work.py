"""The functions that run as jobs: each measures a file and writes down what it found.

They are idempotent, as jobs should be: a second run writes the same result over the first,
in one step. So that runs can be counted, each leaves marks in a file of its process: one
line before and one after, appended by one ``write``, so that a line is whole and survives
the process. They write only below the folder in the environment variable `FOLDER`.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import zlib
from functools import cache
from pathlib import Path

FOLDER = "GOOSEDEMO_FOLDER"
LEVEL = 9
"""Of zlib."""


def measure(number: int, path: str) -> None:
    """Write down the size, SHA-256, lines, words and compressed size of the file at *path*."""
    _mark("start", number)
    _write(number, _measurement(path))
    _mark("end", number)


def stumble(number: int, path: str) -> None:
    """Fail the first time, whichever process runs it; then do as `measure`.

    Raises:
        ConnectionError: It is the first time.
    """
    _mark("start", number)
    try:
        (_folder() / "stumbled" / str(number)).touch(exist_ok=False)
    except FileExistsError:
        _write(number, _measurement(path))
        _mark("end", number)
    else:
        _mark("fail", number)
        raise ConnectionError("the first try of this job fails, to show how it is retried")


def _measurement(path: str) -> dict[str, object]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return {"error": type(error).__name__}  # what is gone for good needs no second try
    return {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "lines": data.count(b"\n"),
        "words": len(data.split()),
        "compressed": len(zlib.compress(data, LEVEL)),
    }


def _folder() -> Path:
    return Path(os.environ[FOLDER])


def _write(number: int, result: dict[str, object]) -> None:
    folder = _folder() / "results"
    draft = folder / f".{number}-{os.getpid()}-{threading.get_ident()}"
    draft.write_text(json.dumps(result))
    draft.replace(folder / f"{number}.json")


def _mark(what: str, number: int) -> None:
    line = f"{what} {number} {time.time():.6f}\n"
    os.write(_marks(_folder() / "marks" / str(os.getpid())), line.encode())


@cache
def _marks(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
