"""The metrics backend ``activity://``: adds a worker process's numbers up, and then to the store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl

from goose import brokers, settings, stores
from goose.errors import BrokerError, ConfigError, GooseError
from goose.features.activity.numbers import SLOT, Numbers, key_of, load
from goose.metrics import base as names
from goose.metrics.base import Tags
from goose.stores.base import Get, Store, Swap
from goose.values import positive_duration

logger = logging.getLogger("goose.activity")

_COUNTED = {
    names.PROCESSED: "processed",
    names.SUCCEEDED: "succeeded",
    names.RETRIED: "retried",
    names.DEAD: "dead",
}
_TRIES = 20
"""Swaps of one value, against those of other processes, before it is left for the next time."""
_FAREWELL = 2.0
"""Seconds that the last numbers have to be stored in."""


def _configured() -> Store:
    """Return the store of what this process is configured for, in a worker what it works for."""
    chosen = settings.active()
    url = brokers.namespaced(chosen.store, chosen.namespace)
    return stores.beside(brokers.connect(chosen.broker), url, broker_url=chosen.broker)


class Activity:
    """Counts runs and their times per queue, and adds them to the store now and then.

    Numbers of the last seconds are lost with a process that is killed; one that cannot reach
    the store keeps them until it can. Thread-safe.

    Args:
        url: ``activity://?every=10s&keep=7d``: how often numbers are added, and how long they are
            kept.
        open_store: Opens where they go; the store of the configured broker if left out.
        clock: Returns monotonic seconds.

    Raises:
        ConfigError: An option is unknown or nonsense.
    """

    never_blocks = True

    def __init__(
        self,
        url: str = "activity://",
        *,
        open_store: Callable[[], Store] = _configured,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every, self._keep = _read(url)
        self._open_store = open_store
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[str, Numbers] = {}
        self._store: Store | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def increment(self, name: str, value: int, tags: Tags) -> None:
        """Count what is counted here; all else is left to other backends."""
        word = _COUNTED.get(name)
        if word is not None:
            with self._lock:
                self._numbers(tags).counts[word] += value

    def gauge(self, name: str, value: float, tags: Tags) -> None:
        """Do nothing: of the present the broker tells."""

    def timing(self, name: str, seconds: float, tags: Tags) -> None:
        """Count how long a run took."""
        self.timings(name, (seconds,), tags)

    def timings(self, name: str, seconds: Sequence[float], tags: Tags) -> None:
        """Count how long several runs took."""
        if name == names.EXECUTION_TIME:
            with self._lock:
                numbers = self._numbers(tags)
                for one in seconds:
                    numbers.time(one)

    def _numbers(self, tags: Tags) -> Numbers:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="goose-activity", daemon=True)
            self._thread.start()
        return self._pending.setdefault(tags.get("queue", ""), Numbers())

    def flush(self) -> bool:
        """Add what was counted to the store; say whether all of it is there now. For one thread."""
        with self._lock:
            pending, self._pending = self._pending, {}
        try:
            for queue in list(pending):
                self._add(queue, pending[queue])
                del pending[queue]
        except GooseError as error:
            logger.info("the activity of queues could not be stored now: %s", error)
        with self._lock:
            for queue, numbers in pending.items():
                self._pending.setdefault(queue, Numbers()).add(numbers)
        return not pending

    def _add(self, queue: str, numbers: Numbers) -> None:
        if self._store is None:
            self._store = self._open_store()
        store = self._store
        key = key_of(queue, int(store.now() // SLOT))
        for _ in range(_TRIES):
            [old] = store.apply([Get(key)])
            sums = load(old)
            sums.add(numbers)
            [swapped] = store.apply([Swap(key, old, sums.dump(), self._keep)])
            if swapped:
                return
        raise BrokerError(f"others changed {key} all the time")

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            self.flush()
        self.flush()
        if self._store is not None:
            self._store.close()

    def close(self) -> None:
        """Store the last numbers, within two seconds, and end."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_FAREWELL)


def _read(url: str) -> tuple[float, float]:
    """Return how often to store and how long to keep, in seconds."""
    options = {"every": "10s", "keep": "7d"}
    for name, value in parse_qsl(url.partition("?")[2], keep_blank_values=True):
        if name not in options:
            raise ConfigError(
                f"{name!r} in {url!r} is no option of activity://; there are every, keep"
            )
        options[name] = value
    try:
        return positive_duration(options["every"]), positive_duration(options["keep"])
    except ValueError as error:
        raise ConfigError(f"{url!r}: {error}") from None
