"""What holds for all workers of one store: one frozen value under one key.

Every worker process reads that key twice a second and does what has changed, so an order reaches
the whole fleet within a second, and those who never give one pay for a single read. Every change
is a swap of the whole value, tried again on what somebody else made of it meanwhile.

Which jobs are to end is not in there, for they may be many: each has a *mark* under a key of its
own, which names the job and when it was enqueued, so that a later job of the same id is not
taken for it. `Orders.marks` only says that the marks are worth reading again.

How it could go wrong, and why it does not:

* An order is given while a worker cannot reach the store: it goes on as it was told last, and
  obeys once it reads again. It never falls back to "no orders".
* A job is marked while it is between two workers: the mark stays until a worker has ended the
  job, so whoever takes it next finds it marked.
* A worker ends a marked job and dies before it removes the mark: the mark names a job that is not
  there any more, harms nobody, and is gone after `MARK_TTL`.
* A later version wrote what this one does not know: it is kept, and written back.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from goose._json import JSON
from goose.errors import StoreError
from goose.jobs import check_queue

KEY = "control:orders"
"""Where the orders are."""
MARKS = "control:mark:"
"""What the keys of all marks begin with; the job's id follows."""
MARK_TTL = 7 * 86400.0
"""Seconds after which a mark that nobody has removed is gone."""
VERSION = 1


@dataclass(frozen=True, slots=True)
class Orders:
    """What workers are told while they run. Instants are epoch seconds by the store's clock."""

    paused: Mapping[str, float] = field(default_factory=dict)
    """Queues that nothing is taken from, and since when."""
    workers: Mapping[str, Mapping[str, JSON]] = field(default_factory=dict)
    """What is set for workers, by a pattern that their names match."""
    limits: Mapping[str, Mapping[str, JSON]] = field(default_factory=dict)
    """What is set for limits, by their name, or name and key: ``name/key``."""
    marks: int = 0
    """Rises whenever a mark was made or removed."""
    extra: Mapping[str, JSON] = field(default_factory=dict)
    """What a later version wrote, kept as it came."""

    def pause(self, queues: tuple[str, ...], now: float) -> Orders:
        """Return these orders with *queues* paused, those that are already since when they were."""
        fresh = {queue: now for queue in queues if queue not in self.paused}
        return replace(self, paused={**self.paused, **fresh}) if fresh else self

    def resume(self, queues: tuple[str, ...]) -> Orders:
        """Return these orders with *queues* not paused."""
        left = {queue: at for queue, at in self.paused.items() if queue not in queues}
        return replace(self, paused=left) if len(left) < len(self.paused) else self

    def set(self, pattern: str, values: Mapping[str, JSON]) -> Orders:
        """Return these orders with *values* laid over what is set for *pattern*."""
        old = self.workers.get(pattern, {})
        # Set last, it also wins last over other patterns.
        others = {name: value for name, value in self.workers.items() if name != pattern}
        return replace(self, workers={**others, pattern: {**old, **values}})

    def unset(self, pattern: str | None) -> Orders:
        """Return these orders with nothing set for *pattern*, None being all of them."""
        if pattern is None:
            return replace(self, workers={})
        left = {name: value for name, value in self.workers.items() if name != pattern}
        return replace(self, workers=left)

    def limit(self, name: str, values: Mapping[str, JSON] | None) -> Orders:
        """Return these orders with *values* in the place of what is set for the limit *name*."""
        left = {other: value for other, value in self.limits.items() if other != name}
        return replace(self, limits=left if values is None else {**left, name: dict(values)})

    def touch(self) -> Orders:
        """Return these orders with the marks to be read again."""
        return replace(self, marks=self.marks + 1)

    def settings_of(self, name: str) -> dict[str, JSON]:
        """Return what is set for the worker *name*; of several patterns the one set last wins."""
        found: dict[str, JSON] = {}
        for pattern, values in self.workers.items():
            if fnmatch.fnmatchcase(name, pattern):
                found.update(values)
        return found


def dump(orders: Orders) -> bytes:
    """Return *orders* as the store keeps them."""
    fields: dict[str, Any] = {**orders.extra, "v": VERSION}
    if orders.paused:
        fields["paused"] = dict(orders.paused)
    if orders.workers:
        # A list, since their order counts and not every reader of JSON keeps that of an object.
        fields["workers"] = [[name, dict(values)] for name, values in orders.workers.items()]
    if orders.limits:
        fields["limits"] = {name: dict(values) for name, values in orders.limits.items()}
    if orders.marks:
        fields["marks"] = orders.marks
    return json.dumps(fields, separators=(",", ":")).encode()


def parse(value: bytes | None) -> Orders:
    """Return the orders in *value*; None is that there are none.

    Raises:
        StoreError: It is something else.
    """
    if value is None:
        return Orders()
    try:
        fields = json.loads(value)
        fields.pop("v")
        paused = {check_queue(queue): float(at) for queue, at in fields.pop("paused", {}).items()}
        workers = {str(name): dict(values) for name, values in fields.pop("workers", [])}
        limits = {str(name): dict(values) for name, values in fields.pop("limits", {}).items()}
        return Orders(paused, workers, limits, int(fields.pop("marks", 0)), fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"what is under {KEY} are no orders: {error!r}") from error


def mark_of(enqueued_at: float | None) -> bytes:
    """Return the mark of a job enqueued at that instant, None for whichever there is."""
    return json.dumps({"enqueued_at": enqueued_at}).encode()


def marked(value: bytes) -> float | None:
    """Return the instant in a mark; None stands for any, also where it cannot be read."""
    try:
        found = json.loads(value)["enqueued_at"]
        return None if found is None else float(found)
    except (KeyError, TypeError, ValueError):
        return None
