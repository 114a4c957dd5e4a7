"""A batch as a client sees it: jobs that belong together, and callbacks when all have ended.

::

    with goose.batch(name="letters", on_success=goose.call(report, "letters")) as batch:
        for address in addresses:
            batch.enqueue(send_letter, address)

A `Batch` is a `Client` whose jobs are members, so it has the same verbs; ``batch.using(…)`` is the
same batch by other options. It is opened where the ``with`` block begins. Where the block ends it is
sealed: from then on it ends with its last member. A block that raises leaves it open, and what it has
enqueued runs on: then the same can be done again with ``resume=True``, or the batch be deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from goose.brokers.base import Broker, Inspector, State
from goose.calls import Call
from goose.clients import Client
from goose.errors import BatchError, BrokerError, ConfigError, EnqueueError, Unsupported
from goose.features.batches.joining import Membership
from goose.features.batches.records import LINGER, NAME, Event, Progress, Record, check_name
from goose.features.batches.trait import membership as membership_of
from goose.features.batches.waiting import waits
from goose.features.once import once
from goose.jobs import Job, new_id
from goose.options import Callback, Plan, Using
from goose.sealing import Sealed
from goose.sending import instead
from goose.stores.base import Store
from goose.values import seconds

if TYPE_CHECKING:
    from goose.aio_batching import Batch as AsyncBatch
    from goose.features.results import Progress as JobProgress

CHUNK = 500
"""Jobs made and stored at a time."""


class Batch(Client):
    """A batch, and a client whose jobs are its members. Any thread may use it.

    Made by ``goose.batch``, `Client.enqueue_batch` and `Client.find_batch`.

    Args:
        client: Whose options and connections it has.
        record: What it is, or is to be.
        plan: How it is to be opened when it is entered; None if it exists.
    """

    def __init__(self, client: Client, record: Record, plan: Plan | None = None) -> None:
        vars(self).update(vars(client))
        self._client = client
        self._record = record
        self._plan = plan or {}
        self.membership: Membership | None = None
        self._inline: Store | None = None
        if plan is None:
            self._join(opener=False)

    def using(self, **given: Unpack[Using]) -> Batch:
        """Return the same batch with these options for its jobs, as `Client.using`.

        Raises:
            Unsupported: With another broker, whose workers would not know the batch.
        """
        if given.get("broker") is not None:
            raise Unsupported(
                "all members of a batch are on one broker: give broker= before batch()"
            )
        other = super().using(**given)
        assert isinstance(other, Batch)
        return other

    @property
    def store(self) -> Store:
        """See `Client.store`."""
        return self._inline or self._client.store

    # --- its life --------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Its id, which members have in theirs."""
        return self._record.id

    @property
    def name(self) -> str:
        """The name it was given; empty if none."""
        if not self._record.opened_at and self.membership is not None:  # known by its id only
            self._record = self._existing(self.batches.get(self.id))
        return self._record.name

    def open(self) -> Self:
        """Open it, or join the one of its name; the ``with`` block does that.

        Raises:
            BatchError: There is a batch of that name, and it is not to be gone on with.
            CallError: A callback cannot be stored.
            Unsupported: There is no store for batches, or a connection is bound.
            BrokerError: The store failed.
        """
        if self.membership is not None:
            return self
        if self._to.transacts:
            raise Unsupported(
                "a batch cannot be part of a transaction; leave out connection= and outbox="
            )
        if instead.get() is not None:  # in a test, where jobs run at once and nothing is stored
            from goose.stores.memory import MemoryStore

            self._inline = MemoryStore()
        batches, name, shared = self.batches, self._record.name, self._record.shared
        found = batches.named(name) if name else None
        if found is not None and (self._plan.get("resume") or (shared and found.shared)):
            self._record = found
            self._join(opener=not found.shared, resumed=True)
        else:
            self._record = batches.open(self._record, self._callbacks())
            self._join(opener=not shared)
        return self

    def seal(self) -> None:
        """Say that all members are in, but for those that members add: it ends with the last of them.

        Raises:
            BatchError: It was deleted.
            BrokerError: Store or broker failed; call it again.
        """
        membership = self._joined()
        membership.note()
        record = self.batches.seal(self.id, membership.count if membership.opener else 0)
        self._record = self._existing(record)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None and not self._record.shared:
            self.seal()
        elif self.membership is not None:
            with suppress(BrokerError):
                self.membership.note()

    # --- members ---------------------------------------------------------------------------

    def enqueue_batch(
        self, fn: Callable[..., Any], items: Iterable[tuple[Any, ...] | Call[Any]], /
    ) -> Batch:
        """Store one call of *fn* for each item, in chunks of 500, and seal the batch.

        Items are taken one chunk at a time, so there may be millions of them. Inside of the
        batch's ``with`` block, and where it exists already, it is not sealed.

        Args:
            fn: As in `enqueue`, whose errors this has.
            items: Tuples of positional arguments, or ``goose.call(fn, …)``. To go on with them
                after a crash give the same ones in the same order.

        Returns:
            This batch.
        """
        if self.membership is None:
            with self:
                return self.enqueue_batch(fn, items)
        chunks = iter(items)
        while chunk := list(islice(chunks, CHUNK)):
            self.send([*self._sealed(fn, chunk)])
        return self

    def _sealed(self, fn: Callable[..., Any], items: Iterable[Any]) -> Iterator[Sealed]:
        membership = self._joined()
        fresh = (item for item in items if not membership.passed_over())
        return self.sealer.seal_many(fn, fresh)

    def _store_one(self, sealed: Sealed, *, later: bool) -> Job[Any]:
        return self.send([sealed])[0]

    def send(self, sealed: Sequence[Sealed]) -> list[Job[Any]]:
        """See `Client.send`."""
        fresh = self.before_storing(sealed)
        try:
            stored = super().send(fresh) if fresh else []
        except EnqueueError as error:
            self.after_failing(error)
            raise
        return self.after_storing(sealed, fresh, stored)

    def before_storing(self, sealed: Sequence[Sealed]) -> list[Sealed]:
        """Return as members those of *sealed* that have to be stored.

        Raises:
            BatchError: The batch is not open, or does not exist any more.
            Unsupported: A connection is bound.
        """
        if self._to.transacts:
            raise Unsupported(
                "a member of a batch cannot be part of a transaction; leave out connection= and outbox="
            )
        return self._joined().joined(sealed)

    def after_storing(
        self, sealed: Sequence[Sealed], fresh: Sequence[Sealed], stored: Sequence[Job[Any]]
    ) -> list[Job[Any]]:
        """Note that members wait; return what the caller gets for *sealed*.

        Raises:
            BrokerError: The store failed.
        """
        self._joined().stored(stored)
        if self._inline is not None:
            ran = [job for job, envelope in fresh if envelope.delay is envelope.due_at is None]
            self._joined().ran(ran)
        if len(fresh) == len(sealed):
            return list(stored)
        answers = {job.id: answer for (job, _), answer in zip(fresh, stored, strict=True)}
        return [answers.get(job.id, job) for job, _ in sealed]

    def after_failing(self, error: EnqueueError) -> None:
        """Note that those that were stored wait."""
        self._joined().stored(job for job, known in error.jobs.items() if known == "stored")

    @property
    def aio(self) -> AsyncBatch:
        """The same batch with verbs to ``await``."""
        from goose.aio_batching import Batch as AsyncBatch

        return AsyncBatch(self)

    # --- looking and changing --------------------------------------------------------------

    @overload
    def progress(self, /) -> Progress: ...
    @overload
    def progress(self, job: Job[Any] | str, /) -> JobProgress | None: ...
    def progress(self, job: Job[Any] | str = "", /) -> Progress | JobProgress | None:
        """Return how far it is, reading a thousand members in one value; of a *job* as `Client`'s.

        Raises:
            BatchError: It is deleted, or ended long ago.
            BrokerError: The store failed.
        """
        if job:
            return super().progress(job)
        if self.membership is not None:
            self.membership.note()
        return self.batches.progress(self._existing(self.batches.get(self.id)))

    def has_ended(self) -> bool:
        """Whether all members have ended and callbacks are enqueued.

        Raises:
            BatchError: As `progress`.
        """
        return self._existing(self.batches.get(self.id)).phase == "ended"

    def wait(self, timeout: float | timedelta | None = None) -> Progress:
        """Wait until it has ended; return how.

        Args:
            timeout: Seconds (or `timedelta`), or None for ever.

        Raises:
            TimeoutError: It has not ended by then.
            BatchError: As `progress`.
        """
        for delay in waits(timeout):
            if self.has_ended():
                return self.progress()
            time.sleep(delay)
        raise TimeoutError(f"batch {self._record.label} has not ended")

    def cancel(self, *jobs: Any) -> dict[str, Any]:
        """Have members end as cancelled instead of starting, from a second from now on.

        Queued ones are removed, running ones cancelled as by `goose.Client.cancel`, if the broker can list
        them (all queues are read); those that wait for others end after them. With *jobs* only these, at once.

        Returns:
            What became of *jobs*, or of the members that ran, by id.

        Raises:
            BatchError: As `progress`.
            BrokerError: Store or broker failed; call it again.
        """
        if jobs:
            return super().cancel(*jobs)
        self._existing(self.batches.cancel(self.id))
        if not isinstance(self.broker, Inspector):
            return {}
        for state in (State.SCHEDULED, State.READY):
            with suppress(Unsupported):
                waiting = list(self.inspector.find(state, where=self._has))
                self.inspector.remove(waiting, state=state, ending="cancelled")
        with suppress(Unsupported):
            return super().cancel(*self.inspector.find(State.RUNNING, where=self._has))
        return {}

    def delete(self) -> bool:
        """Forget it; say whether it was there. Its members run on, and no callback comes."""
        return self.batches.delete(self.id)

    def _has(self, job: Job[Any]) -> bool:
        member = membership_of(job)
        return member is not None and member[0] == self.id

    def _joined(self) -> Membership:
        if self.membership is None:
            raise BatchError("the batch is not open: write `with goose.batch(…) as batch:`")
        return self.membership

    def _join(self, *, opener: bool, resumed: bool = False) -> None:
        self.membership = Membership(
            self.id, self.batches, opener=opener, resumed=resumed, mono=time.monotonic
        )
        self.sealer = self.sealer.joining(self.membership.join)

    def _existing(self, record: Record | None) -> Record:
        if record is None:
            raise BatchError(f"batch {self._record.label} is deleted, or ended long ago")
        return record

    def _callbacks(self) -> dict[Event, Job[Any]]:
        given = {"success": self._plan.get("on_success"), "complete": self._plan.get("on_complete")}
        return {event: self._callback(event, fn) for event, fn in given.items() if fn is not None}  # type: ignore[misc]

    def _callback(self, event: str, fn: Callback) -> Job[Any]:
        call = fn if isinstance(fn, Call) else Call(fn, (), {})
        job, _ = self.sealer.seal(call.fn, call.args, call.kwargs)
        return once(job.evolve(traits={**job.traits, NAME: {"id": self.id, "on": event}}))


