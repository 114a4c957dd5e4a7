"""Concurrency: who may run, as leases in one value per limit.

A job that starts has a lease, under its id and in the name of the process that runs it. It ends
when the job leaves that process, however it does, and the process keeps it alive meanwhile. A
process that is killed keeps nothing alive, so its leases end `TTL` seconds later, or before, when
its job is lent to another, which takes the lease over: the place was never free in between. So
at no moment more run than may, unless a process lives on that has lost its session.

Those that find no place are sent away until one is expected to be free, by how long a job has held
its lease lately: with ten places and jobs of a second the hundredth comes back in ten.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from goose.stores.base import Get, Store, Swap

TTL = 30.0
"""Seconds by the store's clock for which a lease holds that nobody keeps alive."""
SHORTEST, LONGEST = 0.1, 15.0
"""Seconds for which a job without a place is sent away."""
FORGOTTEN = 600.0
"""Seconds after which a limit that nobody uses is forgotten."""


@dataclass(frozen=True, slots=True)
class Leases:
    """Who runs under one limit. Instants are epoch seconds by the store's clock."""

    held: Mapping[str, tuple[str, float, float]] = field(default_factory=dict)
    """By job id: whose it is, since when, and until when."""
    mean: float = 0.5
    """Seconds for which a lease is held, lately."""
    line: float = 0.0
    """Until when those that were sent away have places in sight."""

    def living(self, now: float) -> Leases:
        """Return them without those that have run out."""
        held = {id_: lease for id_, lease in self.held.items() if lease[2] > now}
        return replace(self, held=held)

    def take(
        self, ids: Sequence[str], owner: str, most: int, now: float
    ) -> tuple[Leases, dict[str, float]]:
        """Return them with a lease for each of *ids* for which there is a place, and the waits of the others."""
        held, line, waits = dict(self.held), self.line, dict[str, float]()
        for id_ in ids:
            if id_ in held or len(held) < most:
                since = held[id_][1] if id_ in held else now
                held[id_] = (owner, since, now + TTL)
                continue
            line = max(line, now) + self.mean / most
            if line > now + LONGEST:
                line = now + LONGEST
            waits[id_] = max(line - now, SHORTEST)
        return replace(self, held=held, line=line), waits

    def keep(self, ids: Sequence[str], owner: str, now: float) -> Leases:
        """Return them with those of *owner* alive for longer."""
        held = {
            id_: (lease[0], lease[1], now + TTL) if id_ in ids and lease[0] == owner else lease
            for id_, lease in self.held.items()
        }
        return replace(self, held=held)

    def give_back(self, ids: Sequence[str], owner: str, now: float) -> Leases:
        """Return them without those of *owner*; another's of the same job stays."""
        held, mean = dict(self.held), self.mean
        for id_ in ids:
            lease = held.get(id_)
            if lease is not None and lease[0] == owner:
                mean = 0.8 * mean + 0.2 * min(now - lease[1], 3600.0)
                del held[id_]
        return replace(self, held=held, mean=mean)


def dump(leases: Leases) -> bytes:
    """Return them as the store keeps them."""
    fields: dict[str, Any] = {
        "held": {id_: list(lease) for id_, lease in leases.held.items()},
        "mean": round(leases.mean, 4),
        "line": round(leases.line, 3),
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def parse(value: bytes | None) -> Leases:
    """Return the leases in *value*; none if it is None, or nothing this version can read."""
    if value is None:
        return Leases()
    try:
        fields = json.loads(value)
        held = {
            str(id_): (str(owner), float(since), float(until))
            for id_, (owner, since, until) in fields["held"].items()
        }
        return Leases(held, float(fields["mean"]), float(fields["line"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return Leases()


def changed(
    store: Store, place: str, change: Callable[[Leases, float], tuple[Leases, dict[str, float]]]
) -> dict[str, float]:
    """Change the leases at *place* by a swap, tried again on what others made of them; return the waits.

    Raises:
        BrokerError: The store failed.
    """
    key = f"{place}leases"
    while True:
        now = store.now()
        value = store.apply([Get(key)])[0]
        old = parse(value).living(now)
        new, waits = change(old, now)
        kept = dump(new)
        if kept == value or store.apply([Swap(key, value, kept, FORGOTTEN)])[0]:
            return waits
