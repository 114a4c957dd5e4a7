"""The way from sealed jobs to a broker, and what is said when it fails.

A `Root` is what a client and all made from it by ``using`` share: where its settings come
from and one `Link` for each broker, connected at first use. A link has two lines, one for
jobs that are ready and one for those due later (see `goose.combining`).

`storing` decides what is sent in which order and what an error means for each job; the one
who drives it does the waiting, on a thread or in an event loop.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, cast

from goose._words import several
from goose.brokers import connect, name_of, namespaced
from goose.brokers.base import (
    AsyncTransactional,
    Broker,
    Capability,
    Grouped,
    Posting,
    Transactional,
)
from goose.combining import BATCH, CALLS, Combiner
from goose.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    EnqueueError,
    JobFailed,
    Stored,
    Unsupported,
)
from goose.jobs import Envelope, Job
from goose.options import Options
from goose.sealing import BeforeEnqueue, Sealed, Unsent
from goose.settings import Settings, active

if TYPE_CHECKING:
    from goose.features.outbox import Outbox
    from goose.metrics.base import Metrics
    from goose.metrics.enqueuing import Meter
    from goose.stores import OnDemand


class Door(Protocol):
    """Where envelopes are handed over: a `Combiner`, or a transaction."""

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Store *envelopes*, all or none, or raise."""
        ...


instead: ContextVar[Callable[[Door], Door] | None] = ContextVar(
    "goose.sending.instead", default=None
)
"""Puts something in the place of every door; for `goose.testing`."""


class Within:
    """Stores inside a transaction of the caller's own, and so never with others."""

    def __init__(self, broker: Transactional, connection: object) -> None:
        self._broker = broker
        self._connection = connection

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """See `Door.send`."""
        self._broker.enqueue_within(self._connection, envelopes)

    async def asend(self, envelopes: Sequence[Envelope]) -> None:
        """The same, for a connection that may have to be awaited."""
        if isinstance(self._broker, AsyncTransactional):
            await self._broker.aenqueue_within(self._connection, envelopes)
        else:
            self.send(envelopes)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a client's jobs go, as far as it was said."""

    broker: str | Broker | None = None
    connection: Any = None
    """Of the broker's own database, in whose transaction jobs are stored."""
    outbox: Any = None
    """Of any database, in whose transaction they are put into an outbox."""

    @property
    def transacts(self) -> bool:
        """Whether jobs are to be part of a transaction."""
        return self.connection is not None or self.outbox is not None

    def over(self, other: Destination) -> Destination:
        """Return this destination, with what it leaves open taken from *other*.

        Raises:
            ConfigError: It has both kinds of connections.
        """
        found = Destination(
            other.broker if self.broker is None else self.broker,
            other.connection if self.connection is None else self.connection,
            other.outbox if self.outbox is None else self.outbox,
        )
        if found.connection is not None and found.outbox is not None:
            raise ConfigError(
                "give connection= to store jobs in the broker's own database, or outbox= to have "
                "them moved there from another, not both"
            )
        return found


class Link:
    """One broker and the lines in front of its two storing verbs."""

    def __init__(self, broker: str | Broker) -> None:
        self.owned = isinstance(broker, str)
        self.broker = connect(broker)
        calls = CALLS if Capability.CONCURRENT in self.broker.capabilities else 1
        post = self.broker.post if isinstance(self.broker, Posting) else None
        self.ready = Combiner(self.broker.enqueue, calls=calls, post=post)
        self.later = Combiner(self.broker.schedule, calls=calls)
        self._url = broker if isinstance(broker, str) else None
        self._stores: dict[str | None, OnDemand] = {}

    def door(self, connection: object, *, later: bool) -> Door:
        """Return where jobs due *later*, or ready, go; into a transaction if a connection is given.

        Raises:
            Unsupported: The broker cannot store in a caller's transaction.
        """
        if connection is None:
            return self.later if later else self.ready
        if not isinstance(self.broker, Transactional):
            raise Unsupported(
                f"{name_of(self.broker)} cannot store jobs inside a transaction of yours; use a broker "
                "in your own database, or an outbox there: goose.using(outbox=connection)"
            )
        return Within(self.broker, connection)

    def store(self, settings: Settings) -> OnDemand:
        """Return the store that goes with the broker by *settings*; opening it may fail."""
        from goose.stores import OnDemand  # not every program's

        url = namespaced(settings.store, settings.namespace)
        with _lock:
            if url not in self._stores:
                self._stores[url] = OnDemand(self.broker, url, broker_url=self._url)
            return self._stores[url]

    def close(self) -> None:
        """Let go of the broker, unless it was given as an object."""
        self.ready.close()
        self.later.close()
        for store in self._stores.values():
            store.close()
        if self.owned:
            self.broker.close()


