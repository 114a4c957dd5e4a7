"""What features offer to a running function through `goose.current`."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from goose.features.checkpoints import Checkpoints
from goose.features.results.progress import ProgressLog
from goose.jobs import JSON, Job


class Inside:
    """Implements `goose.middleware.base.Inside` for one process. Thread-safe; never blocks."""

    def __init__(self, progress: ProgressLog, checkpoints: Checkpoints) -> None:
        self._progress = progress
        self._checkpoints = checkpoints

    def progress(self, job: Job[Any], done: float, total: float | None, note: str) -> None:
        """Say how far *job* is."""
        self._progress.note(job.id, done, total, note)

    def checkpoint(self, job: Job[Any], cursor: JSON) -> Future[None]:
        """Keep *cursor* for the next run of *job*."""
        return self._checkpoints.save(job, cursor)

    def cursor(self, job: Job[Any]) -> Future[JSON]:
        """Return what the last run of *job* kept."""
        return self._checkpoints.load(job)
