"""Rates: when jobs may start, decided once for each of them.

A limit has a line of instants, ``1 / rate`` apart. A job that comes is given the next one of them,
by one swap of where the line has come to. If that is now, the job goes on; else it has a
*reservation*, a key of its own in the store, and comes back for it. So each job waits once, not in
a loop, and the rate is that of the line, however many workers there are and however late jobs come
for their instant. Beyond `HORIZON` nothing is reserved: such jobs come back by then and ask again,
so that a changed rate reaches them.

A reservation whose job does not come (cancelled, dead) is an instant unused. One that is lost with
its worker is found again by the job's id.

A job with several rates needs an instant of each, and has to wait for one after it has another. It
keeps that, as a job does that is late for it. Were it spent each time, jobs with a slow rate beside
one that many share would hardly ever start. The price: lateness that ends has some more start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random

from goose.stores.base import Delete, Get, Put, Store, Swap

EARLY = 0.05
"""Seconds by which a job may start before its instant, so that a fast line costs fewer round trips."""
HORIZON = 30.0
"""Seconds ahead for which instants are given out."""
KEPT = 60.0
"""Seconds for which a reservation outlives its instant, at least: its job may be late."""


def paced(
    store: Store, place: str, rate: float, ids: Sequence[str], random: Random
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds for which some of these jobs have to wait, and the instants of those that may start.

    Args:
        store: Where the line is.
        place: What its keys begin with.
        rate: Instants a second.
        ids: The jobs, in their order.
        random: Draws when those beyond the horizon ask again.

    Raises:
        BrokerError: The store failed; some may have a reservation, which they will find again.
    """
    waits: dict[str, float] = {}
    starts: dict[str, float] = {}
    new: list[str] = []
    now = store.now()
    for id_ in ids:
        [found] = store.apply([Get(_reservation(place, id_))])
        # One that is farther away than any is given out for is of a clock that has gone back.
        if found is None or float(found) > now + HORIZON + EARLY:
            new.append(id_)
        elif float(found) <= now + EARLY:
            store.apply([Delete(_reservation(place, id_))])
            starts[id_] = float(found)
        else:
            waits[id_] = float(found) - now
    if new:
        waits.update(_placed(store, place, rate, new, random))
        starts.update({id_: now for id_ in new if id_ not in waits})
    return waits, starts


def keep(
    store: Store, place: str, rate: float, starts: Mapping[str, float], waits: Mapping[str, float]
) -> None:
    """Keep the instants of jobs that may start by this rate, and have to wait for another.

    Raises:
        BrokerError: The store failed; they ask for an instant again.
    """
    now, late = store.now(), max(KEPT, 1.0 / rate)
    puts = [
        Put(_reservation(place, id_), repr(at).encode(), at + late - now)
        for id_, at in starts.items()
        if now + waits[id_] < at + late
    ]
    if puts:
        store.apply(puts)


def _placed(
    store: Store, place: str, rate: float, ids: Sequence[str], random: Random
) -> Mapping[str, float]:
    """Give each of *ids* an instant; return the seconds until those that are not now."""
    key, apart = f"{place}line", 1.0 / rate
    while True:
        now = store.now()
        [value] = store.apply([Get(key)])
        # One that was set for another rate, or by a clock that has gone back, may reach far. Nothing
        # was given out beyond the horizon, so it is set there, and from now on comes nearer.
        line = float(value or 0.0)
        first = max(now, min(line, now + HORIZON + apart))
        fits = min(len(ids), max(0, math.floor((now + HORIZON - first) / apart) + 1))
        given = {id_: first + number * apart for number, id_ in enumerate(ids[:fits])}
        moved = first + fits * apart
        later = {id_: at - now for id_, at in given.items() if at > now + EARLY}
        puts = [
            Put(_reservation(place, id_), repr(given[id_]).encode(), later[id_] + KEPT)
            for id_ in later
        ]
        # The line moves first: a reservation that is then lost is an instant unused, while one for
        # an instant that is still in the line would be two jobs at once.
        ttl = HORIZON + KEPT + apart
        if moved == line or store.apply([Swap(key, value, repr(moved).encode(), ttl)])[0]:
            if puts:
                store.apply(puts)
            beyond = {id_: HORIZON * random.uniform(0.5, 1.0) for id_ in ids[fits:]}
            return {**later, **beyond}


def _reservation(place: str, id_: str) -> str:
    return f"{place}at:{id_[:200]}"
