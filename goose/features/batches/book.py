"""`Batches`: the batches of one store, to make, fill, end, look at and change.

What ends a batch is decided here, in `settle`, by whoever changed something last. How that could
break, and what holds:

* *A member counts twice, or not at all.* Its end is a byte in its shard, written by a swap of the
  shard, before the broker forgets the job. A crash before the swap has the job run and reported
  again, one after it has it reported again; the byte is the same.
* *Two members end last, and neither sees it, or both do.* Whoever writes a byte looks afterwards
  whether all are settled; the later of two writers sees both. If both see it, one swap of the
  record wins, and the other finds it made.
* *A member adds another and ends while somebody looks.* Numbers from elsewhere only grow, and are
  given out before the adding member ends. Shards are looked at in the order of numbers, and how
  many there are is read with the last of them: so whoever sees the parent as ended sees its child.
* *Somebody looks, and is slow to say how it has ended.* A member that was cancelled may be done after
  all, by a process that had lost it. So whoever says something new looks once more after that, until
  he finds what he has said.
* *It is sealed when all members have ended already.* Then whoever seals it looks; if that client
  dies between the two, `sweep`, which workers do once in a while, looks.
* *The process dies between the decision and the callbacks.* The record says which are due, and
  whose they are. If nothing was heard of them for a while, the next who looks takes them over: a
  sweep, if not the member that ended last, which was not settled and comes again. Callbacks are
  once-jobs with ids of their own, so two are one.
* *Two are at it.* A claim is one swap, and one instance does one thing at a time, so only a claim
  that ran out while its owner was still at it has callbacks enqueued twice.
* *The batch is deleted meanwhile.* First the record says so, and nothing more is written; what a
  swap that was under way has written after all is removed by the one who wrote it.
"""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from goose.errors import BatchError, ConfigError
from goose.features.batches import members
from goose.features.batches.members import SHARD
from goose.features.batches.records import (
    ADDED,
    PREFIX,
    Event,
    Progress,
    Record,
    added_key,
    callback_key,
    dump,
    key_of,
    name_key,
    parse,
    progress_of,
    shard_key,
    shards_of,
)
from goose.jobs import Envelope, Job, decode, encode
from goose.stores.base import Delete, Get, Increment, Operation, Put, Store, Swap

PAGE = 500
"""Shards or records read, or written, in one call."""
LOOK = 128
"""Shards read in one step to decide whether a batch has ended."""
HINTS = 1000
"""Batches of which a shard is remembered that is known not to be settled."""
SWEEP = "batch.sweep"
SWEEP_SECONDS = 60.0
"""Between two sweeps of all who use the store."""

Send = Callable[[Sequence[Job[Any]]], object]
Watch = Callable[[Record, Record, Progress], object]