class Root:
    """What a client and all made from it by ``using`` share: settings and connections."""

    def __init__(
        self,
        broker: str | Broker | None,
        own: Options,
        settings: Settings | None,
        before_enqueue: Sequence[str | BeforeEnqueue] | None = None,
        metrics: Sequence[str | Metrics] | None = None,
    ) -> None:
        self.before_enqueue = before_enqueue
        self._metrics = metrics
        self._meter: Meter | None = None
        self._metered_for: Settings | None = None
        self._broker = broker
        self._settings = settings
        self.own = own
        self._links: dict[object, Link] = {}
        self._outboxes: dict[str, Outbox] = {}

    def settings(self) -> Settings:
        """Return the settings as they are now."""
        return self._settings or active()

    def link(self, broker: str | Broker | None) -> Link:
        """Return the link to *broker*, else to the client's own, else to the configured one.

        Raises:
            ConfigError: The URL is wrong or a driver is missing.
        """
        broker = self._named(broker, self.settings())
        key = broker if isinstance(broker, str) else id(broker)
        link = self._links.get(key)
        if link is None:
            with _lock:
                link = self._links.get(key) or Link(cast("str | Broker", broker))
                self._links[key] = link
        return link

    def _named(self, broker: str | Broker | None, settings: Settings) -> Any:
        """Return the nearest broker that is named, an empty URL too: that is a mistake to be told."""
        if broker is None:
            broker = settings.broker if self._broker is None else self._broker
        return namespaced(broker, settings.namespace)

    def door(self, to: Destination, *, later: bool) -> Door:
        """Return where jobs due *later*, or ready, go.

        Raises:
            Unsupported: The broker cannot store in a caller's transaction.
            ConfigError: As `link`.
        """
        if to.outbox is None:
            door = self.link(to.broker).door(to.connection, later=later)
        else:
            door = Within(self._outbox(to.broker), to.outbox)  # the broker need not even be up
        change = instead.get()
        return door if change is None else change(door)

    def check_group(self, to: Destination, group: str) -> None:
        """Refuse a group that the broker cannot serve; an outbox's broker need not be known here.

        Raises:
            Unsupported: It cannot share a queue among groups.
        """
        if to.outbox is not None:
            return
        broker = self.link(to.broker).broker
        if not isinstance(broker, Grouped):
            raise Unsupported(
                f"group={group!r:.80}: {name_of(broker)} cannot share a queue among groups; leave group= "
                "out, give each group a queue, or use sqlite, redis or postgres"
            )

    def _outbox(self, broker: str | Broker | None) -> Outbox:
        from goose.features.outbox import Outbox, table_for  # not every program's

        settings = self.settings()
        table = table_for(settings.outbox_table, self._named(broker, settings))
        with _lock:
            if table not in self._outboxes:
                self._outboxes[table] = Outbox(table)
            return self._outboxes[table]

    def meter(self) -> Meter | None:
        """Return what counts jobs that are sent; None if nobody wants to know.

        Raises:
            ConfigError: A backend cannot be had.
        """
        settings = self.settings()
        if settings is not self._metered_for:
            given = settings.client_metrics if self._metrics is None else self._metrics
            with _lock:
                if settings is not self._metered_for:
                    self._close_meter()
                    if given:
                        from goose.metrics.enqueuing import Meter  # only those who count need it

                        self._meter = Meter(given)
                    self._metered_for = settings
        return self._meter

    def _close_meter(self) -> None:
        if self._meter is not None:
            self._meter.close()
        self._meter = self._metered_for = None

    def close(self) -> None:
        """Close all links; a later call makes new ones."""
        with _lock:
            links, self._links = self._links, {}
            self._close_meter()
        for link in links.values():
            link.close()