def planned(client: Client, plan: Plan) -> Batch:
    """Return a batch that is opened, with the options of *client*, when it is entered.

    Raises:
        ConfigError: The plan cannot be meant.
    """
    name, linger = plan.get("name"), plan.get("linger")
    client.check_group(client.sealer.group)
    if plan.get("resume") and name is None:
        raise ConfigError("resume=True goes on with a batch by its name: give name=… too")
    try:
        kept = LINGER if linger is None else seconds(linger, "linger")
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None
    record = Record(
        id=new_id(),
        opened_at=0.0,
        name="" if name is None else check_name(name),
        linger=max(1.0, kept),
        shared=plan.get("stay_open", False),
    )
    return Batch(client, record, plan)


def of_job(job: Job[Any], broker: Broker, store: Store) -> Batch:
    """Return the batch that *job*, which runs here, is a member or a callback of.

    Raises:
        LookupError: It is of none.
    """
    match job.traits.get(NAME):
        case {"id": str(id_)}:
            return Batch(Inner(broker, store), Record(id=id_, opened_at=0.0))
        case _:
            raise LookupError(f"job {job.id} is of no batch")


class Inner(Client):
    """A client inside of a worker: by this process's settings, on the worker's broker and store."""

    def __init__(self, broker: Broker, store: Store) -> None:
        super().__init__(broker)
        self._inner_store = store

    @property
    def store(self) -> Store:
        """See `Client.store`."""
        return self._inner_store
