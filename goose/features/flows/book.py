"""Jobs that depend on others: who waits for whom, and what the end of one sets free.

Every job is a group of keys of its own, so no step changes two of them at once. The order of the
steps makes up for that:

* *Joining* (a client): the node is written as ``joining``, then each parent is told of it in one step
  that also reads how that parent ended, then the node is made ``waiting``. Only a waiting node is ever
  sent by its parents. A client that dies before has not returned, and what it wrote goes by itself.
* *Ending* (whoever ends a parent): the parent's record is written first, then its dependents are read.
  The two steps are of one group, so either joining sees the record, or ending sees the dependent.
* *Sending*: the last parent's edge is written to the node, the job goes to the broker, and then the
  node becomes ``sent``. All of that comes before the parent is settled. A crash anywhere in it has
  the parent end again, and everything is done again: the edge is there, the job has the same id
  and runs once (see `goose.features.once`). A parent that was removed by hand, and is settled before,
  ends again by the note of who removed it (see `goose.features.removals`).
* *Cancelling*: the traits of the dependent are told first, then its node is marked. Its own
  dependents follow in the same way, from a list and not by recursion: flows may be long.
* *Reviving* (a parent is replayed): the traits of the dependent are told, then its own dependents are
  revived, and then its node waits; a note says so meanwhile, see `stops`. So a node that waits has
  nothing cancelled below it that was forgotten, and a replay that fails on the way does all that is
  left when it is called again.
* *Stopping* (somebody's order, see `goose.cancelling`): the node is swapped to ``stopped``, from where no
  end of a parent moves it, then its traits are told, then it has ended and its body goes. If all
  its parents have ended well, one of them is sending it, or has died and ends again: it is left to that,
  for a copy that is found and removed says nothing of the one still to come. Whoever dies in between
  leaves the order's mark, by which workers finish it (see `stops`), or end the job that they get.

A node that was cancelled because a parent died keeps its body and stays known to that parent. If the
parent is replayed, it waits again. One that was stopped does not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias

from goose.brokers.base import Broker
from goose.errors import StoreError
from goose.features.flows.parting import Parting
from goose.features.flows.records import (
    JOINING,
    REVIVALS,
    Edge,
    Node,
    body_key,
    child_key,
    child_prefix,
    key_of,
    marker_key,
    past_prefix,
    read,
    revival_key,
    write,
)
from goose.features.removals import KEPT as NOTED
from goose.features.removals import packed, unpacked
from goose.features.results.records import KEPT
from goose.features.results.records import key_of as result_key
from goose.features.results.records import read as read_result
from goose.features.traits import Ended, Ending
from goose.jobs import Envelope, Job, decode, seal
from goose.metrics import base as names
from goose.metrics.base import Metrics
from goose.stores.base import Delete, Get, Operation, Put, Store, Swap

PAGE = 100
UNBOUNDED = 1 << 62
STOPPED = "it was cancelled while it waited"
"""Why a job has ended that was stopped."""
Stopped: TypeAlias = Literal["stopped", "leaving", "elsewhere"]
"""``leaving``: one of its parents sends it just now, or will; ``elsewhere``: on the broker, if at all."""

_EDGES: dict[Ending, Edge] = {
    "done": "ok",
    "skipped": "ok",
    "dead": "failed",
    "cancelled": "gone",
    "deleted": "gone",
    "renewed": "pending",
}


class Flows:
    """The nodes of one store. Any thread may use it.

    Args:
        store: Where they are.
        broker: Where jobs go that are set free.
        ended: Tells all traits of jobs that end without a run.
        metrics: Counts what is set free and cancelled.
    """

    def __init__(
        self,
        store: Store,
        broker: Broker,
        ended: Callable[[Sequence[Ended]], None] = lambda _: None,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._broker = broker
        self._ended = ended
        self._metrics = metrics
        self._parting = Parting(store)
        self._agenda = threading.local()

    # --- looking ---------------------------------------------------------------------------

    def node(self, job_id: str) -> Node | None:
        """Return the node of that job, None if it has none."""
        value = self._one(Get(key_of(job_id)))
        return None if value is None else read(value)

    def children(self, job_id: str) -> Iterator[str]:
        """Yield the ids of those that depend on that job and have not ended for good."""
        return self._listed(child_prefix(job_id))

    def family(self, job_id: str) -> Iterator[str]:
        """Yield the ids of those that depend on that job, or did and are remembered."""
        yield from self.children(job_id)
        yield from self._listed(past_prefix(job_id))

    def _listed(self, prefix: str) -> Iterator[str]:
        after = ""
        while True:
            page = self._store.scan(prefix, limit=PAGE, after=after)
            for _, value in page:
                yield value.decode()
            if len(page) < PAGE:
                return
            after = page[-1][0]

    # --- joining: for clients --------------------------------------------------------------

    def begin(self, envelope: Envelope, node: Node) -> Node:
        """Write a node as joining, with its body; return the one that is there.

        One that was written before, by an enqueue whose answer got lost, stays as it is once it waits.
        """
        found = self.node(envelope.id)
        if found is not None and found.state != "joining":
            return found
        self._store.apply(
            [
                Put(key_of(envelope.id), write(node), ttl=JOINING),
                Put(body_key(envelope.id), envelope.body, ttl=JOINING),
            ]
        )
        return node

    def join(self, child: str, parent: str) -> Edge | None:
        """Tell *parent* of *child*; return how the parent ended, None if nothing is known of that."""
        record, _, _ = self._store.apply(
            [
                Get(result_key(parent)),
                Put(child_key(parent, child), child.encode()),
                Put(marker_key(parent), child.encode()),  # see `Parting.unmark`
            ]
        )
        if record is None:
            return None
        # It must not go before this one has run.
        if not self._one(Swap(result_key(parent), record, record, ttl=KEPT)):
            return self.join(child, parent)
        return _EDGES[read_result(record).ending]

    def mark(self, child: str, parent: str, edge: Edge) -> None:
        """Note on a joining node how *parent* has ended."""
        while True:
            value: bytes | None = self._one(Get(key_of(child)))
            if value is None or (node := read(value)).state != "joining":
                return
            if node.parents[parent][1] != "pending":
                return  # told by the parent itself meanwhile, which knows better
            if self._swap(child, value, node.told(parent, edge)):
                return

    def await_parents(self, job_id: str) -> Node:
        """Make a joining node wait; return it as it is then.

        If its parents have all ended it is ``sent``, and for its client to send.

        Raises:
            StoreError: It took so long to join that it is forgotten.
        """
        while True:
            value, body = self._store.apply([Get(key_of(job_id)), Get(body_key(job_id))])
            node = None if value is None else read(value)
            if node is not None and node.state != "joining":
                return node
            if node is None or value is None or body is None:
                raise StoreError(f"job {job_id} took over {JOINING:g} s to join its flow")
            ready = node.verdict == "run"
            changed = replace(node, state="sent" if ready else "waiting")
            body_step = Delete(body_key(job_id)) if ready else Put(body_key(job_id), body)
            # Nobody else touches the body before the node waits.
            swapped, _ = self._store.apply([Swap(key_of(job_id), value, write(changed)), body_step])
            if swapped:
                return changed

    def forget(self, job_id: str) -> None:
        """Remove a node that was not stored after all; who was stopped stays so, if sent again."""
        node: Node | None = None
        while (value := self._one(Get(key_of(job_id)))) is not None:
            node = read(value)
            if node.state in ("stopped", "ended"):
                return
            # Parents do not send one that joins, and it goes by itself: should the client die here, no node is
            # left that waits without its body, and who was stopped keeps its own until all traits are told.
            if self._swap(job_id, value, replace(node, state="joining")):
                break
        self._store.apply([Delete(key_of(job_id)), Delete(body_key(job_id))])
        for parent in node.parents if node else ():
            self._one(Delete(child_key(parent, job_id)))
            self._parting.unmark(parent)

    # --- ending: for traits ----------------------------------------------------------------

    def parent_ended(self, job_id: str, ending: Ending) -> None:
        """Tell those that depend on that job how it ended; what follows for others is done, too.

        Raises:
            BrokerError: Some were not told; all are told when this is called again.
        """
        step = partial(self._tell_children, job_id, _EDGES[ending])
        agenda: list[Callable[[], None]] | None = getattr(self._agenda, "list", None)
        if agenda is not None:  # a dependent that was cancelled just now has dependents of its own
            agenda.append(step)
            return
        agenda = self._agenda.list = [step]
        try:
            while agenda:
                agenda.pop()()
        finally:
            del self._agenda.list

    def _tell_children(self, parent: str, edge: Edge) -> None:
        for child in list(self.children(parent)):
            self._tell(child, parent, edge)

    def _tell(self, child: str, parent: str, edge: Edge, revived: Job[Any] | None = None) -> None:
        """Tell *child* how *parent* is; *revived* is its job if its traits know that it waits again."""
        while True:
            value: bytes | None = self._one(Get(key_of(child)))
            node = None if value is None else read(value)
            if revived and (node is None or node.state in ("stopped", "ended")):
                # It was stopped meanwhile, and its traits may have been told of that first.
                self._ended([Ended(revived, "cancelled", reason=STOPPED)])
            if value is None or node is None or parent not in node.parents or node.state == "ended":
                self._one(Delete(child_key(parent, child)))
                return
            if node.state in ("sent", "stopped"):
                return
            changed = node.told(parent, edge)
            if node.state == "waiting" and node.verdict == "run" and changed != node:
                # It is free, and on its way: nothing that is news takes that back. But a parent that ends
                # once more, in another way, may have set it free by an end whose teller died over it.
                if edge == "pending":
                    return
                changed = node
                break
            if node.state == "cancelled" and changed.verdict != "cancel":
                if revived is None:
                    self._revive(child, parent, edge)
                    return
                changed = replace(changed, state="waiting")
            if changed == node or self._swap(child, value, changed):
                break
        if changed.state == "joining":
            return
        if changed.verdict == "run":
            self._send(child, changed)
        elif changed.verdict == "cancel" and (edge != "ok" or changed.state != "cancelled"):
            culprit, state = changed.culprit
            self.cancel(child, f"a job it depends on, {culprit}, is {_WORDS[state]}")

    def _send(self, child: str, node: Node) -> None:
        job = self._job(child)
        if job is None:
            return  # another parent's end was faster
        envelope = seal(job, delay=node.delay, due_at=node.due_at, max_bytes=UNBOUNDED)
        if envelope.delay is None and envelope.due_at is None:
            self._broker.enqueue([envelope])
        else:
            self._broker.schedule([envelope])
        self._mark(child, "sent")
        self._one(Delete(body_key(child)))
        self._count(names.FLOW_SENT, job)

    def cancel(self, child: str, reason: str) -> None:
        """End a job that waits without a run, and with it those that depend on it.

        Raises:
            BrokerError: Not everybody was told; call it again.
        """
        job = self._job(child)
        if job is None:
            return
        # Its traits first: whoever finds it cancelled may rely on them.
        self._ended([Ended(job, "cancelled", reason=reason)])
        self._keep_body(child, KEPT)
        if self._mark(child, "cancelled"):
            self._count(names.FLOW_CANCELLED, job)

    def _revive(self, child: str, parent: str, edge: Edge) -> None:
        job = self._job(child)
        if job is not None:  # else it was stopped
            self._keep_body(child, None)
            self._one(Put(revival_key(child), packed(job).encode(), ttl=NOTED))
            # What is put on the agenda last is done first: its dependents, by its traits.
            self._agenda.list.append(partial(self._revived, job, parent, edge))
            self._ended([Ended(job, "renewed")])

    def _revived(self, job: Job[Any], parent: str, edge: Edge) -> None:
        self._tell(job.id, parent, edge, job)
        self._one(Delete(revival_key(job.id)))

    def finish_revivals(self) -> None:
        """Tell the traits of jobs that were stopped while somebody revived them, who died over it.

        Raises:
            BrokerError: Not everybody was told; call it again.
        """
        for body in self._listed(REVIVALS):
            job = unpacked(body)
            node = self.node(job.id)
            if node is not None and node.state == "cancelled":
                continue  # it is revived again with its parent
            if node is None or node.state in ("stopped", "ended"):
                self._ended([Ended(job, "cancelled", reason=STOPPED)])
            self._one(Delete(revival_key(job.id)))

    def _job(self, child: str) -> Job[Any] | None:
        body = self._one(Get(body_key(child)))
        if body is None:
            return None
        return decode(Envelope(child, "default", body), max_bytes=UNBOUNDED)

    def _keep_body(self, child: str, ttl: float | None) -> None:
        """Have the body of a job go after *ttl*, with its node; None is never."""
        body = self._one(Get(body_key(child)))
        if body is not None:
            self._one(Swap(body_key(child), body, body, ttl=ttl))

    def _mark(self, child: str, state: Any) -> bool:
        while True:
            value = self._one(Get(key_of(child)))
            if value is None or read(value).state in (state, "stopped", "ended"):
                return False
            if self._swap(child, value, replace(read(value), state=state)):
                return True

    # --- stopping: for whoever gives the order ----------------------------------------------

    def knows(self, job_id: str) -> bool:
        """Say whether that job waits, or did and has not ended since."""
        node = self.node(job_id)
        return node is not None and node.state not in ("joining", "ended")

    def stop(self, job_id: str) -> Stopped:
        """End a job that waits, for good; say whether it did, or where it is instead.

        Raises:
            BrokerError: Not everybody was told; call it again.
        """
        while True:
            value: bytes | None = self._one(Get(key_of(job_id)))
            node = None if value is None else read(value)
            if value is None or node is None or node.state in ("joining", "sent", "ended"):
                return "elsewhere"
            if node.state == "waiting" and node.verdict == "run":
                return "leaving"
            stopped = replace(node, state="stopped")
            if node == stopped or self._swap(job_id, value, stopped):
                break
        job = self._job(job_id)
        if job is not None:  # else somebody else has stopped it, too, and was faster
            self._ended([Ended(job, "cancelled", reason=STOPPED)])
            self._parting.leave(job, stopped)
        return "stopped"

    # --- inside ----------------------------------------------------------------------------

    def _count(self, name: str, job: Job[Any]) -> None:
        if self._metrics is not None:
            self._metrics.increment(name, 1, {"queue": job.queue, "function": job.fn})

    def _swap(self, job_id: str, value: bytes, node: Node) -> bool:
        ttl = {"joining": JOINING, "cancelled": KEPT}.get(node.state)
        return bool(self._one(Swap(key_of(job_id), value, write(node), ttl=ttl)))

    def _one(self, operation: Operation) -> Any:
        [result] = self._store.apply([operation])
        return result


_WORDS: dict[Edge, str] = {"failed": "dead", "gone": "cancelled or deleted"}
