"""The client's side: a key is claimed before its job is sent, and confirmed after.

Who comes second gets the job that holds the key, and may rely on that: a holder that is not
confirmed is waited for, one that the broker has no more is replaced. Who only asks for the holder
gets the same answer, and claims nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from goose.brokers import sees_all
from goose.brokers.base import Broker, Inspector, State
from goose.features.uniques.records import (
    CLAIM,
    NAME,
    Record,
    Trait,
    dump,
    holder_trait,
    parse,
    record_of,
    shadow_of,
    trait_of,
    ttl_of,
)
from goose.jobs import Envelope, Job
from goose.stores.base import Get, Put, Store, Swap

LOOK = 0.02
"""Seconds between looks at a key whose holder is not confirmed, at first; it grows."""
LOOK_LIMIT = 0.25

sleeping: ContextVar[Callable[[float], object]] = ContextVar(
    "goose.features.uniques.claims.sleeping", default=time.sleep
)
"""How a claim waits for its next look; for `goose.testing`."""

Sealed = tuple[Job[Any], Envelope]


@dataclass(frozen=True, slots=True)
class _Claimed:
    """A key that is claimed for a job about to be sent."""

    trait: Trait
    value: bytes
    """The record of the claim, and its seconds to live."""
    ttl: float
    before: bytes | None
    """What was there before, and is again if the job is certainly not stored."""


class Claim:
    """See `goose.features.asking.Claim`."""

    def __init__(self, broker: Broker, store: Store) -> None:
        self._broker = broker
        self._store = store
        self._sleep = sleeping.get()
        self._claimed: dict[str, _Claimed] = {}
        """By id: the jobs whose key is claimed here."""
        self._shows: bool | None = None

    def claim(self, sealed: Sequence[Sealed]) -> Mapping[str, Job[Any]]:
        """Claim the keys of these jobs; return, by id, the holders of those that are held."""
        answers: dict[str, Job[Any]] = {}
        here: dict[str, Job[Any]] = {}
        for job, envelope in sealed:
            if NAME not in job.traits:
                continue
            trait = trait_of(job)
            # Of two in one call the first is the holder, or the last where that wins: nobody waits
            # for what this very call is going to send.
            if trait.digest in here and not trait.quiet:
                answers[job.id] = here[trait.digest]
                continue
            holder = self._one(job, envelope, trait)
            here[trait.digest] = job if holder is None else holder
            if holder is not None:
                answers[job.id] = holder
        return answers

    def sent(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Job[Any]]:
        """Note that *jobs* are stored; return, by id, the holders of those that came too late."""
        late: dict[str, Job[Any]] = {}
        for job in jobs:
            mine = self._claimed.pop(job.id, None)
            if mine is None:  # it keeps its place
                continue
            trait, stored = mine.trait, dump(parse(mine.value).confirmed())
            if not self._swap(trait, mine.value, stored, mine.ttl):
                found = self._read(trait)
                holder = None if found is None else parse(found)
                # Else it has begun, or ended, and another came after that.
                overtaken = holder is not None and holder.id and job.id in holder.superseded
                if holder is not None and overtaken and not trait.quiet:
                    late[job.id] = holder.job()
        return late

    def undo(self, jobs: Sequence[Job[Any]]) -> Sequence[Job[Any]]:
        """Give the keys of *jobs* back, which are certainly not stored."""
        for job in reversed(jobs):  # one may have come after another
            mine = self._claimed.pop(job.id, None)
            if mine is not None:
                ttl = mine.ttl
                if mine.before is not None and not parse(mine.before).id:
                    ttl = shadow_of(mine.trait)  # nobody held it
                self._swap(mine.trait, mine.value, mine.before, ttl)
        return ()

    def holder(self, digest: str, own: Collection[str] = ()) -> Record | None:
        """Return who holds a key, None if nobody does; one that is about to be stored is waited for.

        Args:
            digest: Of function and key.
            own: Ids of jobs that the caller is about to store, which hold their keys without a look.
        """
        look, key = LOOK, Trait(digest, "", "")
        while True:
            now = self._store.now()
            value = self._read(key)
            record = None if value is None else parse(value)
            if record is None or not record.id:
                return None
            verdict = (
                "held"
                if record.id in own
                else self._verdict(record, holder_trait(record, digest), now)
            )
            if verdict == "held":
                return record
            if verdict == "replace":
                # A newer call that was never stored leaves the key to the one before it.
                earlier = replace(record, id=record.before, stored=True, before="", body=b"")
                return earlier if record.before else None
            self._sleep(look)
            look = min(2 * look, LOOK_LIMIT)

    # --- one key -------------------------------------------------------------------------

    def _one(self, job: Job[Any], envelope: Envelope, trait: Trait) -> Job[Any] | None:
        """Claim the key of *job*; return its holder if it is held."""
        ttl = ttl_of(trait, delay=_delay(envelope, self._store))
        look = LOOK
        while True:
            now = self._store.now()
            value = dump(record_of(job, trait, now))
            [made] = self._store.apply([Put(trait.key, value, ttl, only_if_absent=True)])
            if made:
                self._claimed[job.id] = _Claimed(trait, value, ttl, None)
                return None
            found = self._read(trait)
            if found is None:
                continue
            holder = parse(found)
            if holder.id == job.id:  # sent again after an answer that never came
                # Perhaps it was stored then, and is refused now. Where the last call wins it keeps its key,
                # or it would run at once; elsewhere it takes the key when a worker has it.
                before = found if trait.quiet else None
                self._claimed[job.id] = _Claimed(trait, found, ttl, before)
                return None
            if holder.keeps_its_place(job.id, trait):  # likewise, and the others have gone on
                return None
            free = trait.quiet or not holder.id
            verdict = "replace" if free else self._verdict(holder, trait, now)
            if verdict == "held":
                return holder.job()
            if verdict == "replace":
                value = dump(holder.superseded_by(job, trait, now))
                if self._swap(trait, found, value, ttl):
                    self._claimed[job.id] = _Claimed(trait, value, ttl, found)
                    return None
            else:
                self._sleep(look)
                look = min(2 * look, LOOK_LIMIT)

    def _verdict(self, holder: Record, trait: Trait, now: float) -> str:
        """Return ``held``, ``replace``, or ``wait`` if it is not known yet."""
        if trait.until == "time" and holder.stored:
            return "held"  # for its time, done or not
        # One that waits for others is in the store, where nobody looks for it.
        there = None if "flow" in holder.job().traits else self._there(holder.id)
        if there is None:
            if holder.stored:
                return "held"
            return "wait" if now - holder.at < CLAIM else "replace"
        if there:
            return "held"
        if holder.stored:
            # Perhaps it ended while we looked; then its key is free by now.
            value = self._read(trait)
            return "replace" if value is not None and parse(value).id == holder.id else "wait"
        return "wait" if now - holder.at < CLAIM else "replace"

    def _there(self, id_: str) -> bool | None:
        """Say whether the broker has that job, and not among the dead; None if it cannot tell."""
        broker = self._broker
        if not isinstance(broker, Inspector):
            return None
        if self._shows is None:
            self._shows = sees_all(broker)
        return is_there(broker, id_) if self._shows else None

    def _read(self, trait: Trait) -> bytes | None:
        value: bytes | None = self._store.apply([Get(trait.key)])[0]
        return value

    def _swap(self, trait: Trait, old: bytes, new: bytes | None, ttl: float) -> bool:
        return bool(self._store.apply([Swap(trait.key, old, new, None if new is None else ttl)])[0])


def is_there(broker: Inspector, id_: str) -> bool:
    """Say whether *broker*, which shows all its jobs, has that one, and not among the dead."""
    stored = broker.find(id_)
    return stored is not None and stored.state is not State.DEAD


def _delay(envelope: Envelope, store: Store) -> float:
    if envelope.due_at is not None:
        return max(0.0, envelope.due_at - store.now())
    return envelope.delay or 0.0
