"""`Controls`: gives orders to the workers of one store, and says which there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta

from goose.errors import ConfigError
from goose.features.controls.knobs import knobs
from goose.features.controls.orders import (
    KEY,
    MARK_TTL,
    MARKS,
    Orders,
    dump,
    mark_of,
    marked,
    parse,
)
from goose.features.controls.roll import WorkerRecord, records
from goose.features.limits.values import checked
from goose.jobs import check_queue
from goose.stores.base import Delete, Get, Put, Store, Swap

PAGE = 200
"""Marks read in one call."""


class Controls:
    """Gives orders. Any thread may use it; what it changes, workers do within a second.

    Every method raises `BrokerError` if the store cannot be reached or refuses.

    Args:
        store: The one that the workers have.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def orders(self) -> Orders:
        """Return what holds now."""
        return parse(read(self._store))

    # --- queues --------------------------------------------------------------------------

    def pause(self, *queues: str) -> None:
        """Have nothing taken from *queues* until `resume`; what runs goes on.

        What workers hold of them and have not started is given back.

        Raises:
            ConfigError: None is named, or one cannot be a queue.
        """
        named, now = _named(queues), self._store.now()
        self._change(lambda orders: orders.pause(named, now))

    def resume(self, *queues: str) -> None:
        """Have jobs taken from *queues* again; those that are not paused stay as they are.

        Raises:
            ConfigError: None is named, or one cannot be a queue.
        """
        named = _named(queues)
        self._change(lambda orders: orders.resume(named))

    def paused(self) -> dict[str, float]:
        """Return the queues that are paused, and since when, in epoch seconds."""
        return dict(sorted(self.orders().paused.items()))

    # --- workers -------------------------------------------------------------------------

    def workers(self) -> list[WorkerRecord]:
        """Return every worker process at work, by name; one that was killed stays half a minute."""
        return sorted(records(self._store), key=lambda record: (record.name, record.pid))

    def set(
        self,
        workers: str = "*",
        *,
        concurrency: int | None = None,
        async_concurrency: int | None = None,
        processes: int | None = None,
        queues: str | Iterable[str] | Mapping[str, int] | None = None,
        log_level: str | None = None,
    ) -> None:
        """Have workers work differently from now on, those that start later too, until `reset`.

        Args:
            workers: The name of one, or a pattern such as ``web-*:*``; ``*`` is all. Where
                several fit a worker, what was set last wins, value by value.
            concurrency: Sync functions at once in each process, 1 to 1,000.
            async_concurrency: Async functions at once, 1 to 10,000.
            processes: Worker processes under each supervisor, 1 to 256; a `goose.Worker` has none.
            queues: What to take jobs from, as for a `goose.Worker`.
            log_level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``; a supervisor's too.

        Raises:
            ConfigError: A value is out of range, nothing was given, or there is no such worker,
                or it has no supervisor that takes orders for its processes.
        """
        values = knobs(
            concurrency=concurrency,
            async_concurrency=async_concurrency,
            processes=processes,
            queues=queues,
            log_level=log_level,
        )
        found = list(records(self._store))
        living = {record.name for record in found}
        if not is_pattern(workers) and workers not in living:
            raise ConfigError(
                f"there is no worker {workers!r}; there are: {', '.join(sorted(living)) or 'none'}"
            )
        supervised = any(record.processes for record in found if record.name == workers)
        if processes is not None and not is_pattern(workers) and not supervised:
            raise ConfigError(
                f"processes = {processes}: worker {workers!r} has no supervisor that takes such "
                "orders: a goose.Worker in a program of its own, or a worker of an earlier Goose"
            )

        def change(orders: Orders) -> Orders:
            # The names of workers that are gone mean nobody, or in time somebody else.
            for name in orders.workers:
                if not is_pattern(name) and name not in living:
                    orders = orders.unset(name)
            return orders.set(workers, values)

        self._change(change)

    def reset(self, workers: str | None = None) -> None:
        """Have workers work as they were started again: those set by this name or pattern, or all."""
        self._change(lambda orders: orders.unset(workers))

    # --- limits --------------------------------------------------------------------------

    def limit(
        self,
        name: str,
        *,
        rate: float | None = None,
        per: float | timedelta = 1.0,
        concurrency: int | None = None,
    ) -> None:
        """Change a limit that jobs have, for all of them, those that wait too, until `unlimit`.

        Args:
            name: As `goose.Limit` gives it, such as ``queue:mail``; ``name/key`` for one key alone.
            rate: Starts in *per* seconds (or `timedelta`); None leaves that to the jobs' own limit.
            per: See *rate*.
            concurrency: Jobs that run at once, likewise.

        Raises:
            ConfigError: A value cannot be meant, or nothing was given.
        """
        values = checked(rate, per, concurrency)
        self._change(lambda orders: orders.limit(name, values))

    def unlimit(self, name: str) -> None:
        """Have the limit *name* be again what jobs say themselves."""
        self._change(lambda orders: orders.limit(name, None))

    # --- marks: see `orders` -----------------------------------------------------------------

    def mark(self, jobs: Mapping[str, float | None]) -> None:
        """Have workers end these jobs, by id with the instant they were enqueued (None: any)."""
        for id_, enqueued_at in jobs.items():
            self._store.apply([Put(MARKS + id_, mark_of(enqueued_at), MARK_TTL)])
        if jobs:
            self._change(Orders.touch)

    def unmark(self, ids: Sequence[str]) -> None:
        """Note that these jobs have ended, or were not there."""
        gone = [self._store.apply([Delete(MARKS + id_)])[0] for id_ in ids]
        if any(gone):
            self._change(Orders.touch)

    def marks(self) -> dict[str, float | None]:
        """Return the jobs to end, as `mark` was given them."""
        found: dict[str, float | None] = {}
        after = ""
        while True:
            page = self._store.scan(MARKS, limit=PAGE, after=after)
            found.update((key.removeprefix(MARKS), marked(value)) for key, value in page)
            if len(page) < PAGE:
                return found
            after = page[-1][0]

    def _change(self, change: Callable[[Orders], Orders]) -> None:
        while True:
            value = read(self._store)
            old = parse(value)
            new = change(old)
            if new == old or self._store.apply([Swap(KEY, value, dump(new))])[0]:
                return


def read(store: Store) -> bytes | None:
    """Return the orders of *store* as it keeps them: one small read."""
    value: bytes | None = store.apply([Get(KEY)])[0]
    return value


def is_pattern(name: str) -> bool:
    """Say whether *name* may mean several workers."""
    return any(character in name for character in "*?[")


def _named(queues: Sequence[str]) -> tuple[str, ...]:
    if not queues:
        raise ConfigError("name at least one queue")
    return tuple(check_queue(queue) for queue in queues)
