"""What features offer to a running function through `goose.current`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from goose.brokers.base import Broker
from goose.features.checkpoints import Checkpoints
from goose.features.results.progress import ProgressLog
from goose.jobs import JSON, Job
from goose.plugins import load
from goose.stores.base import Store

if TYPE_CHECKING:
    from goose.batching import Batch


class Inside:
    """Implements `goose.middleware.base.Inside` for one process. Thread-safe.

    Args:
        progress: Takes what jobs say of how far they are.
        checkpoints: Keeps where they can go on.
        broker: Where jobs go that a function adds to its batch.
        store: Returns where batches are.
    """

    def __init__(
        self,
        progress: ProgressLog,
        checkpoints: Checkpoints,
        broker: Broker,
        store: Callable[[], Store],
    ) -> None:
        self._progress = progress
        self._checkpoints = checkpoints
        self._broker = broker
        self._store = store

    def progress(self, job: Job[Any], done: float, total: float | None, note: str) -> None:
        """Say how far *job* is."""
        self._progress.note(job.id, done, total, note)

    def checkpoint(self, job: Job[Any], cursor: JSON) -> Future[None]:
        """Keep *cursor* for the next run of *job*."""
        return self._checkpoints.save(job, cursor)

    def cursor(self, job: Job[Any]) -> Future[JSON]:
        """Return what the last run of *job* kept."""
        return self._checkpoints.load(job)

    def batch(self, job: Job[Any]) -> Batch:
        """Return the batch of *job*."""
        # By its name: client and worker know each other only through a broker.
        of_job: Callable[..., Batch] = load("goose.batching:of_job", kind="feature")
        return of_job(job, self._broker, self._store())
