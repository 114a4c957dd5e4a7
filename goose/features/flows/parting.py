"""What a job leaves behind, once it has ended, with those that it depended on: see `book`.

While it was to come they kept their results for it, and its id to tell it of their ends.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from goose.errors import StoreError
from goose.features.flows.records import (
    Node,
    body_key,
    child_key,
    child_prefix,
    key_of,
    marker_key,
    past_prefix,
    read,
    write,
)
from goose.features.results.records import KEPT
from goose.features.results.records import key_of as result_key
from goose.features.results.records import read as read_result
from goose.features.results.trait import ttl_of
from goose.features.traits import Ending
from goose.jobs import Job
from goose.options import RESULT_SECONDS
from goose.stores.base import Delete, Get, Operation, Put, Store, Swap, part


class Parting:
    """Parts jobs from those they depended on. Any thread may use it.

    Args:
        store: Where the nodes are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def child_ended(self, job: Job[Any], ending: Ending, ttl: float) -> None:
        """Let go of what that job depended on; while it may be replayed, only after long."""
        value = None if ending == "renewed" else self._one(Get(key_of(job.id)))
        if value is None:
            return
        node = read(value)
        if ending == "cancelled" and node.state in ("stopped", "ended"):
            for parent in node.parents:  # for good; whoever stopped it does the rest
                self._one(Delete(child_key(parent, job.id)))
            return
        # One that was cancelled as it waited may wait again; on the broker, it was so for good.
        again = ending == "dead" or (ending == "cancelled" and node.state != "sent")
        for parent in node.parents:
            key, name = child_key(parent, job.id), job.id.encode()
            if again:
                self._one(Put(key, name, ttl=KEPT))
                continue
            past = past_prefix(parent) + part(job.id)
            self._store.apply([Delete(key), Put(past, name, ttl=ttl)])
            self._let_go(parent)
        ended = node if again else replace(node, state="ended")
        swap = Swap(key_of(job.id), value, write(ended), ttl=KEPT if again else ttl)
        if not self._one(swap):  # it was stopped meanwhile, or told of another parent
            self.child_ended(job, ending, ttl)

    def _let_go(self, parent: str) -> None:
        """Have the result of *parent* go after its own time, if nobody depends on it any more."""
        key, marker = result_key(parent), marker_key(parent)
        if self._store.scan(child_prefix(parent), limit=1):
            return
        record = self._one(Get(key))
        self._store.apply([Swap(key, record, record, ttl=_own_time(record)), Delete(marker)])
        # Whoever joined between the look and that would lose the result.
        if self._store.scan(child_prefix(parent), limit=1):
            self._store.apply([Swap(key, record, record, ttl=KEPT), Put(marker, b"1")])

    def leave(self, job: Job[Any], node: Node) -> None:
        """Let go of the parents of a job that was stopped, some of which have not ended."""
        ttl = ttl_of(job)
        for parent in node.parents:
            past = past_prefix(parent) + part(job.id)
            self._store.apply(
                [Delete(child_key(parent, job.id)), Put(past, job.id.encode(), ttl=ttl)]
            )
            self.unmark(parent)
            if self._one(Get(result_key(parent))) is not None:
                self._let_go(parent)
        ended = write(replace(node, state="ended"))
        self._store.apply(
            [Swap(key_of(job.id), write(node), ended, ttl=ttl), Delete(body_key(job.id))]
        )

    def unmark(self, parent: str) -> None:
        """Forget that somebody depends on *parent*, which may not have ended, if nobody does."""
        marker = self._one(Get(marker_key(parent)))
        if marker is not None and not self._store.scan(child_prefix(parent), limit=1):
            # Whoever joined between the two looks has written another name there.
            self._one(Swap(marker_key(parent), marker, None))

    def _one(self, operation: Operation) -> Any:
        [result] = self._store.apply([operation])
        return result


def _own_time(record: bytes | None) -> float:
    """Return the seconds for which the end of a job is kept when nobody depends on it."""
    try:
        ttl = 0.0 if record is None else read_result(record).ttl
    except StoreError:  # of a later Goose
        ttl = 0.0
    return ttl or RESULT_SECONDS
