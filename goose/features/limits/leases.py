"""Concurrency: who may run, as leases in one value per limit.

A job that starts has a lease, under its id and in the name of the process that runs it. It ends
when the job leaves that process, however it does, and the process keeps it alive meanwhile. A
process that is killed keeps nothing alive, so its leases lapse, unless its job is lent to another
before, which takes the lease over: the place was never free in between.

That a lease has lapsed does not say that its process is dead. Perhaps the store was away, and
nobody could keep anything alive, or this one key was. So a lapsed lease is not passed over but
*doubted*, in the value itself, which is to say that it could be written. Whoever finds his own
doubted keeps it, and the doubt is gone. One that has been doubted for half a time to live, in
which its process could have tried several times, is anybody's. So at no moment more run than may,
unless a process lives on that could not be heard for all that time. Since the doubt is in the
value, it does not matter how long those live who doubt.

Those that find no place stand in a line, in the same value, and are sent away for as long as it
takes, by how long a job has held its lease lately. Whoever gives a place back takes the next out of
the line and has the broker promote it, where the broker can: then it comes at once. One that is
gone by then, or not back in its queue yet, is passed over. All that is only a favour: one that is
not heard comes by its time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from goose.features.traits import TTL
from goose.stores.base import Get, Store, Swap

T = TypeVar("T")

SHORTEST, LONGEST = 0.1, 15.0
"""Seconds for which a job without a place is sent away."""
LINE = 100
"""Jobs that stand in the line at most; others come back as if they were its last."""
FORGOTTEN = 600.0
"""Seconds after which a limit that nobody uses is forgotten."""
KEPT = 31 * 86400.0
"""Seconds for which leases are remembered that nobody keeps: longer than a store is ever away."""


class Lease(NamedTuple):
    """One job's place. Instants are epoch seconds by the store's clock."""

    owner: str
    since: float
    until: float
    doubted_at: float | None = None
    """When somebody first found that it had lapsed, since it was last kept."""

    def free_at(self, ttl: float) -> float:
        """Return when it is to be looked at again, should nobody keep it."""
        return self.until if self.doubted_at is None else self.doubted_at + ttl / 2

    def not_after(self, now: float, ttl: float) -> Lease:
        """Return it as if it had been kept or doubted by now, should the clock have gone back since."""
        doubted_at = None if self.doubted_at is None else min(self.doubted_at, now)
        return self._replace(until=min(self.until, now + ttl), doubted_at=doubted_at)


@dataclass(frozen=True, slots=True)
class Leases:
    """Who runs under one limit."""

    held: Mapping[str, Lease] = field(default_factory=dict)
    """By job id."""
    mean: float = 0.5
    """Seconds for which a lease is held, lately."""
    waiting: tuple[str, ...] = ()
    """Jobs that found no place, in the order in which they came."""

    def doubted(self, now: float, ttl: float) -> dict[str, Lease]:
        """Return those held, each that has lapsed with a doubt, without those doubted for long."""
        held: dict[str, Lease] = {}
        for id_, known in self.held.items():
            lease = known.not_after(now, ttl)
            if lease.doubted_at is None and lease.until <= now:
                lease = lease._replace(doubted_at=now)
            if lease.doubted_at is None or now < lease.free_at(ttl):
                held[id_] = lease
        return held

    def take(
        self, ids: Sequence[str], owner: str, most: int, now: float, ttl: float = TTL
    ) -> tuple[Leases, dict[str, float]]:
        """Return them with a lease for each of *ids* for which there is a place, and the waits of the others."""
        held = self.doubted(now, ttl)
        waiting, late = list(self.waiting), list[str]()
        for id_ in ids:
            if id_ in held or len(held) < most:
                held[id_] = Lease(owner, held[id_].since if id_ in held else now, now + ttl)
                if id_ in waiting:
                    waiting.remove(id_)
                continue
            late.append(id_)
            if id_ not in waiting and len(waiting) < LINE:
                waiting.append(id_)
        left = replace(self, held=held, waiting=tuple(waiting))
        return left, left.waits(late, most, now, ttl) if late else {}

    def waits(self, ids: Sequence[str], most: int, now: float, ttl: float) -> dict[str, float]:
        """Return for how long each of *ids*, which have no place, is sent away."""
        # Nobody is called to a place of a dead process: the first in line look as leases end.
        free_at = sorted(lease.free_at(ttl) for lease in self.held.values())
        waits: dict[str, float] = {}
        for id_ in ids:
            place = self.waiting.index(id_) if id_ in self.waiting else LINE
            # Somewhat later than expected: most are called, and a look in vain costs a round trip.
            wait = min(max(1.5 * self.mean * (place + 1) / most, SHORTEST), LONGEST)
            soon = max(free_at[place] - now, 0.0) + SHORTEST if place < len(free_at) else wait
            waits[id_] = min(wait, soon)
        return waits

    def keep(
        self,
        ids: Sequence[str],
        owner: str,
        now: float,
        ttl: float = TTL,
        *,
        lost: Sequence[str] = (),
    ) -> Leases:
        """Return them with those of *owner* alive for longer and not doubted, also if they had lapsed.

        Those of *lost* that nobody has are put back: their jobs run, however many may.
        """
        held = {
            id_: Lease(owner, lease.since, now + ttl)
            if id_ in ids and lease.owner == owner
            else lease
            for id_, lease in self.held.items()
        }
        back = {id_: Lease(owner, now, now + ttl) for id_ in lost if id_ not in held}
        return replace(self, held=held | back)

    def give_back(
        self, ids: Sequence[str], owner: str, now: float, *, ran: bool = True
    ) -> tuple[Leases, tuple[str, ...]]:
        """Return them without those of *owner* (another's of the same job stay), and who comes next.

        How long those were held that never *ran*, as another limit refused them, says nothing.
        """
        held, mean = dict(self.held), self.mean
        for id_ in ids:
            lease = held.get(id_)
            if lease is not None and lease.owner == owner:
                if ran:
                    mean = 0.8 * mean + 0.2 * min(max(now - lease.since, 0.0), 3600.0)
                del held[id_]
        return replace(self, held=held, mean=mean).call(len(self.held) - len(held))

    def call(self, number: int) -> tuple[Leases, tuple[str, ...]]:
        """Return them without so many of the line, and those: they come next."""
        return replace(self, waiting=self.waiting[number:]), self.waiting[:number]


def dump(leases: Leases) -> bytes:
    """Return them as the store keeps them."""
    fields: dict[str, Any] = {
        "held": {id_: list(lease[:3]) for id_, lease in leases.held.items()},
        "mean": round(leases.mean, 4),
        "waiting": list(leases.waiting),
    }
    # Beside the leases, whose three fields are all that older versions can read.
    doubted = {
        id_: at for id_, lease in leases.held.items() if (at := lease.doubted_at) is not None
    }
    if doubted:
        fields["doubted"] = doubted
    return json.dumps(fields, separators=(",", ":")).encode()


def parse(value: bytes | None) -> Leases:
    """Return the leases in *value*; none if it is None, or nothing this version can read."""
    if value is None:
        return Leases()
    try:
        fields = json.loads(value)
        doubted = {id_: float(at) for id_, at in fields.get("doubted", {}).items()}
        held = {
            str(id_): Lease(str(owner), float(since), float(until), doubted.get(id_))
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
        value = store.apply([Get(key)])[0]
        # After the value: what is in there was written by now, unless the clock has gone back.
        now = store.now()
        new, result = change(parse(value), now)
        kept = dump(new)
        # A lease that is forgotten was not doubted, and perhaps its job still runs.
        ttl = KEPT if new.held else FORGOTTEN
        if kept == value or store.apply([Swap(key, value, kept, ttl)])[0]:
            return result
