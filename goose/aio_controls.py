"""`goose.controlling` for asyncio code: the same verbs to ``await``, which run on a thread.

They are few and rare, and none of them is worth a second implementation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from goose.brokers.base import Broker
from goose.calls import Call
from goose.controlling import Controlling
from goose.jobs import Job

if TYPE_CHECKING:
    from goose.cancelling import Cancelled
    from goose.features.controls import Controls, WorkerRecord
    from goose.inspecting import StoredJob
    from goose.moving import Moved


class AsyncControlling:
    """`Controlling` with verbs to ``await``. Any event loop may use it."""

    def _controlling(self) -> Controlling:
        """Return the client whose verbs these are."""
        raise NotImplementedError

    async def pause(self, *queues: str) -> None:
        """Have nothing taken from *queues*, as `Controlling.pause`."""
        await asyncio.to_thread(self._controlling().pause, *queues)

    async def resume(self, *queues: str) -> None:
        """Have jobs taken from *queues* again, as `Controlling.resume`."""
        await asyncio.to_thread(self._controlling().resume, *queues)

    async def cancel(self, *jobs: Job[Any] | StoredJob | str) -> dict[str, Cancelled]:
        """End jobs wherever they are, as `Controlling.cancel`."""
        return await asyncio.to_thread(self._controlling().cancel, *jobs)

    async def cancel_all(
        self,
        queue: str | None = None,
        *,
        fn: Callable[..., Any] | str | None = None,
        call: Call[Any] | None = None,
        where: Callable[[Job[Any]], bool] | None = None,
        older_than: float | timedelta = 0.0,
    ) -> dict[str, Cancelled]:
        """End every queued or running job that fits, as `Controlling.cancel_all`."""
        return await asyncio.to_thread(
            lambda: self._controlling().cancel_all(
                queue, fn=fn, call=call, where=where, older_than=older_than
            )
        )

    async def move(
        self, target: str | Broker | None = None, *, queue: str, to_queue: str | None = None
    ) -> Moved:
        """Move the jobs of *queue*, as `Controlling.move`."""
        return await asyncio.to_thread(
            lambda: self._controlling().move(target, queue=queue, to_queue=to_queue)
        )

    @property
    def controls(self) -> AsyncControls:
        """Gives orders to workers, as `Controlling.controls`."""
        return AsyncControls(self._controlling())


class AsyncControls:
    """`goose.features.controls.Controls` with verbs to ``await``, which run on a thread."""

    def __init__(self, client: Controlling) -> None:
        self._client = client

    async def paused(self) -> dict[str, float]:
        """Return the queues that are paused, and since when, as `Controls.paused`."""
        return await asyncio.to_thread(lambda: self._controls().paused())

    async def workers(self) -> list[WorkerRecord]:
        """Return every worker process at work, as `Controls.workers`."""
        return await asyncio.to_thread(lambda: self._controls().workers())

    async def set(
        self,
        workers: str = "*",
        *,
        concurrency: int | None = None,
        async_concurrency: int | None = None,
        processes: int | None = None,
        queues: str | Iterable[str] | Mapping[str, int] | None = None,
        log_level: str | None = None,
    ) -> None:
        """Have workers work differently, as `Controls.set`."""
        await asyncio.to_thread(
            lambda: self._controls().set(
                workers,
                concurrency=concurrency,
                async_concurrency=async_concurrency,
                processes=processes,
                queues=queues,
                log_level=log_level,
            )
        )

    async def limit(
        self,
        name: str,
        *,
        rate: float | None = None,
        per: float | timedelta = 1.0,
        concurrency: int | None = None,
    ) -> None:
        """Change a limit that jobs have, as `Controls.limit`."""
        await asyncio.to_thread(
            lambda: self._controls().limit(name, rate=rate, per=per, concurrency=concurrency)
        )

    async def unlimit(self, name: str) -> None:
        """Have a limit be again what jobs say themselves, as `Controls.unlimit`."""
        await asyncio.to_thread(lambda: self._controls().unlimit(name))

    async def reset(self, workers: str | None = None) -> None:
        """Have workers work as they were started, as `Controls.reset`."""
        await asyncio.to_thread(lambda: self._controls().reset(workers))

    def _controls(self) -> Controls:
        return self._client.controls
