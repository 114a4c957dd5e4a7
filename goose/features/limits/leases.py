"""Concurrency: who may run, as leases in one value per limit.

A job that starts has a lease, under its id and in the name of the process that runs it. It ends
when the job leaves that process, however it does, and the process keeps it alive meanwhile. A
process that is killed keeps nothing alive, so its leases end `TTL` seconds later, or before, when
its job is lent to another, which takes the lease over: the place was never free in between. So
at no moment more run than may, unless a process lives on that has lost its session.

While the store is away nobody can keep anything alive. So whoever has not been in touch with it for
long enough to have let everybody be heard takes no place of a lease that has run out, and whoever
finds his own there keeps it.

Those that find no place stand in a line, in the same value, and are sent away for as long as it
takes, by how long a job has held its lease lately. Whoever gives a place back takes the next out of
the line and has the broker promote it, where the broker can: then it comes at once. That is
only a favour: one that is not heard comes by its time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from goose.stores.base import Get, Store, Swap

T = TypeVar("T")

TTL = 30.0
"""Seconds by the store's clock for which a lease holds that nobody keeps alive."""
SHORTEST, LONGEST = 0.1, 15.0
"""Seconds for which a job without a place is sent away."""
LINE = 100
"""Jobs that stand in the line at most; others come back as if they were its last."""
FORGOTTEN = 600.0
"""Seconds after which a limit that nobody uses is forgotten."""


@dataclass(frozen=True, slots=True)
class Leases:
    """Who runs under one limit. Instants are epoch seconds by the store's clock."""

    held: Mapping[str, tuple[str, float, float]] = field(default_factory=dict)
    """By job id: whose it is, since when, and until when."""
    mean: float = 0.5
    """Seconds for which a lease is held, lately."""
    waiting: tuple[str, ...] = ()
    """Jobs that found no place, in the order in which they came."""

    def living(self, now: float) -> Leases:
        """Return them without those that have run out."""
        held = {id_: lease for id_, lease in self.held.items() if lease[2] > now}
        return replace(self, held=held)

    def take(
        self, ids: Sequence[str], owner: str, most: int, now: float, *, patient: bool = True
    ) -> tuple[Leases, dict[str, float]]:
        """Return them with a lease for each of *ids* for which there is a place, and the waits of the others.

        Only who is *patient*, having given all others time to be heard, passes over what has run out.
        """
        held = dict((self.living(now) if patient else self).held)
        waiting, waits = list(self.waiting), dict[str, float]()
        for id_ in ids:
            if id_ in held or len(held) < most:
                since = held[id_][1] if id_ in held else now
                held[id_] = (owner, since, now + TTL)
                if id_ in waiting:
                    waiting.remove(id_)
                continue
            if id_ not in waiting and len(waiting) < LINE:
                waiting.append(id_)
            place = waiting.index(id_) + 1 if id_ in waiting else LINE
            # Somewhat later than expected: most are called, and a look in vain costs a round trip.
            waits[id_] = min(max(1.5 * self.mean * place / most, SHORTEST), LONGEST)
        return replace(self, held=held, waiting=tuple(waiting)), waits

    def keep(self, ids: Sequence[str], owner: str, now: float) -> Leases:
        """Return them with those of *owner* alive for longer, also if they had run out."""
        held = {
            id_: (lease[0], lease[1], now + TTL) if id_ in ids and lease[0] == owner else lease
            for id_, lease in self.held.items()
        }
        return replace(self, held=held)

    def give_back(
        self, ids: Sequence[str], owner: str, now: float
    ) -> tuple[Leases, tuple[str, ...]]:
        """Return them without those of *owner* (another's of the same job stay), and who comes next."""
        held, mean = dict(self.held), self.mean
        for id_ in ids:
            lease = held.get(id_)
            if lease is not None and lease[0] == owner:
                mean = 0.8 * mean + 0.2 * min(now - lease[1], 3600.0)
                del held[id_]
        freed = len(self.held) - len(held)
        left = replace(self, held=held, mean=mean, waiting=self.waiting[freed:])
        return left, self.waiting[:freed]


def dump(leases: Leases) -> bytes:
    """Return them as the store keeps them."""
    fields: dict[str, Any] = {
        "held": {id_: list(lease) for id_, lease in leases.held.items()},
        "mean": round(leases.mean, 4),
        "waiting": list(leases.waiting),
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
        return Leases(held, float(fields["mean"]), tuple(map(str, fields["waiting"])))
    except (AttributeError, KeyError, TypeError, ValueError):
        return Leases()


def changed(store: Store, place: str, change: Callable[[Leases, float], tuple[Leases, T]]) -> T:
    """Change the leases at *place* by a swap, tried again on what others made of them.

    Returns:
        What *change* returned with the leases that were written.

    Raises:
        BrokerError: The store failed.
    """
    key = f"{place}leases"
    while True:
        now = store.now()
        value = store.apply([Get(key)])[0]
        new, result = change(parse(value), now)
        kept = dump(new)
        if kept == value or store.apply([Swap(key, value, kept, FORGOTTEN)])[0]:
            return result
