"""What a client does before jobs that depend on others are sent: it has them join their parents.

Those whose parents have all ended are sent at once, the others stay in the store. See `book`; and
`holding` for parents that are named by a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from goose._edges import OnFailure
from goose.brokers import name_of, sees_all
from goose.brokers.base import Broker, Inspector, State
from goose.errors import FlowError, StoreError, Unsupported
from goose.features.asking import Sealed
from goose.features.flows.asking import NAME, held_of, keys_of, parents_of
from goose.features.flows.book import Flows
from goose.features.flows.records import Edge, Node
from goose.features.traits import Ended, Traits
from goose.jobs import Job, decode
from goose.stores.base import MAX_VALUE, Store

if TYPE_CHECKING:
    from goose.features.flows.holding import Holders

MAX_PARENTS = 5_000
"""Jobs that one job may depend on; the node must fit into one value of the store."""


class Claim:
    """See `goose.features.asking.Claim`."""

    def __init__(self, broker: Broker, store: Store) -> None:
        self._broker = broker
        self._store = store
        self._flows = Flows(store, broker, self._tell)
        self._traits = Traits(broker, lambda: store)
        self._joined: dict[str, Job[Any]] = {}
        self._parents: dict[str, Mapping[str, OnFailure]] = {}
        self._holders: Holders | None = None
        self._sent: Mapping[str, Job[Any]] = {}

    def claim(self, sealed: Sequence[Sealed]) -> Mapping[str, Job[Any]]:
        """Have those of *sealed* that depend on others join; return those that wait for them."""
        sent = {job.id: job for job, _ in sealed}
        self._sent = sent
        sealed = [each for each in sealed if NAME in each[0].traits]
        parents = self._parents = self._resolved([job for job, _ in sealed], sent)
        _check(sealed, parents)
        try:
            for job, envelope in sealed:
                edges = {parent: (policy, "pending") for parent, policy in parents[job.id].items()}
                node = Node("joining", job.fn, edges, envelope.delay, envelope.due_at)  # type: ignore[arg-type]
                if self._flows.begin(envelope, node).state == "joining":
                    self._joined[job.id] = job
            for job_id in self._joined:
                for parent in parents[job_id]:
                    self._join(job_id, parent)
            return {job.id: job for job, _ in sealed if not self._is_to_be_sent(job)}
        except BaseException:
            self.undo(list(self._joined.values()))
            raise

    def undo(self, jobs: Sequence[Job[Any]]) -> Sequence[Job[Any]]:
        """Forget *jobs*, and those that joined with them and would wait for them for ever."""
        lost = {job.id for job in jobs}
        while True:
            more = {id_ for id_ in self._joined if lost & set(self._parents[id_])} - lost
            if not more:
                break
            lost |= more
        gone = [job for id_, job in self._joined.items() if id_ in lost]
        for job in gone:
            self._flows.forget(job.id)
            del self._joined[job.id]
        return gone

    def _resolved(
        self, jobs: Sequence[Job[Any]], sent: Mapping[str, Job[Any]]
    ) -> dict[str, Mapping[str, OnFailure]]:
        """Return, by id, what each of *jobs* depends on: what it names, and who holds its keys.

        Args:
            jobs: Those that are to join.
            sent: By id, all jobs of this enqueue, which may hold the keys.
        """
        by_id = {job.id: parents_of(job) for job in jobs}
        if any(keys_of(job) or held_of(job) for job in jobs):
            from goose.features.flows.holding import Holders  # not every flow's

            holders = self._holders = Holders(self._broker, self._store, self._flows, sent)
            for job in jobs:
                holders.vouch(held_of(job))
            return {job.id: {**holders.parents(job), **by_id[job.id]} for job in jobs}
        return by_id

    def _join(self, job_id: str, parent: str) -> None:
        job = self._joined[job_id]
        named = parent in parents_of(job)
        holders = None if named and parent not in held_of(job) else self._holders
        for _ in range(2):
            edge = self._flows.join(job_id, parent)
            if edge is None:
                edge = self._edge_without_record(parent, holders)
            if edge is not None:
                if edge != "pending":
                    self._flows.mark(job_id, parent, edge)
                return
            # It may have ended between the two looks: then it has left its record by now.
        if not named:
            self._flows.mark(job_id, parent, "ok")  # by now its key is free
            return
        raise FlowError(
            f"job {job_id} depends on {parent}, which is not stored here and has left no result: it "
            "never was, it kept no result, or that has outlived its time"
        )

    def _edge_without_record(self, parent: str, holders: Holders | None) -> Edge | None:
        """Return how *parent* is, ``pending`` if it will be heard of; None if it is not known."""
        if holders:
            return "pending" if holders.will_be_heard_of(parent) else None
        node = self._flows.node(parent)
        state = node.state if node else None
        if state in ("joining", "waiting", "stopped"):
            return "pending"
        if state == "cancelled":
            return "gone"  # its record has outlived its time
        if state == "ended":
            return None
        broker = self._broker
        if not isinstance(broker, Inspector) or not sees_all(broker):
            if state == "sent":
                return "pending"
            raise Unsupported(
                f"{name_of(broker)} cannot say whether job {parent} is stored; enqueue it together "
                "with what depends on it: goose.flow() or goose.chain(…)"
            )
        found = broker.find(parent)
        if found is None:
            # One of this enqueue is on its way, if an earlier try had it join.
            return "pending" if state == "sent" and parent in self._sent else None
        if "result" not in decode(found.envelope, max_bytes=1 << 62).traits:
            raise FlowError(
                f"job {parent} keeps no result, so nobody is told when it ends: enqueue it with "
                "goose.using(result=True)"
            )
        return "failed" if found.state is State.DEAD else "pending"

    def _is_to_be_sent(self, job: Job[Any]) -> bool:
        node = self._flows.await_parents(job.id)
        if node.state == "waiting" and node.verdict == "cancel":
            self._flows.cancel(job.id, "a job it depends on had failed before")
        return node.state == "sent"

    def _tell(self, endings: Sequence[Ended]) -> None:
        for error in self._traits.ended(endings).values():
            raise error


def _check(sealed: Sequence[Sealed], parents: Mapping[str, Mapping[str, OnFailure]]) -> None:
    """Raise what is wrong with the jobs whatever the store knows.

    Raises:
        FlowError: They depend on each other in a circle, or one on too many.
        StoreError: One is too large to wait in the store.
    """
    for job, envelope in sealed:
        if len(parents[job.id]) > MAX_PARENTS:
            raise FlowError(
                f"job {job.id} of {job.fn} depends on {len(parents[job.id]):,} jobs, over the limit of "
                f"{MAX_PARENTS:,}; let some jobs gather for it, or use a batch"
            )
        if len(envelope.body) > MAX_VALUE:
            raise StoreError(
                f"job {job.id} of {job.fn} takes {len(envelope.body):,} bytes, over the "
                f"{MAX_VALUE:,} that one that depends on others may"
            )
    left = {job_id: {each for each in of if each in parents} for job_id, of in parents.items()}
    while free := [job_id for job_id, of in left.items() if not of]:
        for job_id in free:
            del left[job_id]
        for of in left.values():
            of.difference_update(free)
    if left:
        raise FlowError(f"these jobs depend on each other in a circle: {', '.join(sorted(left))}")
