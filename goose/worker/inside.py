"""What features offer to a running function through `goose.current`."""

from __future__ import annotations

from typing import Any

from goose.features.results.progress import ProgressLog
from goose.jobs import Job


class Inside:
    """Implements `goose.middleware.base.Inside` for one process. Thread-safe; never blocks."""

    def __init__(self, progress: ProgressLog) -> None:
        self._progress = progress

    def progress(self, job: Job[Any], done: float, total: float | None, note: str) -> None:
        """Say how far *job* is."""
        self._progress.note(job.id, done, total, note)
