"""The worker's side: who holds no key does not run, and whoever ends gives it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from goose.brokers import sees_all
from goose.brokers.base import Inspector
from goose.features.traits import Admission, Defer, Ended, Finish, Tools
from goose.features.uniques.claims import is_there
from goose.features.uniques.records import (
    AFTER,
    CLAIM,
    Record,
    Trait,
    dump,
    parse,
    record_of,
    shadow_of,
    trait_of,
    ttl_of,
)
from goose.jobs import Job
from goose.stores.base import Get, Put, Swap

AGAIN = 5.0
"""Seconds until a job looks again whose key another has."""


class Unique:
    """See `goose.features.traits.Trait`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def admit(self, jobs: Sequence[Job[Any]]) -> Mapping[str, Admission]:
        """Let those go on that hold their key, or whose time has passed."""
        answers = {job.id: self._admission(job) for job in jobs}
        return {id_: answer for id_, answer in answers.items() if answer is not None}

    def ended(self, endings: Sequence[Ended]) -> None:
        """Give their keys back."""
        for end in endings:
            trait = trait_of(end.job)
            if end.ending == "renewed":
                self._pardon(end.job.id, trait)
            elif trait.until != "time" or trait.quiet:
                self._release(end.job.id, trait)

    def _release(self, id_: str, trait: Trait) -> None:
        while True:
            value = self._read(trait)
            if value is None:
                return
            record = parse(value)
            if record.id == id_:
                left = record.left(trait, self._tools.store().now())
                known = left.superseded or left.begun
                done = self._leave(trait, value, left if known else None, shadow_of(trait))
            elif record.is_left_by(id_):
                done = self._leave(trait, value, record, AFTER)
            else:
                return
            if done:
                return

    def _pardon(self, id_: str, trait: Trait) -> None:
        """See to it that a dead job that starts again is not taken for one that was superseded."""
        while True:
            value = self._read(trait)
            record = None if value is None else parse(value)
            if value is None or record is None or id_ not in record.superseded:
                return
            left = tuple(other for other in record.superseded if other != id_)
            if self._swap(trait, value, dump(replace(record, superseded=left)), record):
                return

    def _admission(self, job: Job[Any]) -> Admission | None:
        trait = trait_of(job)
        while True:
            value = self._read(trait)
            if value is None:
                # It was told to have ended, or its time has passed: it is here, so it holds on.
                if trait.until != "done" or trait.quiet or self._hold(job, trait):
                    return None
                continue
            record = parse(value)
            now = self._tools.store().now()
            if record.id != job.id:
                return self._beside(job, trait, record, value, now)
            if trait.quiet and now - record.at < trait.quiet:
                if not record.stored and not self._confirm(trait, value, record):
                    continue
                return Defer(trait.quiet - (now - record.at), "unique: it is not quiet yet")
            if self._begun(job, trait, record, value):
                return None

    def _begun(self, job: Job[Any], trait: Trait, record: Record, value: bytes) -> bool:
        """Note that the holder is about to start; say whether nobody changed the record meanwhile."""
        if trait.until == "started" or trait.quiet:
            # An enqueue of it that is repeated from now on must not claim the key again.
            left = record.left(trait, self._tools.store().now(), begun=job.id)
            return self._leave(trait, value, left, shadow_of(trait))
        return record.stored or self._confirm(trait, value, record)

    def _confirm(self, trait: Trait, value: bytes, record: Record) -> bool:
        """Note that the holder is stored: that it is here is the proof."""
        return self._swap(trait, value, dump(record.confirmed()), record)

    def _beside(
        self, job: Job[Any], trait: Trait, record: Record, value: bytes, now: float
    ) -> Admission | None:
        """Return what becomes of *job*, whose key another has."""
        if job.id == record.before and not record.stored:
            # The newer call may never have been stored.
            if now - record.at < CLAIM:
                return Defer(1.0, "unique: a later call is being stored")
            if self._is_stored(record.id):
                # Its client could not note that; without a look, the last call would not win.
                self._confirm(trait, value, record)
                return Defer(0.0, "unique: the later call was stored")
            others = record.without(job.id, record.id)
            again = record_of(job, trait, record.at).confirmed()
            again = replace(again, superseded=others, begun=record.begun)
            self._swap(trait, value, dump(again), again)
            return Defer(0.0, "unique: the later call was not stored")
        if trait.quiet and not record.stored and record.follows(job.id):
            # It is stored, and the newer call may never be: then this one is the last.
            self._swap(trait, value, dump(replace(record, before=job.id)), record)
            return Defer(1.0, "unique: a later call is being stored")
        if job.id in record.superseded:
            return Finish("skipped", f"unique: {record.id} came in its place")
        if trait.until != "done" or trait.quiet:
            return None  # its own time is over; the other's began after that
        if not record.id:
            mine = record.superseded_by(job, trait, now).confirmed()
            if self._swap(trait, value, dump(mine), mine):
                return None
        return Defer(AGAIN, f"unique: {record.id} holds its key")

    def _is_stored(self, id_: str) -> bool:
        """Say whether that job is there for certain."""
        broker = self._tools.broker
        return isinstance(broker, Inspector) and sees_all(broker) and is_there(broker, id_)

    def _hold(self, job: Job[Any], trait: Trait) -> bool:
        value = dump(replace(record_of(job, trait, self._tools.store().now()), stored=True))
        put = Put(trait.key, value, ttl_of(trait), only_if_absent=True)
        return bool(self._tools.store().apply([put])[0])

    def _read(self, trait: Trait) -> bytes | None:
        value: bytes | None = self._tools.store().apply([Get(trait.key)])[0]
        return value

    def _leave(self, trait: Trait, old: bytes, left: Record | None, ttl: float) -> bool:
        """Write what is known of a key that nobody holds; say whether nobody changed it meanwhile."""
        new = None if left is None else dump(left)
        swap = Swap(trait.key, old, new, None if left is None else ttl)
        return bool(self._tools.store().apply([swap])[0])

    def _swap(self, trait: Trait, old: bytes, new: bytes, record: Record) -> bool:
        store = self._tools.store()
        ttl = ttl_of(trait, elapsed=store.now() - record.at)
        return bool(store.apply([Swap(trait.key, old, new, ttl)])[0])
