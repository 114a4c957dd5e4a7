"""Several jobs that depend on each other, enqueued together: all of them, or none.

A `Flow` gathers sealed jobs; leaving its ``with`` block sends them. Those that depend on others go to
the store first, where they wait, and those that may run at once to the broker last. So a program that
is killed in between leaves nothing that runs, and of a broker that refuses nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeAlias, TypeVar, Unpack, cast, overload

from goose._edges import After
from goose.calls import Call
from goose.errors import CallError
from goose.features.asking import depending
from goose.jobs import Job, seal
from goose.options import Bound
from goose.sealing import Sealed

if TYPE_CHECKING:
    from goose.clients import Client

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
Step: TypeAlias = Callable[[A], Coroutine[Any, Any, B]] | Callable[[A], B] | Call[B]
"""What comes after a result of one type, and returns the next."""


class Flow:
    """Jobs that are enqueued together when its ``with`` block ends without an error.

    For one thread. `add` makes a job; its ``output`` as an argument of a later one makes that one wait
    and take it, and ``using(depends_on=[…])`` makes one wait that takes nothing.

    Args:
        client: Whose options and broker the jobs have.
        sealed: What was added so far, shared with the flows that `using` returns.
    """

    def __init__(self, client: Client, sealed: list[Sealed] | None = None) -> None:
        self.client = client
        self._sealed = [] if sealed is None else sealed

    @property
    def jobs(self) -> Sequence[Job[Any]]:
        """Its jobs so far, in the order in which they were added."""
        return [job for job, _ in self._sealed]

    def using(self, **given: Unpack[Bound]) -> Flow:
        """Return this flow with options bound for what is added through it; see `Client.using`.

        Raises:
            ConfigError: A value cannot be meant.
        """
        return Flow(self.client.using(**given), self._sealed)

    @overload
    def add(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    @overload
    def add(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    def add(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Return the job of a call of *fn*, which is not enqueued before the flow is.

        Raises:
            CallError: The function or an argument cannot be stored.
        """
        return self.add_after((), fn, args, kwargs)

    def add_after(
        self,
        parents: tuple[After, ...],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Job[Any]:
        """Return the job of a call of *fn* that waits for *parents*, too; see `add`."""
        job, envelope = self.client.sealer.seal(fn, args, kwargs)
        job = depending(job, parents, ())
        limit = self.client.settings.max_bytes
        self._sealed.append(
            (job, seal(job, delay=envelope.delay, due_at=envelope.due_at, max_bytes=limit))
        )
        return job

    def enqueue(self) -> Sequence[Job[Any]]:
        """Enqueue what was added; the end of the ``with`` block does.

        Raises:
            FlowError: The jobs depend on each other in a circle, or on one that is not there.
            EnqueueError: The broker did not confirm; see its ``jobs``.
            BrokerError: The store failed; nothing is enqueued.
            Unsupported: There is no store.
        """
        return self.client.send(self._sealed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.enqueue()


class AsyncFlow(Flow):
    """`Flow` whose ``async with`` block ends with an enqueue that is awaited."""

    def __init__(self, client: Client, send: Callable[[Sequence[Sealed]], Any]) -> None:
        super().__init__(client)
        self._send = send

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self._send(self._sealed)


Link = Call[Any] | Callable[..., Any]


def linked(flow: Flow, first: Link, rest: Sequence[Link]) -> Job[Any]:
    """Add a chain to *flow*; return its last job.

    Raises:
        CallError: A call or function cannot be stored.
    """
    job = _link(flow, first, None)
    for link in rest:
        job = _link(flow, link, job)
    return job


def _link(flow: Flow, link: Link, before: Job[Any] | None) -> Job[Any]:
    if isinstance(link, Call):
        parents = () if before is None else (After(before.id),)
        return flow.add_after(parents, link.fn, link.args, link.kwargs)
    if not callable(link):
        raise CallError(f"{link!r:.80} is no part of a chain: give functions, or goose.call(fn, …)")
    return flow.add(link) if before is None else flow.add(link, before.output)


class Flowing:
    """The part of a client that enqueues flows; a base class of `goose.Client`, for its length."""

    def flow(self) -> Flow:
        """Return an empty flow: jobs that depend on each other and are enqueued together.

        ``with client.flow() as flow: flow.add(fn, …)``; see `goose.flowing.Flow`.
        """
        return Flow(cast("Client", self))

    @overload
    def chain(self, first: Call[A] | Callable[[], A], second: Step[A, B], /) -> Job[B]: ...
    @overload
    def chain(
        self, first: Call[A] | Callable[[], A], second: Step[A, B], third: Step[B, C], /
    ) -> Job[C]: ...
    @overload
    def chain(
        self,
        first: Call[A] | Callable[[], A],
        second: Step[A, B],
        third: Step[B, C],
        fourth: Step[C, D],
        /,
    ) -> Job[D]: ...
    @overload
    def chain(self, first: Link, /, *rest: Link) -> Job[Any]: ...
    def chain(self, first: Link, /, *rest: Link) -> Job[Any]:
        """Enqueue calls that run one after the other; return the last job.

        A function is called with what the one before it returned, and nothing else. A
        ``goose.call(fn, …)`` is called as it is. If one dies, those after it are cancelled.

        Raises:
            CallError: A function or an argument cannot be stored; nothing was sent.
            EnqueueError: The broker did not confirm; see its ``jobs``.
            Unsupported: There is no store.
        """
        with self.flow() as flow:
            return linked(flow, first, rest)
