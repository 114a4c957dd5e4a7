"""Batches for asyncio code.

::

    async with goose.aio.batch(on_success=report) as batch:
        await batch.enqueue(send_letter, address)

What `goose.batching.Batch` asks a store runs on a thread; jobs go to the broker as those of any
`goose.aio.Client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from goose import aio, batching
from goose.calls import Call
from goose.errors import EnqueueError
from goose.features.batches.records import Progress
from goose.features.batches.waiting import waits
from goose.jobs import Job
from goose.options import Using
from goose.sealing import Sealed

if TYPE_CHECKING:
    from goose.cancelling import Cancelled
    from goose.features.results import Progress as JobProgress
    from goose.inspecting import StoredJob


class Batch(aio.Client):
    """`goose.batching.Batch` with verbs to ``await``; its jobs are members.

    Args:
        batch: The same batch for other code.
    """

    def __init__(self, batch: batching.Batch) -> None:
        self._batch = batch
        self._client = batch
        self._sealer = batch.sealer

    @property
    def id(self) -> str:
        """Its id, as `goose.batching.Batch.id`."""
        return self._batch.id

    def using(self, **given: Unpack[Using]) -> Batch:
        """Return the same batch with these options for its jobs, as `goose.Client.using`."""
        return Batch(self._batch.using(**given))

    async def seal(self) -> None:
        """Say that all members are in, as `goose.batching.Batch.seal`."""
        await asyncio.to_thread(self._batch.seal)

    async def enqueue_batch(
        self, fn: Callable[..., Any], items: Iterable[tuple[Any, ...] | Call[Any]], /
    ) -> Batch:
        """Store one call of *fn* for each item, as `goose.batching.Batch.enqueue_batch`.

        It runs on a thread, and so does what yields the items.
        """
        await asyncio.to_thread(self._batch.enqueue_batch, fn, items)
        return self

    @overload
    async def progress(self, /) -> Progress: ...
    @overload
    async def progress(self, job: Job[Any] | str, /) -> JobProgress | None: ...
    async def progress(self, job: Job[Any] | str = "", /) -> Progress | JobProgress | None:
        """Return how far it is, as `goose.batching.Batch.progress`."""
        if job:
            return await super().progress(job)
        return await asyncio.to_thread(self._batch.progress)

    async def wait(self, timeout: float | timedelta | None = None) -> Progress:  # noqa: ASYNC109
        """Wait until it has ended, as `goose.batching.Batch.wait`."""
        for delay in waits(timeout):
            if await asyncio.to_thread(self._batch.has_ended):
                return await self.progress()
            await asyncio.sleep(delay)
        raise TimeoutError(f"batch {self.id} has not ended")

    async def cancel(self, *jobs: Job[Any] | StoredJob | str) -> dict[str, Cancelled]:
        """Have members end as cancelled, as `goose.batching.Batch.cancel`."""
        return await asyncio.to_thread(self._batch.cancel, *jobs)

    async def delete(self) -> bool:
        """Forget it, as `goose.batching.Batch.delete`."""
        return await asyncio.to_thread(self._batch.delete)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._batch.open)
        self._sealer = self._batch.sealer
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._batch.__exit__, kind, error, traceback)

    async def _store(self, sealed: Sequence[Sealed]) -> list[Job[Any]]:
        fresh = await asyncio.to_thread(self._batch.before_storing, sealed)
        try:
            stored = await super()._store(fresh) if fresh else []
        except EnqueueError as error:
            await asyncio.to_thread(self._batch.after_failing, error)
            raise
        return await asyncio.to_thread(self._batch.after_storing, sealed, fresh, stored)
