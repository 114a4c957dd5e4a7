"""The verbs of Goose for asyncio code.

``await goose.aio.enqueue(fn, …)`` does what ``goose.enqueue`` does, with the same options,
errors and result, without blocking the event loop while the broker works. Arguments are
checked and encoded at once, in the loop; the sealed job then takes the same way as those of threads, together with
those of other tasks (see `goose.aio_sending`), so a hundred tasks cost a few round trips and no thread each.

A cancelled ``await`` leaves it unknown whether the job is stored; nothing else suffers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, overload

from goose import aio_sending, clients
from goose.aio_controls import AsyncControlling
from goose.brokers.base import Broker
from goose.calls import Call
from goose.combining import BATCH
from goose.controlling import Controlling
from goose.errors import EnqueueError, Stored
from goose.features.asking import Claimed
from goose.flowing import A, AsyncFlow, B, C, Link, Step, linked
from goose.jobs import Job, Status
from goose.metrics.base import Metrics
from goose.options import Bound, Plan, Using
from goose.sealing import BeforeEnqueue, Sealed, delay_of, instant_of
from goose.sending import storing
from goose.settings import Settings

if TYPE_CHECKING:
    from goose.aio_batching import Batch
    from goose.features.crons import Cron, Crons
    from goose.features.results import Progress

P = ParamSpec("P")
R = TypeVar("R")


class Client(AsyncControlling):
    """`goose.Client` with verbs to ``await``; usable from any event loop and thread.

    Args:
        broker: As for `goose.Client`, like all that follow.
        before_enqueue: Changes or refuses jobs; must not block.
        metrics: What enqueued jobs are counted into.
        settings: What decides where nothing nearer does.
        **given: Options of its jobs.

    Raises:
        ConfigError: A value cannot be meant.
    """

    def __init__(
        self,
        broker: str | Broker | None = None,
        *,
        before_enqueue: Sequence[str | BeforeEnqueue] | None = None,
        metrics: Sequence[str | Metrics] | None = None,
        settings: Settings | None = None,
        **given: Unpack[Bound],
    ) -> None:
        self._client = clients.Client(
            broker, before_enqueue=before_enqueue, metrics=metrics, settings=settings, **given
        )
        self._sealer = self._client.sealer

    @classmethod
    def of(cls, client: clients.Client) -> Client:
        """Return *client* with verbs to ``await``: the same options, connections and lines."""
        made = object.__new__(cls)
        made._client = client
        made._sealer = client.sealer
        return made

    def using(self, **given: Unpack[Using]) -> Client:
        """Return a client with these options bound on top, as `goose.Client.using`.

        With *connection* or *outbox*, one that is awaited (psycopg's ``AsyncConnection``, SQLAlchemy's
        ``AsyncSession`` …) is awaited; any other blocks the event loop for as long as its
        database takes.
        """
        return Client.of(self._client.using(**given))

    @overload
    async def enqueue(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    @overload
    async def enqueue(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    async def enqueue(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Store a call of *fn*, as `goose.Client.enqueue`."""
        sealed = self._sealer.seal(fn, args, kwargs)
        return await self._store_one(sealed, later=False)

    @overload
    async def enqueue_in(
        self,
        delay: float | timedelta,
        fn: Callable[P, Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Job[R]: ...
    @overload
    async def enqueue_in(
        self, delay: float | timedelta, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    async def enqueue_in(
        self, delay: float | timedelta, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Job[Any]:
        """Store a call of *fn* that is due after *delay* (seconds), as `goose.Client.enqueue_in`."""
        sealed = self._sealer.seal(fn, args, kwargs, delay=delay_of(delay))
        return await self._store_one(sealed, later=True)

    @overload
    async def enqueue_at(
        self,
        instant: datetime,
        fn: Callable[P, Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Job[R]: ...
    @overload
    async def enqueue_at(
        self, instant: datetime, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    async def enqueue_at(
        self, instant: datetime, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Job[Any]:
        """Store a call of *fn* that is due at *instant*, as `goose.Client.enqueue_at`."""
        sealed = self._sealer.seal(fn, args, kwargs, due_at=instant_of(instant))
        return await self._store_one(sealed, later=True)

    @overload
    async def enqueue_many(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        items: Iterable[tuple[Any, ...] | Call[R]],
        /,
    ) -> list[Job[R]]: ...
    @overload
    async def enqueue_many(
        self, fn: Callable[..., R], items: Iterable[tuple[Any, ...] | Call[R]], /
    ) -> list[Job[R]]: ...
    async def enqueue_many(
        self, fn: Callable[..., Any], items: Iterable[tuple[Any, ...] | Call[Any]], /
    ) -> list[Job[Any]]:
        """Store one call of *fn* for each item, as `goose.Client.enqueue_many`."""
        sealed: list[Sealed] = []
        for each in self._sealer.seal_many(fn, items):
            sealed.append(each)
            if len(sealed) % BATCH == 0:
                await asyncio.sleep(0)  # other tasks run between chunks of encoding
        return await self._store(sealed)

    async def submit(
        self, jobs: Mapping[Job[Any], Stored] | Iterable[Job[Any]], /
    ) -> list[Job[Any]]:
        """Store jobs that exist already, as `goose.Client.submit`."""
        sealed = self._sealer.again(jobs)
        return await self._store(sealed)

    @overload
    async def cron(
        self,
        name: str,
        expression: str,
        fn: Callable[P, Coroutine[Any, Any, Any]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Cron: ...
    @overload
    async def cron(
        self,
        name: str,
        expression: str,
        fn: Callable[P, Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Cron: ...
    async def cron(
        self, name: str, expression: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Cron:
        """Have a call of *fn* enqueued at every instant of *expression*, as `goose.Client.cron`."""
        make: Callable[..., Cron] = self._client.cron
        return await asyncio.to_thread(make, name, expression, fn, *args, **kwargs)

    def batch(self, **plan: Unpack[Plan]) -> Batch:
        """Return a batch, to be opened by ``async with``, as `goose.Client.batch`."""
        from goose.aio_batching import Batch  # not every program's

        return Batch(self._client.batch(**plan))

    async def enqueue_batch(
        self, fn: Callable[..., Any], items: Iterable[tuple[Any, ...] | Call[Any]], /
    ) -> Batch:
        """Store one call of *fn* for each item as a batch of its own, as `goose.Client.enqueue_batch`."""
        return await self.batch().enqueue_batch(fn, items)

    async def find_batch(self, wanted: str) -> Batch:
        """Return the batch of that name or id, as `goose.Client.find_batch`."""
        from goose.aio_batching import Batch  # not every program's

        return Batch(await asyncio.to_thread(self._client.find_batch, wanted))

    def flow(self) -> AsyncFlow:
        """Return an empty flow, as `goose.Client.flow`: ``async with aio.flow() as flow: …``."""
        return AsyncFlow(self._client, self._store)

    @overload
    async def chain(self, first: Call[A] | Callable[[], A], second: Step[A, B], /) -> Job[B]: ...
    @overload
    async def chain(
        self, first: Call[A] | Callable[[], A], second: Step[A, B], third: Step[B, C], /
    ) -> Job[C]: ...
    @overload
    async def chain(self, first: Link, /, *rest: Link) -> Job[Any]: ...
    async def chain(self, first: Link, /, *rest: Link) -> Job[Any]:
        """Enqueue calls that run one after the other, as `goose.Client.chain`."""
        async with self.flow() as flow:
            return linked(flow, first, rest)

    async def result(
        self,
        job: Job[R] | str,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109 - as its sync twin
        /,
    ) -> R:
        """Wait until *job* (or the job of that id) has ended, as `goose.Client.result`."""
        return await self._client.aresult(job, timeout)

    async def status(self, job: Job[Any] | str, /) -> Status:
        """Return where *job* is in its life, as `goose.Client.status`."""
        return await asyncio.to_thread(self._client.status, job)

    async def progress(self, job: Job[Any] | str, /) -> Progress | None:
        """Return what *job* said last of how far it is, as `goose.Client.progress`."""
        return await asyncio.to_thread(self._client.progress, job)

    def _controlling(self) -> Controlling:
        return self._client

    @property
    def crons(self) -> AsyncCrons:
        """Looks at cron entries and changes them, as `goose.Client.crons`."""
        return AsyncCrons(self._client)

    async def close(self) -> None:
        """Close the connections this client made, as `goose.Client.close`."""
        await asyncio.get_running_loop().run_in_executor(None, self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _store_one(self, sealed: Sealed, *, later: bool) -> Job[Any]:
        if sealed[0].traits or sealed[0].group:
            return (await self._store([sealed]))[0]
        await aio_sending.store_one(sealed, self._client.door, self._client.meter(), later=later)
        return sealed[0]

    async def _store(self, sealed: Sequence[Sealed]) -> list[Job[Any]]:
        for job, _ in sealed:
            self._client.check_group(job.group)
        claimed = await self._claimed(sealed)
        steps = storing(claimed.sealed, self._client.door, self._client.meter())
        try:
            for door, envelopes in steps:
                try:
                    await aio_sending.send(door, envelopes)
                except Exception as error:  # noqa: BLE001 - it comes back sorted out
                    steps.throw(error)
        except EnqueueError as error:
            error.jobs = await asyncio.to_thread(claimed.undo, error.jobs)
            raise
        if claimed.claims:
            await asyncio.to_thread(claimed.sent)
        return [claimed.answer(job) for job, _ in sealed]

    async def _claimed(self, sealed: Sequence[Sealed]) -> Claimed:
        if not any(job.traits for job, _ in sealed):
            return Claimed(sealed)
        return await asyncio.to_thread(self._client.claimed, sealed)


class AsyncCrons:
    """`goose.features.crons.Crons` with verbs to ``await``, which run on a thread."""

    def __init__(self, client: clients.Client) -> None:
        self._client = client

    async def list(self) -> list[Cron]:
        """Return all entries, by name."""
        return await asyncio.to_thread(lambda: self._crons().list())

    async def get(self, name: str) -> Cron | None:
        """Return the entry of that name, None if there is none."""
        return await asyncio.to_thread(lambda: self._crons().get(name))

    async def pause(self, name: str) -> Cron:
        """Have it fire no more, as `Crons.pause`."""
        return await asyncio.to_thread(lambda: self._crons().pause(name))

    async def resume(self, name: str) -> Cron:
        """Have it fire again, as `Crons.resume`."""
        return await asyncio.to_thread(lambda: self._crons().resume(name))

    async def run(self, name: str) -> Job[Any]:
        """Enqueue its job now, as `Crons.run`."""
        return await asyncio.to_thread(lambda: self._crons().run(name))

    async def delete(self, name: str) -> bool:
        """Forget the entry, as `Crons.delete`."""
        return await asyncio.to_thread(lambda: self._crons().delete(name))

    def _crons(self) -> Crons:
        return self._client.crons


_default = Client.of(clients.default)

batch = _default.batch
chain = _default.chain
cron = _default.cron
enqueue = _default.enqueue
enqueue_in = _default.enqueue_in
enqueue_at = _default.enqueue_at
enqueue_batch = _default.enqueue_batch
enqueue_many = _default.enqueue_many
flow = _default.flow
submit = _default.submit
using = _default.using

__all__ = [
    "AsyncCrons",
    "Client",
    "batch",
    "chain",
    "cron",
    "enqueue",
    "enqueue_at",
    "enqueue_batch",
    "enqueue_in",
    "enqueue_many",
    "flow",
    "submit",
    "using",
]
