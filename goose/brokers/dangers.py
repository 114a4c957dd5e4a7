"""What endangers jobs, told in the log: settings of a server, and enqueues that are repeated.

Of the settings it is told once in each process. A supervisor and its children use the same server. The
children are told what the supervisor has said already, so that the log has it once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

_told: set[tuple[str, str]] = set()
_lock = threading.Lock()


def warn(logger: logging.Logger, server: str, problem: str) -> None:
    """Log that jobs may be lost, unless this process has been told so. Any thread may call it.

    Args:
        logger: The broker's.
        server: Which server: its kind, and where it is.
        problem: What is wrong, and how to mend it.
    """
    with _lock:
        is_news = (server, problem) not in _told
        _told.add((server, problem))
    if is_news:
        logger.warning("JOBS MAY BE LOST: %s: %s", server, problem)


def told() -> list[tuple[str, str]]:
    """Return each server and problem that was told."""
    with _lock:
        return sorted(_told)


def note(pairs: Iterable[tuple[str, str]]) -> None:
    """Take *pairs*, from `told` of another process, as told here."""
    with _lock:
        _told.update((server, problem) for server, problem in pairs)


def tell_again(logger: logging.Logger, ids: Iterable[str]) -> None:
    """Log that jobs are stored again, as nobody knows whether they were; the only witness of a copy too many.

    An id that is stored is not stored twice, but one whose job is done meanwhile, or that is on a broker
    which looks for no copies, is. The records have ``job_id`` and ``stored_again``.
    """
    for id_ in ids:
        logger.info(
            "job %s was on its way and is stored again",
            id_,
            extra={"job_id": id_, "stored_again": True},
        )