class Batches:
    """The batches of one store. Any thread may use it.

    Args:
        store: Where they are.
        send: Enqueues jobs; returns once they are stored.
        on_ended: Told of a batch whose members have all ended, as it was and as it is, and how
            they ended; once for each time that its status changes.
    """

    def __init__(self, store: Store, send: Send, on_ended: Watch | None = None) -> None:
        self._store = store
        self._send = send
        self._on_ended = on_ended
        self._name = uuid.uuid4().hex
        self._finishing = threading.Lock()
        self._hints: dict[str, str] = {}

    # --- looking ---------------------------------------------------------------------------

    def records(self) -> Iterator[Record]:
        """Yield all batches, by id, which is in the order of their making."""
        for page in self._pages(PREFIX):
            yield from (found for _, value in page if (found := _present(value)) is not None)

    def get(self, id_: str) -> Record | None:
        """Return the batch of that id, None if there is none."""
        return _present(self._one(Get(key_of(id_))))

    def named(self, name: str) -> Record | None:
        """Return the batch of that name, None if there is none."""
        holder = self._one(Get(name_key(name)))
        return None if holder is None else self.get(holder.decode())

    def found(self, wanted: str) -> Record:
        """Return the batch of that name or id.

        Raises:
            ConfigError: There is none.
        """
        record = self.named(wanted) or self.get(wanted)
        if record is None:
            raise ConfigError(f"there is no batch {wanted!r:.80}; it may have ended long ago")
        return record

    def progress(self, record: Record) -> Progress:
        """Return how far the batch is; reads one value for each `SHARD` of its members."""
        values = [value for page in self._pages(shards_of(record.id)) for _, value in page]
        return progress_of(members.count(values), is_open=not record.is_sealed)

    def kinds(self, id_: str, first: int, count: int) -> bytes:
        """Return of what kind each of *count* members is, from number *first* on."""
        numbers = range(first // SHARD, (first + count - 1) // SHARD + 1)
        values = self._store.apply([Get(shard_key(id_, number)) for number in numbers])
        found = b"".join(members.kinds(value).ljust(SHARD, b"\0") for value in values)
        return found[first % SHARD :][:count]

    # --- making ----------------------------------------------------------------------------

    def open(self, record: Record, callbacks: Mapping[Event, Job[Any]]) -> Record:
        """Store a new batch; return it with the instant by the store's clock.

        Raises:
            BatchError: There is a batch of that name.
        """
        record = replace(record, opened_at=self._store.now(), on=tuple(sorted(callbacks)))
        templates = [
            Put(
                callback_key(record.id, event), encode(job.evolve(id=callback_id(record.id, event)))
            )
            for event, job in callbacks.items()
        ]
        self._store.apply([*templates, Put(record.key, dump(record))])
        while record.name:
            holder = self._one(Get(name_key(record.name)))
            if holder is not None and self.get(holder.decode()) is not None:
                self._erase(record)
                raise BatchError(
                    f"there is a batch {record.name!r} already; delete it, use another name, or go on "
                    "with it: goose.batch(name=…, resume=True)"
                )
            if self._one(Swap(name_key(record.name), holder, record.id.encode())):
                break
        return record

    def reserve(self, id_: str, count: int) -> int:
        """Return the first of *count* numbers for members that are added from elsewhere.

        Raises:
            BatchError: The batch does not exist.
        """
        last, value = self._store.apply([Increment(added_key(id_), count), Get(key_of(id_))])
        if _present(value) is None:
            self._one(Delete(added_key(id_)))
            raise BatchError(f"the batch {id_} does not exist any more")
        return ADDED + int(last) - count

    def seal(self, id_: str, total: int) -> Record | None:
        """Say that the first client has put all its *total* members in; None if it is deleted."""
        now = self._store.now()
        record = self._change(id_, lambda found: found.sealed(total, now))
        if record is not None:
            self.settle(record)
        return record

    # --- counting --------------------------------------------------------------------------

    def report(self, id_: str, reports: Mapping[int, int]) -> None:
        """Note what members are, by number; if all have ended, end the batch.

        Args:
            id_: Of the batch; what is said of one that does not exist is ignored.
            reports: See `members`. Each counts if it is more than what is known.

        Raises:
            BrokerError: Store or broker failed; say it again.
        """
        shards: dict[str, dict[int, int]] = defaultdict(dict)
        for number, kind in reports.items():
            shards[shard_key(id_, number // SHARD)][number % SHARD] = kind
        record, values = self._join(id_, shards)
        if record is not None and record.is_sealed and all(map(members.is_settled, values)):
            self.settle(record)

    def _join(
        self, id_: str, shards: Mapping[str, Mapping[int, int]]
    ) -> tuple[Record | None, Sequence[bytes | None]]:
        """Write what is new of *shards*; return the batch and all of them as they were with it."""
        value, *answers = self._store.apply([Get(key_of(id_)), *map(Get, shards)])
        found: dict[str, bytes | None] = dict(zip(shards, answers, strict=True))
        while (record := _present(value)) is not None:
            joined = {key: members.joined(found[key], shards[key]) for key in shards}
            changed = {key: new for key, new in joined.items() if new != found[key]}
            if not changed:
                break
            steps = [
                step
                for key, new in changed.items()
                for step in (Swap(key, found[key], new, ttl=members.kept_for(new)), Get(key))
            ]
            *answers, value = self._store.apply([*steps, Get(key_of(id_))])
            found.update(zip(changed, answers[1::2], strict=True))
            if _present(value) is None:
                self._store.apply([Delete(key) for key in changed])
        return record, list(found.values())

    # --- ending ----------------------------------------------------------------------------

    def settle(self, record: Record) -> None:
        """End the batch if it is sealed and all its members have ended.

        Raises:
            BrokerError: Store or broker failed; what is left to do is done by the next who looks.
        """
        seen, counts = None, self._ended(record) if record.is_sealed else None
        while counts is not None and counts != seen and self._conclude(record.id, counts):
            seen, counts = counts, self._ended(record)
        if counts is not None:
            self._finish(record.id)

    def _conclude(self, id_: str, counts: tuple[int, ...]) -> bool:
        """Note how the batch has ended; say whether that is news."""
        progress = progress_of(counts, is_open=False)
        status = progress.status
        assert status is not None
        now = self._store.now()
        before: list[Record] = []

        def conclude(found: Record) -> Record:
            before[:] = [found]
            return found.concluded(status, now, self._name)

        after = self._change(id_, conclude)
        if after is None or after == before[0]:
            return False
        if before[0].status != after.status and self._on_ended is not None:
            self._on_ended(before[0], after, progress)
        return True

    def _ended(self, record: Record) -> tuple[int, ...] | None:
        """Return how many members are of each kind if all have ended, else None."""
        counter, hint = added_key(record.id), self._hints.get(record.id)
        if hint is not None and not members.is_settled(self._one(Get(hint))):
            return None
        added, place, counts = 0, 0, members.count(())
        while True:
            keys = record.shards(added)[place : place + LOOK]
            *values, last = self._store.apply([*map(Get, keys), Get(counter)])
            for key, value in zip(keys, values, strict=True):
                if not members.is_settled(value):
                    if len(self._hints) >= HINTS:
                        self._hints.clear()
                    self._hints[record.id] = key
                    return None
            counts = tuple(map(sum, zip(counts, members.count(values), strict=True)))
            added, place = int(last or 0), place + len(keys)
            if place >= len(record.shards(added)):
                self._hints.pop(record.id, None)
                return counts

    def _finish(self, id_: str) -> None:
        """Enqueue the callbacks that are due, and let all there is of the batch go after its linger.

        Does nothing if that is another's.
        """
        with self._finishing:
            while True:
                now = self._store.now()
                record = self._change(id_, lambda found: found.claimed(now, self._name))  # noqa: B023
                if record is None or record.phase != "ending" or record.by != self._name:
                    return
                self._send([self._callback(record, event) for event in record.due])
                self._expire(record)
                swap = Swap(record.key, dump(record), dump(record.ended()), ttl=record.linger)
                if self._one(swap):
                    return

    def _callback(self, record: Record, event: Event) -> Job[Any]:
        body = self._one(Get(callback_key(record.id, event)))
        if body is None:
            raise BatchError(f"the callback on_{event} of batch {record.label} is gone")
        job = decode(Envelope(callback_id(record.id, event), "", body))
        return job.evolve(enqueued_at=self._store.now())

    def _expire(self, record: Record) -> None:
        """Have everything but the record go once it was not changed for the linger."""
        linger = record.linger
        for page in self._pages(shards_of(record.id)):
            left = dict(page)
            while left:
                steps: list[Operation] = []
                for key, value in left.items():
                    steps += [Swap(key, value, members.keep_for(value, linger), linger), Get(key)]
                answers = self._store.apply(steps)
                left = {
                    key: now
                    for key, done, now in zip(left, answers[::2], answers[1::2], strict=True)
                    if not done and now is not None
                }
        steps = [Increment(added_key(record.id), 0, ttl=linger)]
        for event in record.on:
            body = self._one(Get(callback_key(record.id, event)))
            if body is not None:
                steps.append(Put(callback_key(record.id, event), body, ttl=linger))
        self._store.apply(steps)
        if record.name:
            holder = record.id.encode()
            self._one(Swap(name_key(record.name), holder, holder, ttl=linger))

    def sweep(self) -> None:
        """Bring to its end what somebody died over; once a minute for all who use the store.

        Raises:
            BrokerError: Store or broker failed.
        """
        if not self._one(Put(SWEEP, b"1", ttl=SWEEP_SECONDS, only_if_absent=True)):
            return
        for record in [parse(value) for page in self._pages(PREFIX) for _, value in page]:
            if record.phase in ("sealed", "ending"):
                self.settle(record)
                self._finish(record.id)
            elif record.phase == "deleted":
                self._erase(record)

    # --- changing --------------------------------------------------------------------------

    def cancel(self, id_: str) -> Record | None:
        """Have members that have not started end as cancelled; None if there is no such batch."""
        now = self._store.now()
        return self._change(
            id_, lambda found: found if found.cancelled_at else replace(found, cancelled_at=now)
        )

    def delete(self, id_: str) -> bool:
        """Forget the batch, not its members, which run on; say whether there was one."""
        record = self._change(id_, lambda found: replace(found, phase="deleted"))
        if record is None:
            return False
        self._erase(record)
        return True

    def _erase(self, record: Record) -> None:
        for page in self._pages(shards_of(record.id)):
            self._store.apply([Delete(key) for key, _ in page])
        if record.name:
            self._one(Swap(name_key(record.name), record.id.encode(), None))
        rest = [callback_key(record.id, event) for event in record.on]
        self._store.apply([Delete(key) for key in (*rest, added_key(record.id), record.key)])

    def _change(self, id_: str, change: Callable[[Record], Record]) -> Record | None:
        """Swap the record for what *change* makes of it; None if there is none."""
        value = self._one(Get(key_of(id_)))
        while True:
            record = _present(value)
            if record is None:
                return None
            changed = change(record)
            if changed == record:
                return record
            ttl = changed.linger if changed.phase == "ended" else None
            swap = Swap(record.key, value, dump(changed), ttl)
            done, value = self._store.apply([swap, Get(record.key)])
            if done:
                return changed

    def _pages(self, prefix: str) -> Iterator[Sequence[tuple[str, bytes]]]:
        after = ""
        while page := self._store.scan(prefix, limit=PAGE, after=after):
            yield page
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def _one(self, operation: Operation) -> Any:
        [result] = self._store.apply([operation])
        return result


def callback_id(id_: str, event: str) -> str:
    """Return the id of a batch's callback, the same whoever enqueues it."""
    return f"{id_}:{event}"


def _present(value: bytes | None) -> Record | None:
    record = None if value is None else parse(value)
    return None if record is None or record.phase == "deleted" else record
