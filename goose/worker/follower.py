"""Follows the orders that operators give to live workers: a step of every worker process.

Twice a second it reads one small value (`goose.features.controls.orders`). When that has changed
it has this process do what it says; while queues are paused or jobs are to end, it goes once
more over what is here each time, so that what came in between two looks is not forgotten. Now
and then it writes a record of this process, which is what ``goose workers list`` shows.

Under a supervisor it also tells that one what it read of the number of processes and the log
level: a supervisor never reads itself, for nothing may hold up its heartbeats. It says so when that
is news to itself, at every look for some seconds, and now and then after that. For what it reads
may be no news to itself and yet to the supervisor, which heard something else in between from a
process that read sooner and is gone by now. Not at every look for ever: each word wakes the
supervisor, which then looks after all its processes, so that its work would grow with the square
of their number.

A store that fails costs nothing but news: the orders that were read last go on to hold. Nothing
is told to the supervisor before it was read, so who cannot read takes nothing back.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, Protocol

from goose._json import JSON
from goose.brokers.base import Share
from goose.errors import BrokerError, Unsupported
from goose.features.controls import roll
from goose.features.controls.book import Controls, read
from goose.features.controls.knobs import level_in, processes_in, shares
from goose.features.controls.orders import Orders, parse
from goose.features.controls.roll import WorkerRecord
from goose.stores import OnDemand
from goose.stores.base import Delete, Put, Store
from goose.worker.clock import Clock, SystemClock
from goose.worker.config import WorkerConfig
from goose.worker.control import Ordered
from goose.worker.stops import Stops

logger = logging.getLogger("goose.worker")

EVERY = 0.5
"""Seconds between two looks at the orders: half of what an operator may wait."""
REPEAT = 3.0
"""Seconds until the supervisor is told the same again while something is set; else `roll.EVERY`."""
NEWS = 10.0
"""Seconds after something new in which it is told at every look: if somebody changes his mind at once,
another process may hear of that, tell it, and be gone, all between two looks of this one."""


class Followed(Protocol):
    """What orders are carried out on: a `goose.worker.threads.Threads`."""

    @property
    def config(self) -> WorkerConfig:
        """How it works now."""
        ...

    @property
    def stops(self) -> Stops:
        """The orders that hold there."""
        ...

    @property
    def running(self) -> int:
        """Jobs in its slots."""
        ...

    def work_by(self, config: WorkerConfig, paused: frozenset[str]) -> None:
        """Have it work so from now on, but take nothing from *paused* queues."""
        ...

    def sift(self) -> None:
        """Lay the orders over what is here."""
        ...


class Follower:
    """Follows. `step` is called by one thread; `leave` once that is over.

    Args:
        store: Where orders are; shared, and closed by whoever opened it.
        version: Of this program.
        name: What orders call this worker.
        log_level: What this process logs by, if nobody orders another.
        set_log_level: Has it log by another.
        processes: How many its supervisor has, if nobody orders another number; None is that
            there is no supervisor.
        tell: Tells the supervisor.
    """

    def __init__(
        self,
        store: Store,
        *,
        version: str,
        name: str,
        log_level: str = "",
        set_log_level: Callable[[str], object] = lambda _: None,
        processes: int | None = None,
        tell: Callable[[Ordered], object] = lambda _: None,
        clock: Clock,
    ) -> None:
        self._store = store
        self._controls = Controls(store)
        self._clock = clock
        self._id = uuid.uuid4().hex
        self._name = name
        self._version = version
        self._own_level = self._level = log_level
        self._set_log_level = set_log_level
        self._own_processes = processes
        self._tell = tell
        self._settings: Mapping[str, JSON] = {}
        self._base: WorkerConfig | None = None
        self._seen: bytes | None = None
        self._orders = Orders()
        self._started_at = clock.wall()
        self._record_due = 0.0
        self._told: Ordered | None = None
        self._tell_due = 0.0
        self._news_until = 0.0
        self._followed: Followed | None = None

    def follow(self, followed: Followed) -> None:
        """Carry orders out on *followed* from now on; call it once, before the first `step`."""
        self._followed = followed
        self._base = followed.config

    def begin(self, now: float) -> None:
        """Have the orders done that hold already, before the first job is taken."""
        try:
            self.step(now)
        except BrokerError as error:
            logger.warning("no orders can be read yet: %s", error)

    def step(self, now: float) -> float:
        """Read the orders and have them done; return the seconds until the next look.

        Raises:
            BrokerError: The store failed; what was read last goes on to hold.
        """
        followed = self._followed
        assert followed is not None
        value = read(self._store)
        orders = self._orders if value == self._seen else parse(value)
        self._settings = orders.settings_of(self._name)
        if self._own_processes is not None:
            # Before anything that may take long: what was read would be old by then.
            self._tell_supervisor(now)
        if value != self._seen:
            self._obey(orders, followed)
            self._seen = value
            self._record_due = now
        stops = followed.stops
        if stops:
            followed.sift()
        if stops.over:
            # Looked at first and dropped after: if the store fails, the next step tries again.
            over = list(stops.over)
            self._controls.unmark(over)
            stops.marked = {id_: at for id_, at in stops.marked.items() if id_ not in over}
            stops.over.difference_update(over)
        if now >= self._record_due:
            record = self._record(followed)
            self._store.apply([Put(record.key, roll.dump(record), roll.TTL)])
            self._record_due = now + roll.EVERY
        return EVERY

    def leave(self) -> None:
        """Take this process's record back, as far as the store allows."""
        try:
            self._store.apply([Delete(roll.PREFIX + self._id)])
        except BrokerError as error:
            logger.debug("the record of this worker is left to expire: %s", error)

    # --- obeying -------------------------------------------------------------------------

    def _obey(self, orders: Orders, followed: Followed) -> None:
        stops, before = followed.stops, self._orders
        if orders.marks != before.marks:
            # Read before they are noted as known: if that fails, the next step tries again.
            stops.marked = self._controls.marks()
        assert self._base is not None
        config = ordered(self._base, self._settings)
        paused = frozenset(orders.paused)
        if config != followed.config or paused != stops.paused:
            stops.paused = paused
            followed.work_by(config, paused)
            logger.info("working by order: %s", _told(config, paused))
        level = level_in(self._settings) or self._own_level
        if level != self._level:
            self._set_log_level(level)
            logger.info("logging %s and above by order", level)
            self._level = level
        self._orders = orders

    def _tell_supervisor(self, now: float) -> None:
        """Tell it what was read just now, if something is new or it was not told for a while."""
        read = Ordered(processes_in(self._settings), level_in(self._settings))
        if read != self._told:
            self._news_until = now if self._told is None else now + NEWS
        elif self._news_until <= now < self._tell_due:
            return
        self._tell(read)
        self._told = read
        self._tell_due = now + (roll.EVERY if read == Ordered(None, None) else REPEAT)

    def _record(self, followed: Followed) -> WorkerRecord:
        config, own = followed.config, self._own_processes
        queues = {share.queue: share.weight for share in config.queues}
        return WorkerRecord(
            id=self._id,
            name=self._name,
            pid=os.getpid(),
            queues=queues,
            paused=tuple(sorted(followed.stops.paused & queues.keys())),
            concurrency=config.concurrency,
            async_concurrency=config.async_slots,
            processes=None if own is None else processes_in(self._settings) or own,
            log_level=self._level,
            running=followed.running,
            started_at=self._started_at,
            version=self._version,
        )


