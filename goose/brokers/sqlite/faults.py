"""SQLite's errors in Goose's words, so that no `sqlite3.Error` reaches a caller."""

from __future__ import annotations

import sqlite3

from goose.errors import BrokerError, BrokerUnavailable

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
}
_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_busy(error: BaseException) -> bool:
    """Whether *error* only says that somebody else is writing just now."""
    return isinstance(error, sqlite3.Error) and _code(error) in _BUSY


def spoils(error: sqlite3.Error) -> bool:
    """Whether the connection that raised *error* had better be opened anew."""
    return _code(error) in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, *_BROKEN}


def translate(error: sqlite3.Error, path: str) -> BrokerError:
    """Return what to raise instead of *error*, which came from the file at *path*."""
    code = _code(error)
    if code in _BUSY:
        return BrokerUnavailable(
            f"{path} stayed locked by another writer ({error}); end its long transaction, "
            "or raise the broker's timeout option"
        )
    if code in _PASSING:
        return BrokerUnavailable(f"{path}: {error}; is the disk full, or the file out of reach?")
    if code in _BROKEN:
        return BrokerError(
            f"{path} is no sound SQLite database ({error}); stop its users, keep a copy with its "
            "-wal and -shm files, and try sqlite3's .recover on that copy"
        )
    if code == sqlite3.SQLITE_READONLY:
        return BrokerError(f"{path}: {error}; let this user write the file and its directory")
    return BrokerError(f"{path}: {error}")


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code; 0 for errors of the sqlite3 module itself."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
