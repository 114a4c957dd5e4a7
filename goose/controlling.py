"""What a client can tell queues, jobs and workers while they work.

`Controlling` is the part of `goose.Client` that does so; for asyncio code it is in
`goose.aio_controls`. The orders themselves are in `goose.features.controls`, what is done with them in
`goose.worker.follower`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from goose.brokers.base import Broker, Inspector, State
from goose.calls import Call
from goose.errors import Unsupported
from goose.jobs import Job

if TYPE_CHECKING:
    from goose.cancelling import Cancelled, Canceller
    from goose.features.controls import Controls
    from goose.inspecting import Inspection, StoredJob
    from goose.moving import Moved
    from goose.stores.base import Store


class Controlling(ABC):
    """Tells queues, jobs and workers what to do. Any thread may use it."""

    @property
    @abstractmethod
    def broker(self) -> Broker:
        """The broker of these jobs."""

    @property
    @abstractmethod
    def inspector(self) -> Inspection:
        """Looks at stored jobs."""

    @property
    @abstractmethod
    def store(self) -> Store:
        """The store that goes with the broker."""

    @property
    def controls(self) -> Controls:
        """Gives orders to workers, and says which there are.

        Raises:
            Unsupported: The broker has no store for them, and none is configured.
        """
        from goose.features.controls import Controls  # operators' needs are not every program's

        return Controls(self.store)

    def pause(self, *queues: str) -> None:
        """Have nothing taken from *queues* until `resume`, by any worker, within a second.

        Jobs can be enqueued as before, and those that run go on.

        Raises:
            ConfigError: None is named, or one cannot be a queue.
            Unsupported: The broker has no store, and none is configured.
            BrokerError: The store failed.
        """
        self.controls.pause(*queues)

    def resume(self, *queues: str) -> None:
        """Have jobs taken from *queues* again; errors as `pause`."""
        self.controls.resume(*queues)

    def cancel(self, *jobs: Job[Any] | StoredJob | str) -> dict[str, Cancelled]:
        """End jobs (or ids) wherever they are; return what became of each, by id.

        A queued one is removed, and so is one that waits for others, which is final: it does not wait
        again when one of those is replayed. One that runs sees ``should_stop`` within a second, and is
        cancelled at its next ``await`` if its function is async; however it ends then, it is
        not tried again. See `goose.cancelling.Cancelled` for the words of the answer.

        Raises:
            Unsupported: The broker has no store, and none is configured.
            BrokerError: Broker or store failed; some may be cancelled.
        """
        return self._canceller().cancel(job if isinstance(job, str) else job.id for job in jobs)

    def cancel_all(
        self,
        queue: str | None = None,
        *,
        fn: Callable[..., Any] | str | None = None,
        call: Call[Any] | None = None,
        where: Callable[[Job[Any]], bool] | None = None,
        older_than: float | timedelta = 0.0,
    ) -> dict[str, Cancelled]:
        """End every scheduled, ready or running job that fits all that is given, as `cancel`.

        Jobs that are enqueued while it works may be left out. So are those that wait for others
        (``depends_on``), which are not on the broker: name them to `cancel`.

        Args:
            queue: Only this one; None is all.
            fn: Only jobs of this function, or of this ``module:name``.
            call: Only jobs of this function with exactly these arguments.
            where: Only jobs for which it returns true.
            older_than: Only jobs in their state for at least so many seconds (or `timedelta`);
                scheduled ones always fit.
        """
        inspection = self.inspector
        found: list[str] = []
        for state in (State.SCHEDULED, State.READY, State.RUNNING):
            fitting = inspection.find(
                state, queue, fn=fn, call=call, where=where, older_than=older_than
            )
            try:
                found += [stored.id for stored in fitting]
            except Unsupported:
                continue  # it does not show jobs in that state
        return self._canceller().cancel(found)

    def move(
        self,
        target: str | Broker | None = None,
        *,
        queue: str,
        to_queue: str | None = None,
        on_progress: Callable[[Moved], object] = lambda _: None,
    ) -> Moved:
        """Move the scheduled and ready jobs of *queue* to another broker, queue, or both.

        Workers may be at work on both sides: each job runs on one of them. If it is interrupted,
        none is lost, and it may be called again. Running and dead jobs stay.

        Args:
            target: URL or `Broker`; None is this one.
            queue: Where the jobs are.
            to_queue: Where they go; None keeps the name.
            on_progress: Called now and then with how far it has come.

        Raises:
            ConfigError: They are there already, or a name cannot be a queue.
            Unsupported: The broker does not show its jobs, or has no store where one is needed.
            BrokerError: A broker failed; call it again.
        """
        from goose.moving import Mover

        mover = Mover(self.broker, target, queue=queue, to_queue=to_queue, store=lambda: self.store)
        return mover.run(on_progress)

    def _canceller(self) -> Canceller:
        from goose.cancelling import Canceller
        from goose.features.flows.book import Flows
        from goose.features.traits import Traits

        broker, store = self.broker, self.store
        shown = self.inspector if isinstance(broker, Inspector) else None
        traits = Traits(broker, lambda: store)
        return Canceller(shown, self.controls, Flows(store, broker, traits.tools.ended))