_lock = threading.RLock()


def _unlock_after_fork() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_unlock_after_fork)


PASSED_ON = (ConfigError, Unsupported, JobFailed)
"""The caller's mistakes, or a job's that a test ran instead of sending it."""


def store_one(
    sealed: Sealed, door: Callable[[bool], Door], meter: Meter | None, *, later: bool
) -> None:
    """Send a single job and wait: the usual call, which should cost little.

    Raises:
        EnqueueError: As in `storing`, like the rest.
    """
    began = 0.0 if meter is None else time.perf_counter()
    try:
        door(later).send([sealed[1]])
    except PASSED_ON:
        raise
    except Exception as error:
        raise not_stored(sealed, error, meter, later=later) from error
    if meter is not None:
        meter.stored([sealed[0]], time.perf_counter() - began)


def not_stored(
    sealed: Sealed, error: Exception, meter: Meter | None, *, later: bool
) -> EnqueueError:
    """Return what to raise when sending a single job ended in *error*, none of those `PASSED_ON`."""
    return _failed([(later, [sealed])], 0, error, meter)


def storing(
    sealed: Sequence[Sealed], door: Callable[[bool], Door], meter: Meter | None
) -> Generator[tuple[Door, list[Envelope]], None, None]:
    """Yield what to send and through which door, in order; throw in what a sending raised.

    Args:
        sealed: Jobs with their envelopes.
        door: Returns the door for jobs due later (True) or ready (False).
        meter: Told of each sending.

    Raises:
        EnqueueError: A sending failed; later ones are not tried.
        Unsupported: The broker cannot store them in the caller's transaction.
    """
    chunks = [
        (later, part[at : at + BATCH])
        for later, part in _by_time(sealed)
        for at in range(0, len(part), BATCH)
    ]
    for place, (later, chunk) in enumerate(chunks):
        began = time.perf_counter()
        try:
            yield door(later), [envelope for _, envelope in chunk]
        except PASSED_ON:
            raise
        except Exception as error:
            raise _failed(chunks, place, error, meter) from error
        if meter is not None:
            meter.stored([job for job, _ in chunk], time.perf_counter() - began)


def _by_time(sealed: Sequence[Sealed]) -> list[tuple[bool, Sequence[Sealed]]]:
    later = [each for each in sealed if not (each[1].delay is None and each[1].due_at is None)]
    if not later:
        return [(False, sealed)]
    ready = [each for each in sealed if each[1].delay is None and each[1].due_at is None]
    return [(False, ready), (True, later)]


def _failed(
    chunks: Sequence[tuple[bool, Sequence[Sealed]]],
    place: int,
    error: Exception,
    meter: Meter | None,
) -> EnqueueError:
    """Return what to raise when sending the chunk at *place* ended in *error*."""
    refused = isinstance(error, BrokerError) and (
        not isinstance(error, BrokerUnavailable) or error.unsent
    )
    jobs: dict[Job[object], Stored] = {}
    for at, (_, chunk) in enumerate(chunks):
        known: Stored = "stored" if at < place else "not_stored"
        if at == place and not refused:
            known = "unknown"
        jobs.update((_unsent(job, envelope), known) for job, envelope in chunk)
    if meter is not None:
        meter.failed(jobs)
    counts = {what: list(jobs.values()).count(what) for what in ("stored", "not_stored", "unknown")}
    summary = ", ".join(f"{n:,} {what.replace('_', ' ')}" for what, n in counts.items() if n)
    reason = str(error) if isinstance(error, BrokerError) else f"{type(error).__name__}: {error}"
    stop = "" if reason.endswith(("?", ".")) else "."
    return EnqueueError(
        f"the broker did not confirm {several(len(jobs))} ({summary}): "
        f"{reason}{stop} To send again: goose.submit(error.jobs), or submit of your client",
        jobs,
    )


def _unsent(job: Job[Any], envelope: Envelope) -> Job[Any]:
    """Return *job* with when it was to be due, unless it is ready or says so already."""
    if isinstance(job, Unsent) or (envelope.delay is None and envelope.due_at is None):
        return job
    same = {field.name: getattr(job, field.name) for field in fields(job)}
    return Unsent(**same, delay=envelope.delay, due_at=envelope.due_at)
