"""Parents that a job names by a unique key: who they are, and whether their end will be heard of.

Who holds a key is asked once, when the dependent job joins, and noted on its node like any other
parent. So a key that changes hands later changes nothing, and a free key is nothing to wait for.

* The holder ends between the answer and the joining: it has left its record, which joining reads, or
  it will read who depends on it (see `book`). Where it is neither stored nor on record any more, its
  key is free by now, and the edge counts as done.
* The holder is claimed and not confirmed: it is waited for as long as the claim holds, since it may
  never be stored. One that this very enqueue sends is known to be.
* Jobs that wait for each other's keys, enqueued by two clients: a holder is found only once it is
  stored, which is after its own keys were asked. So no circle can come of it.
* The broker cannot show what it stores: a job that holds its key until it starts or ends is stored
  as long as it holds it, since every end gives the key back before the end is recorded. One that was
  removed behind our back holds it all the same: who waits for it does so until it is sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from goose._edges import OnFailure
from goose.brokers import name_of, sees_all
from goose.brokers.base import Broker, Inspector, State
from goose.errors import FlowError, Unsupported
from goose.features.flows.asking import keys_of
from goose.features.flows.book import Flows
from goose.features.uniques.claims import Claim as Keys
from goose.features.uniques.records import Record, holder_trait
from goose.jobs import Job, decode
from goose.stores.base import Store


class Holders:
    """Finds the holders of keys, for the jobs of one enqueue.

    Args:
        broker: Where holders are.
        store: Where the records of keys are.
        flows: Where those are that wait for others.
        sent: By id, the jobs that are being enqueued, of a flow or not.
    """

    def __init__(
        self, broker: Broker, store: Store, flows: Flows, sent: Mapping[str, Job[Any]]
    ) -> None:
        self._broker = broker
        self._flows = flows
        self._sent = sent
        self._keys = Keys(broker, store)
        self._records: dict[str, Record | None] = {}
        """By digest: what the store answered, once for all jobs of the enqueue."""
        self._found: dict[str, tuple[str, str]] = {}
        """By id of a holder: digest and shown text of the key."""

    def parents(self, job: Job[Any]) -> dict[str, OnFailure]:
        """Return the holders of the keys that *job* waits for; nobody for a free one."""
        found: dict[str, OnFailure] = {}
        for digest, (policy, shown) in keys_of(job).items():
            if digest not in self._records:
                self._records[digest] = self._keys.holder(digest, self._sent)
            holder = self._records[digest]
            if holder is not None:
                found[holder.id] = policy
                self._found[holder.id] = digest, shown
        return found

    def vouch(self, held: Mapping[str, tuple[str, str]]) -> None:
        """Take keys, by the ids of jobs that had them a moment ago, as a sign that these are stored."""
        self._found.update({id_: (digest, shown) for id_, (digest, shown) in held.items()})

    def will_be_heard_of(self, parent: str) -> bool:
        """Say whether the end of that holder is still to come; if not, its key is free.

        Raises:
            FlowError: It keeps no result.
            Unsupported: The broker cannot say whether it is stored, and its key says nothing of that.
        """
        if parent in self._sent:
            self._check(self._sent[parent])
            return True
        node = self._flows.node(parent)
        if node is not None and node.state in ("joining", "waiting", "stopped"):
            return True
        broker = self._broker
        if not isinstance(broker, Inspector) or not sees_all(broker):
            return self._holds_on(parent)
        found = broker.find(parent)
        if found is None or found.state is State.DEAD:
            return False
        self._check(decode(found.envelope, max_bytes=1 << 62))
        return True

    def _holds_on(self, parent: str) -> bool:
        digest, shown = self._found[parent]
        record = self._keys.holder(digest)
        if record is None or record.id != parent:
            return False
        unsure = f"{name_of(self._broker)} cannot say whether job {parent} is stored, which holds the key {shown}"
        if not record.body:
            raise Unsupported(
                f"{unsure}, and the job that holds it is not known by its body (it takes over 256 KiB, or "
                "a later call was lost): enqueue it together with what depends on it"
            )
        if holder_trait(record, digest).until == "time":
            raise Unsupported(f'{unsure}: wait for keys that are held until "done" or "started"')
        self._check(record.job())
        return True

    def _check(self, holder: Job[Any]) -> None:
        if "result" not in holder.traits:
            _, shown = self._found[holder.id]
            raise FlowError(
                f"job {holder.id} holds the key {shown} and keeps no result, so nobody is told when it "
                "ends: enqueue it with goose.using(result=True), or put @goose.job(result=True) on its "
                "function"
            )
