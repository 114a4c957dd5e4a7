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
from typing import (
    TYPE_CHECKING,
    Any,
    ParamSpec,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from goose.access import Access
from goose.brokers.base import Broker
from goose.calls import Call
from goose.controlling import Controlling
from goose.errors import EnqueueError, Unsupported
from goose.errors import Stored as Known
from goose.flowing import Flowing
from goose.jobs import Job
from goose.options import Bound, Options, Plan, Using, options
from goose.sealing import BeforeEnqueue, Sealed, Sealer, delay_of, instant_of
from goose.sending import Destination, Root, store_one, storing
from goose.settings import Settings

if TYPE_CHECKING:
    from goose.aio import Client as AsyncClient
    from goose.batching import Batch
    from goose.features.batches.book import Batches
    from goose.features.crons import CatchUp, Cron, Crons
    from goose.metrics.base import Metrics

P = ParamSpec("P")
R = TypeVar("R")


class Client(Access, Flowing, Controlling):
    """Puts jobs on one broker, by one set of options. Immutable; any thread may use it.

    Args:
        broker: URL or `Broker`; None takes the configured one.
        before_enqueue: Called with each new job, in this order; each returns the job as it is
            to be stored, or raises to refuse it. Callables or ``module:name``; None takes the
            configured ones.
        metrics: What enqueued jobs are counted into: backends, URLs or ``module:name``; None
            takes the configured `client_metrics`.
        settings: What decides where nothing nearer does; None: this process's settings.
        **given: Options of its jobs where their function's own say nothing: see `using`.

    Raises:
        ConfigError: A value cannot be meant. A wrong URL is found at the first call.
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
        self._root = Root(broker, options(**given), settings, before_enqueue, metrics)
        self.sealer = Sealer(self._root, Options(), self)
        self._to = Destination()
        self._timezone = "UTC"
        self._catch_up: CatchUp = "one"
        self._plan: Plan = {}

    def using(self, **given: Unpack[Using]) -> Client:
        """Return a client with these options bound on top; what is left out stays as it is.

        Bound options win over those of ``@goose.job``.

        Args:
            **given: What goes for each job, such as ``queue`` or ``retry``, and what goes for
                this client: see `Using`.

        Raises:
            ConfigError: A value cannot be meant; for those of `cron` and batches found there.
            Unsupported: The broker cannot store jobs in a caller's transaction.
        """
        said: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        to = Destination(*(said.pop(name, None) for name in ("broker", "connection", "outbox")))
        other._to = to.over(self._to)
        other._timezone = said.pop("timezone", self._timezone)
        other._catch_up = said.pop("catch_up", self._catch_up)
        plan: Any = {name: said.pop(name) for name in Plan.__annotations__ if name in said}
        other._plan = cast("Plan", {**self._plan, **plan})
        other.sealer = self.sealer.using(options(**said), other)
        if other._to.transacts:
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
        return self._store_one(self.sealer.seal(fn, args, kwargs), later=False)

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
        return self._store_one(sealed, later=True)

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
        return self._store_one(sealed, later=True)

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
        return self.send(list(self.sealer.seal_many(fn, items)))

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
        return self.send(self.sealer.again(jobs))

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
            Unsupported: There is no store for entries, a connection is bound, or a group is refused.
            BrokerError: The store failed.
        """
        job, _ = self.sealer.seal(fn, args, kwargs)
        self.check_group(job.group)
        if self._to.transacts:
            raise Unsupported("a cron entry cannot be part of a transaction; leave out connection=")
        return self.crons.register(
            name, expression, job, timezone=self._timezone, catch_up=self._catch_up
        )

    # --- batches ---------------------------------------------------------------------------

    def batch(self, **plan: Unpack[Plan]) -> Batch:
        """Return a batch, to be opened by a ``with`` block: jobs that belong together.

        Args:
            **plan: See `Plan`, whose values can be bound by `using`, too.

        Raises:
            ConfigError: A name or a duration cannot be meant.
        """
        from goose.batching import planned  # not every program's

        return planned(self, {**self._plan, **plan})

    def enqueue_batch(
        self, fn: Callable[..., Any], items: Iterable[tuple[Any, ...] | Call[Any]], /
    ) -> Batch:
        """Store one call of *fn* for each item as a batch of its own, by the bound options.

        Raises:
            BatchError: As `Batch.open` and `Batch.enqueue_batch`, like the rest.
        """
        return self.batch().enqueue_batch(fn, items)

    def find_batch(self, wanted: str) -> Batch:
        """Return the batch of that name or id.

        Raises:
            ConfigError: There is none.
        """
        from goose.batching import Batch  # not every program's

        return Batch(self, self.batches.found(wanted))

    @property
    def batches(self) -> Batches:
        """The batches of the store, to list.

        Raises:
            Unsupported: The broker has no store for them, and none is configured.
        """
        from goose.features.batches.book import Batches  # not every program's

        # Callbacks go to its broker, as jobs of no batch.
        return Batches(self.store, lambda jobs: Client.submit(self, jobs) if jobs else None)

    # --- around ----------------------------------------------------------------------------

    @property
    def crons(self) -> Crons:
        """Looks at cron entries and changes them.

        Raises:
            Unsupported: The broker has no store for them, and none is configured.
        """
        from goose.features.crons import Crons  # not every program's

        return Crons(self.store, lambda job: self.submit([job])[0])

    @property
    def aio(self) -> AsyncClient:
        """The same client with verbs to ``await``."""
        from goose.aio import Client as AsyncClient

        return AsyncClient.of(self)

    def check_group(self, group: str | None) -> None:
        """Refuse a group that the broker cannot serve, before anything is done for any job."""
        if group is not None:
            self._root.check_group(self._to, group)

    def _store_one(self, sealed: Sealed, *, later: bool) -> Job[Any]:
        if sealed[0].traits or sealed[0].group:
            return self.send([sealed])[0]
        store_one(sealed, self.door, self._root.meter(), later=later)
        return sealed[0]

    def send(self, sealed: Sequence[Sealed]) -> list[Job[Any]]:
        """Store sealed jobs; return what their callers get.

        Raises:
            EnqueueError: The broker did not confirm; see its ``jobs``.
            Unsupported: The broker cannot share a queue among groups, and one has a group.
        """
        for job, _ in sealed:
            self.check_group(job.group)
        claimed = self.claimed(sealed)
        steps = storing(claimed.sealed, self.door, self._root.meter())
        try:
            for door, envelopes in steps:
                try:
                    door.send(envelopes)
                except Exception as error:  # noqa: BLE001 - it comes back sorted out
                    steps.throw(error)
        except EnqueueError as error:
            error.jobs = claimed.undo(error.jobs)
            raise
        if claimed.claims:
            claimed.sent()
        return [claimed.answer(job) for job, _ in sealed]


default: Client = Client()
"""The client behind ``goose.enqueue`` and its relatives: wholly by this process's settings."""
Job._home = default  # noqa: SLF001 - where jobs are asked about that no client of this process made
