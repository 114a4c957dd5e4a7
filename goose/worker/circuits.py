"""The circuits of one worker process: which queues it leaves alone, and what others know of that.

Each process counts failures by itself. When a circuit opens, that is written into the store, where
there is one: the other processes open theirs within half a second, and of all of them one at a time
tries a job, the one that got the claim. When the store is away each process goes by itself.

Threads: slots tell of ends, the fetcher asks what to take, and one thread calls `step`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from goose.brokers.base import Delivery, Share
from goose.circuits import Circuit, Line
from goose.errors import GooseError
from goose.metrics import base as names
from goose.metrics.base import Metrics
from goose.stores.base import Delete, Get, Put, Store
from goose.worker.clock import Clock
from goose.worker.outcomes import Ending, Outcome

logger = logging.getLogger("goose.worker")

PREFIX = "circuit:"
"""Begins the keys of circuits in the store."""
LOOK = 0.5
"""Seconds between looks at the store."""
CLAIM = 15.0
"""Seconds in which one process may try a job; prolonged while it runs."""
PROBE_AGAIN = 0.25
"""Seconds until an empty queue is looked at for a probe once more."""
MEASURE_EVERY = 10.0
"""Seconds between two reports of the gauges."""
_WELL = frozenset({Ending.DONE, Ending.SKIPPED, Ending.POSTPONED})


class _Shared(Line):
    """A line, and how it stands between this process and the store."""

    def __init__(self, circuit: Circuit) -> None:
        super().__init__(circuit)
        self.untold = False
        """Whether the store has not heard of its last change."""
        self.known = False
        """Whether the store has it as open, as far as is known."""
        self.claimed_until = 0.0
        self.look_at = 0.0
        """When to look again for a job to try."""

    def may_look(self, now: float) -> bool:
        """Say whether this process may look for a job to try."""
        return self.look_at <= now < self.claimed_until


class Circuits:
    """All circuits of one process.

    Args:
        policies: By queue.
        store: Returns the store, or raises a `GooseError` where there is none.
        metrics: What is counted into.
        on_open: Told of a queue that is to be left alone from now on.
        on_change: Called when there is something for `step` to do.
    """

    def __init__(
        self,
        policies: Mapping[str, Circuit],
        *,
        store: Callable[[], Store],
        metrics: Metrics,
        clock: Clock,
        on_open: Callable[[str], None] = lambda _: None,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        self._lines = {queue: _Shared(circuit) for queue, circuit in policies.items()}
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self.on_open = on_open
        self.on_change = on_change
        self._lock = threading.Lock()
        self._measure_at = 0.0
        self._alone = False

    # --- the fetcher ----------------------------------------------------------------------

    def look(self, queues: Sequence[Share], now: float) -> tuple[Sequence[Share], bool]:
        """Return what to take from now, and whether that is one job, to be tried."""
        with self._lock:
            for share in queues:
                line = self._lines.get(share.queue)
                if line is not None and line.wants_probe(now) and line.may_look(now):
                    line.look_at = now + PROBE_AGAIN
                    return [share], True
            return [share for share in queues if not self._holds_up(share.queue)], False

    def tried(self, deliveries: Sequence[Delivery]) -> None:
        """Note which job is tried, or that there was none."""
        with self._lock:
            for delivery in deliveries:
                line = self._lines.get(delivery.envelope.queue)
                if line is not None and line.is_open:
                    line.tried(delivery.receipt)

    def holds_up(self, delivery: Delivery) -> bool:
        """Say whether a job that was fetched is to be given back."""
        with self._lock:
            line = self._lines.get(delivery.envelope.queue)
            return line is not None and line.is_open and line.probe != delivery.receipt

    def _holds_up(self, queue: str) -> bool:
        line = self._lines.get(queue)
        return line is not None and line.is_open

    # --- the slots and the settler -----------------------------------------------------------

    def ended(self, outcome: Outcome) -> None:
        """Heed the end of a job; from any thread."""
        queue = outcome.delivery.envelope.queue
        line = self._lines.get(queue)
        if line is None:
            return
        failed = True if outcome.failed else False if outcome.ending in _WELL else None
        with self._lock:
            before = line.failures
            change = line.ended(outcome.delivery.receipt, self._clock.mono(), failed=failed)
            if change is None:
                return
            line.untold = True
            line.claimed_until = 0.0
        if change == "opened":
            self._metrics.increment(names.CIRCUIT_OPENED, 1, {"queue": queue})
            why = (
                f"{before + 1} jobs failed in a row" if before else "the job that was tried failed"
            )
            logger.warning(
                "queue %s: %s, so none are taken for %g s; then one is tried",
                queue,
                why,
                line.pause,
            )
            self.on_open(queue)
        else:
            logger.info("queue %s: the job that was tried ended well; all are taken again", queue)
        self.on_change()

    def forget_probes(self) -> None:
        """Note that this process holds no jobs any more."""
        with self._lock:
            for line in self._lines.values():
                line.probe = None

    # --- its own thread ---------------------------------------------------------------------

    def step(self, now: float) -> float:
        """Tell the store and hear from it; return the seconds until the next look."""
        try:
            store = self._store()
            epoch = store.now()
            for queue, line in self._lines.items():
                self._share(store, queue, line, now, epoch)
            self._alone = False
        except GooseError as error:
            if not self._alone:
                logger.debug("circuits of this process stand alone: %s", error)
            self._alone = True
            for line in self._lines.values():
                line.claimed_until = now + CLAIM
        if now >= self._measure_at:
            self._measure_at = now + MEASURE_EVERY
            for queue, line in self._lines.items():
                self._metrics.gauge(names.CIRCUIT_OPEN, int(line.is_open), {"queue": queue})
        return LOOK

    def _share(self, store: Store, queue: str, line: _Shared, now: float, epoch: float) -> None:
        key = f"{PREFIX}{{{queue}}}"
        with self._lock:
            untold, line.untold = line.untold, False
            left, pause = line.until - now, line.pause
        if untold:
            self._tell(store, key, line, pause, left + epoch)
            return
        [value] = store.apply([Get(key)])
        if value is None:
            if line.known and not line.untold:
                line.known = False
                self._heard_closed(queue, line)
            return
        line.known = True
        found = json.loads(value)
        self._heard_open(queue, line, float(found["pause"]), found["until"] - epoch, now)
        if line.is_open and (line.probe is not None or line.wants_probe(now)):
            mine = line.probe is not None or now < line.claimed_until
            [got] = store.apply([Put(f"{key}:probe", b"1", ttl=CLAIM, only_if_absent=not mine)])
            if got:
                line.claimed_until = now + CLAIM / 2

    def _tell(self, store: Store, key: str, line: _Shared, pause: float, until: float) -> None:
        try:
            if pause:
                value = json.dumps({"pause": pause, "until": until}).encode()
                ttl = max(0.0, pause) + line.circuit.longest + 60.0
                store.apply([Put(key, value, ttl=ttl), Delete(f"{key}:probe")])
            else:
                store.apply([Delete(key), Delete(f"{key}:probe")])
        except GooseError:
            line.untold = True
            raise
        line.known = pause > 0

    def _heard_open(self, queue: str, line: _Shared, pause: float, left: float, now: float) -> None:
        with self._lock:
            # What this process knows better, or has not told yet, stays as it is.
            if line.untold or (line.is_open and line.until >= now + left - LOOK):
                return
            was = line.is_open
            line.open(now, pause)
            line.until = now + left
        if not was:
            logger.warning("queue %s: another worker opened its circuit; none are taken", queue)
            self.on_open(queue)

    def _heard_closed(self, queue: str, line: _Shared) -> None:
        with self._lock:
            if line.untold or not line.is_open:
                return
            line.close()
        logger.info("queue %s: another worker closed its circuit; all are taken again", queue)


def shown(store: Store) -> Iterator[tuple[str, float]]:
    """Yield each queue whose circuit is open, and in how many seconds a job is tried."""
    now = store.now()
    for key, value in store.scan(f"{PREFIX}{{", limit=1000):
        if key.endswith("}"):
            yield key[len(PREFIX) + 1 : -1], max(0.0, json.loads(value)["until"] - now)