def follower(
    store: OnDemand,
    *,
    supervisor: int | None = None,
    processes: int | None = None,
    tell: Callable[[Ordered], object] = lambda _: None,
    logger_name: str = "goose",
) -> Follower | None:
    """Return what follows orders in this process; None where there is no store for them.

    Args:
        store: Of this process.
        supervisor: The process id of the supervisor, if there is one.
        processes: As for `Follower`.
        tell: Likewise.
        logger_name: The logger whose level orders change; empty is the root.

    Raises:
        ConfigError: The store's URL is wrong.
    """
    try:
        opened = store.open()
    except Unsupported:
        return None
    target = logging.getLogger(logger_name)
    return Follower(
        opened,
        version=version("goose-jobs"),
        name=worker_name(os.getpid() if supervisor is None else supervisor),
        log_level=logging.getLevelName(target.getEffectiveLevel()).lower(),
        set_log_level=lambda level: target.setLevel(level.upper()),
        processes=processes,
        tell=tell,
        clock=SystemClock(),
    )


def worker_name(pid: int) -> str:
    """Return what orders call the worker whose first process is *pid*, on this host."""
    return f"{socket.gethostname()}:{pid}"


def ordered(base: WorkerConfig, settings: Mapping[str, Any]) -> WorkerConfig:
    """Return *base* with what orders set for it."""
    found: dict[str, Any] = {
        name: settings[name] for name in ("concurrency", "async_concurrency") if name in settings
    }
    if "queues" in settings:
        found["queues"] = shares(settings["queues"])
    return dataclasses.replace(base, **found) if found else base


def open_queues(config: WorkerConfig, paused: frozenset[str]) -> tuple[Share, ...]:
    """Return what is taken from while *paused* is."""
    return tuple(share for share in config.queues if share.queue not in paused)


def _told(config: WorkerConfig, paused: frozenset[str]) -> str:
    queues = ", ".join(
        share.queue + (" (paused)" if share.queue in paused else "") for share in config.queues
    )
    return f"{config.concurrency} sync and {config.async_slots} async jobs at once, from {queues}"
