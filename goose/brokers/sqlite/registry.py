"""One `Writer` per file and process, however many brokers use it, and through every fork."""

from __future__ import annotations

import os
import threading

from goose.brokers.sqlite.writer import Writer

_registry: dict[tuple[str, str], Writer] = {}
_registry_lock = threading.Lock()


def share(path: str, synchronous: str) -> Writer:
    """Return this process's writer of the file at *path*; give it back with `leave`."""
    key = (os.path.realpath(path), synchronous)
    with _registry_lock:
        writer = _registry.get(key)
        if writer is None:
            writer = _registry[key] = Writer(*key)
        writer.users += 1
    return writer


def leave(writer: Writer) -> None:
    """Close *writer* if nobody else in this process uses it."""
    with _registry_lock:
        writer.users -= 1
        if writer.users:
            return
        for key in [key for key, shared in _registry.items() if shared is writer]:
            del _registry[key]
    writer.close()


def _before_fork() -> None:
    _registry_lock.acquire()
    for writer in _registry.values():
        writer.before_fork()


def _after_fork_in_parent() -> None:
    for writer in _registry.values():
        writer.after_fork_in_parent()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    global _registry_lock
    for writer in _registry.values():
        writer.after_fork_in_child()
    _registry_lock = threading.Lock()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
