"""Puts jobs on a broker.

``client.enqueue(fn, …)`` goes one way: the `Sealer` makes the frozen job and seals it in its
envelope, `storing` hands that to the broker's `Combiner`, which returns when it is stored.
Whatever is wrong with the call itself is found before anything is sent.

A `Client` is immutable. ``using`` returns another that shares connections with the first,
and that is the only place options are given, so no verb mixes its own keywords with the
function's. What a client needs from the settings, and the connection itself, it takes at
its first call, not when it is made: a client may be made while modules are imported.

The functions ``goose.enqueue`` and so on are the methods of one `Client` made that way.
``goose.aio`` has the same verbs for asyncio code; both drive
`goose.sending.storing` and differ only in how they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from goose.brokers import name_of
from goose.brokers.base import Broker, Inspector
from goose.calls import Call
from goose.errors import Stored as Known
from goose.errors import Unsupported
from goose.jobs import Job
from goose.options import Options, options
from goose.retries import Retry
from goose.sealing import BeforeEnqueue, Sealed, Sealer, delay_of, instant_of, item_arguments
from goose.sending import Door, Root, store_one, storing
from goose.settings import Settings

if TYPE_CHECKING:
    from goose.aio import Client as AsyncClient
    from goose.features.crons import CatchUp, Cron, Crons
    from goose.inspecting import Inspection
    from goose.metrics.base import Metrics
    from goose.metrics.enqueuing import Meter

P = ParamSpec("P")
R = TypeVar("R")


class Client:
    """Puts jobs on one broker, by one set of options. Immutable; any thread may use it.

    Args:
        broker: URL or `Broker`; None takes the configured one.
        queue: The line jobs wait in, unless the function's own options name one.
        retry: What happens after an error, likewise.
        timeout: Seconds (or `timedelta`) a single run may take, likewise.
        group: Whose job it is, likewise; see `using`.
        before_enqueue: Called with each new job, in this order; each returns the job as it is
            to be stored, or raises to refuse it. Callables or ``module:name``; None takes the
            configured ones.
        metrics: What enqueued jobs are counted into: backends, URLs or ``module:name``; None
            takes the configured `client_metrics`.
        settings: What decides where nothing nearer does; None: this process's settings.

    Raises:
        ConfigError: A value cannot be meant. A wrong URL is found at the first call.
    """

    def __init__(
        self,
        broker: str | Broker | None = None,
        *,
        queue: str | None = None,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        group: str | None = None,
        before_enqueue: Sequence[str | BeforeEnqueue] | None = None,
        metrics: Sequence[str | Metrics] | None = None,
        settings: Settings | None = None,
    ) -> None:
        own = options(queue=queue, retry=retry, timeout=timeout, group=group)
        self._root = Root(broker, own, settings, before_enqueue, metrics)
        self.sealer = Sealer(self._root, Options())
        self._broker: str | Broker | None = None
        self._connection: Any = None
        self._timezone = "UTC"
        self._catch_up: CatchUp = "one"

    def using(
        self,
        *,
        queue: str | None = None,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        group: str | None = None,
        broker: str | Broker | None = None,
        connection: Any = None,
        timezone: str | None = None,
        catch_up: CatchUp | None = None,
    ) -> Client:
        """Return a client with these options bound on top; what is left out stays as it is.

        Bound options win over those of ``@goose.job``.

        Args:
            queue: The line jobs wait in.
            retry: What happens after an error; replaces the whole policy.
            timeout: Seconds (or `timedelta`) a single run may take; `math.inf` for no limit.
            group: Whose job it is, kept with it, for brokers that share a queue among groups
                (none here).
            broker: URL or `Broker` jobs go to instead.
            connection: An open connection to the broker's own database: jobs exist if and
                only if its transaction commits. Use the client on that connection's thread.
            timezone: For `cron`: whose clock it goes by, such as ``Europe/Berlin``; UTC if not given.
            catch_up: For `cron`: whether instants that passed while no worker ran are left out
                (``skip``), are one job (``one``, the default), or a job each (``all``).

        Raises:
            ConfigError: A value cannot be meant; for those of `cron` it is found there.
            Unsupported: The broker cannot store jobs in a caller's transaction.
        """
        bound = options(queue=queue, retry=retry, timeout=timeout, group=group)
        other = object.__new__(type(self))
        other._root = self._root
        other.sealer = self.sealer.using(bound)
        other._broker = self._broker if broker is None else broker
        other._connection = self._connection if connection is None else connection
        other._timezone = self._timezone if timezone is None else timezone
        other._catch_up = self._catch_up if catch_up is None else catch_up
        if connection is not None:
            other.door(later=False)
        return other

    # --- verbs ---------------------------------------------------------------------------

    @overload
    def enqueue(
        self, fn: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    @overload
    def enqueue(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    def enqueue(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Store a call of *fn* with these arguments, to run as soon as a worker is free.

        Returns:
            The job, stored as durably as the broker is told to store.

        Raises:
            CallError: The function or an argument cannot be stored; nothing was sent.
            EnqueueError: The broker did not confirm; see its ``jobs``.
            ConfigError: A setting is wrong, or the broker's driver is missing.
        """
        sealed = self.sealer.seal(fn, args, kwargs)
        store_one(sealed, self.door, self._root.meter(), later=False)
        return sealed[0]

    @overload
    def enqueue_in(
        self,
        delay: float | timedelta,
        fn: Callable[P, Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Job[R]: ...
    @overload
    def enqueue_in(
        self, delay: float | timedelta, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    def enqueue_in(
        self, delay: float | timedelta, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Job[Any]:
        """Store a call of *fn* that is due after *delay*, by the broker's clock.

        Args:
            delay: Seconds or `timedelta`, from 0 to a hundred years.
            fn: As in `enqueue`, whose errors and result this has.
            *args: The function's own.
            **kwargs: The function's own.

        Raises:
            CallError: Also if *delay* is negative, NaN, too long or no duration at all.
        """
        sealed = self.sealer.seal(fn, args, kwargs, delay=delay_of(delay))
        store_one(sealed, self.door, self._root.meter(), later=True)
        return sealed[0]

    @overload
    def enqueue_at(
        self,
        instant: datetime,
        fn: Callable[P, Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Job[R]: ...
    @overload
    def enqueue_at(
        self, instant: datetime, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    def enqueue_at(
        self, instant: datetime, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Job[Any]:
        """Store a call of *fn* that is due at *instant*; one that has passed means now.

        Args:
            instant: An aware `datetime`, at most a hundred years ahead.
            fn: As in `enqueue`, whose errors and result this has.
            *args: The function's own.
            **kwargs: The function's own.

        Raises:
            CallError: Also if *instant* is naive, too far ahead or no `datetime` at all.
        """
        sealed = self.sealer.seal(fn, args, kwargs, due_at=instant_of(instant))
        store_one(sealed, self.door, self._root.meter(), later=True)
        return sealed[0]

    @overload
    def enqueue_many(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        items: Iterable[tuple[Any, ...] | Call[R]],
        /,
    ) -> list[Job[R]]: ...
    @overload
    def enqueue_many(
        self, fn: Callable[..., R], items: Iterable[tuple[Any, ...] | Call[R]], /
    ) -> list[Job[R]]: ...
    def enqueue_many(
        self, fn: Callable[..., Any], items: Iterable[tuple[Any, ...] | Call[Any]], /
    ) -> list[Job[Any]]:
        """Store one call of *fn* for each item, in chunks of 500 jobs.

        All items are checked before the first is sent. Each chunk is stored whole or not
        at all, as far as the broker can; an `EnqueueError` says how far it came.

        Args:
            fn: As in `enqueue`, whose errors this has.
            items: Tuples of positional arguments, or ``goose.call(fn, …)``.

        Returns:
            The jobs, in the order of the items.
        """
        sealed = [self.sealer.seal(fn, *item_arguments(fn, item)) for item in items]
        self._store(sealed)
        return [job for job, _ in sealed]

    def submit(self, jobs: Mapping[Job[Any], Known] | Iterable[Job[Any]], /) -> list[Job[Any]]:
        """Store jobs that exist already, under their own ids and with the options they have.

        Meant for ``client.submit(error.jobs)`` after an `EnqueueError`: those known to be
        stored are left out, and those that were to be due later get the same delay or
        instant again. On a broker with `Capability.DEDUPES` one that was stored after all
        is not stored twice.

        Args:
            jobs: Jobs, or the ``jobs`` of an `EnqueueError`.

        Returns:
            The jobs that were sent.

        Raises:
            EnqueueError: The broker did not confirm; see its ``jobs``.
        """
        sealed = self.sealer.again(jobs)
        self._store(sealed)
        return [job for job, _ in sealed]

    @overload
    def cron(
        self,
        name: str,
        expression: str,
        fn: Callable[P, Coroutine[Any, Any, Any]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Cron: ...
    @overload
    def cron(
        self,
        name: str,
        expression: str,
        fn: Callable[P, Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Cron: ...
    def cron(
        self, name: str, expression: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Cron:
        """Have a call of *fn* enqueued at every instant of *expression*; workers see to that.

        An entry of that name which is the same is left as it is, another is replaced, so it can
        be called at every start of a program. Options, `using`'s ``timezone`` and ``catch_up``
        among them, are bound first.

        Args:
            name: 1 to 100 of the characters A-Z a-z 0-9 _ . : -
            expression: Such as ``*/5 9-17 * * MON-FRI`` or ``@daily``.
            fn: As in `enqueue`, like its arguments.
            *args: The function's own.
            **kwargs: The function's own.

        Raises:
            CallError: The function or an argument cannot be stored.
            ConfigError: Name, expression or time zone mean nothing, or never come true.
            Unsupported: There is no store for entries, or a connection is bound.
            BrokerError: The store failed.
        """
        job, _ = self.sealer.seal(fn, args, kwargs)
        if self._connection is not None:
            raise Unsupported("a cron entry cannot be part of a transaction; leave out connection=")
        return self.crons.register(
            name, expression, job, timezone=self._timezone, catch_up=self._catch_up
        )

    # --- around ----------------------------------------------------------------------------

    @property
    def crons(self) -> Crons:
        """Looks at cron entries and changes them.

        Raises:
            Unsupported: The broker has no store for them, and none is configured.
        """
        from goose.features.crons import Crons  # not every program's

        store = self._root.link(self._broker).store(self.settings)
        return Crons(store, lambda job: self.submit([job]))

    @property
    def broker(self) -> Broker:
        """The broker jobs go to."""
        return self._root.link(self._broker).broker

    def meter(self) -> Meter | None:
        """Return what counts the jobs it stores; None if nobody wants to know."""
        return self._root.meter()

    @property
    def settings(self) -> Settings:
        """What decides where no option does."""
        return self._root.settings()

    @property
    def inspector(self) -> Inspection:
        """Looks at stored jobs and changes them.

        Raises:
            Unsupported: The broker cannot do that.
        """
        from goose.inspecting import Inspection  # operators' needs are not every program's

        broker = self.broker
        if not isinstance(broker, Inspector):
            raise Unsupported(
                f"{name_of(broker)} cannot list its jobs; use the tools of the server itself"
            )
        return Inspection(broker, max_bytes=self.settings.max_bytes)

    @property
    def aio(self) -> AsyncClient:
        """The same client with verbs to ``await``."""
        from goose.aio import Client as AsyncClient

        return AsyncClient.of(self)

    def close(self) -> None:
        """Close the connections this client made, also those of all clients that share them.

        A broker that was given as an object stays open. A later call connects again.
        """
        self._root.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _store(self, sealed: Sequence[Sealed]) -> None:
        steps = storing(sealed, self.door, self._root.meter())
        for door, envelopes in steps:
            try:
                door.send(envelopes)
            except Exception as error:  # noqa: BLE001 - it comes back sorted out
                steps.throw(error)

    def door(self, later: bool) -> Door:
        """Return where envelopes that are due *later*, or ready, are handed over."""
        return self._root.link(self._broker).door(self._connection, later=later)


default: Client = Client()
"""The client behind ``goose.enqueue`` and its relatives: wholly by this process's settings."""
