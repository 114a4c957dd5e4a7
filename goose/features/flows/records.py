"""What the store knows of a job that depends on others: one value under ``flow:{ID}``.

Its body waits beside it under ``flow:{ID}:body``. How a parent ended is on *its* record (see
`goose.features.results`), under whose keys the ids of its dependents are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from goose._edges import OnFailure
from goose._json import dump, parse
from goose.errors import StoreError, Undecodable
from goose.features.results.records import key_of as result_key
from goose.stores.base import MAX_VALUE, part

State = Literal["joining", "waiting", "sent", "cancelled", "stopped", "ended"]
"""``joining``: its client is still telling its parents of it. ``sent``: to the broker.
``cancelled``: with a parent, and waits again with it. ``stopped``: on an order, which is final."""
Edge = Literal["pending", "ok", "failed", "gone"]
"""How a parent is: ``failed``: dead, and may be replayed; ``gone``: cancelled or deleted."""

REVIVALS = "revival:"
"""What the keys of jobs that somebody revives begin with, see `stops`."""

JOINING = 3600.0
"""Seconds after which a client that is still joining has died, and its job is forgotten."""


@dataclass(frozen=True, slots=True)
class Node:
    """A job of a flow, seen by those it depends on."""

    state: State
    fn: str
    """For those who look at the flow."""
    parents: Mapping[str, tuple[OnFailure, Edge]] = field(default_factory=dict)
    """By id: the policy, and how the parent is."""
    delay: float | None = None
    """Seconds from its being sent, if it was enqueued so."""
    due_at: float | None = None

    def told(self, parent: str, edge: Edge) -> Node:
        """Return it with what is known of *parent*."""
        policy, _ = self.parents[parent]
        return replace(self, parents={**self.parents, parent: (policy, edge)})

    @property
    def verdict(self) -> Literal["wait", "run", "cancel"]:
        """What its parents make of it."""
        edges = self.parents.values()
        if any(_cancels(policy, edge) for policy, edge in edges):
            return "cancel"
        open_edges = any(
            edge == "pending" or (edge == "failed" and policy == "wait") for policy, edge in edges
        )
        return "wait" if open_edges else "run"

    @property
    def culprit(self) -> tuple[str, Edge]:
        """The first parent because of which it is cancelled, and how that is."""
        return next(
            (parent, edge)
            for parent, (policy, edge) in self.parents.items()
            if _cancels(policy, edge)
        )


def _cancels(policy: OnFailure, edge: Edge) -> bool:
    return (edge == "failed" and policy == "cancel") or (edge == "gone" and policy != "run")


def key_of(job_id: str) -> str:
    """Return where the node of that job is."""
    return f"flow:{{{part(job_id)}}}"


def revival_key(job_id: str) -> str:
    """Return where it is noted that somebody revives that job."""
    return REVIVALS + part(job_id)


def body_key(job_id: str) -> str:
    """Return where its body waits."""
    return f"{key_of(job_id)}:body"


def marker_key(job_id: str) -> str:
    """Return the key that is there if anybody depends on that job."""
    return f"{result_key(job_id)}:depended"


def child_prefix(job_id: str) -> str:
    """Return what the keys of its dependents begin with."""
    return f"{result_key(job_id)}:child:"


def past_prefix(job_id: str) -> str:
    """Return what the keys of its dependents that have ended begin with, for those who look."""
    return f"{result_key(job_id)}:past:"


def child_key(parent: str, child: str) -> str:
    """Return the key that says that *child* depends on *parent*."""
    return child_prefix(parent) + part(child)


def write(node: Node) -> bytes:
    """Return *node* as it is stored."""
    fields: dict[str, Any] = {
        "v": 1,
        "state": node.state,
        "fn": node.fn,
        "parents": {parent: list(edge) for parent, edge in node.parents.items()},
    }
    if node.delay is not None:
        fields["delay"] = node.delay
    if node.due_at is not None:
        fields["due_at"] = node.due_at
    return dump(fields)


def read(body: bytes) -> Node:
    """Return the node in *body*.

    Raises:
        StoreError: It is none, or one of a later Goose.
    """
    try:
        fields = parse(body, max_bytes=MAX_VALUE)
        if fields["v"] != 1:
            raise StoreError("a node of a flow is of a later Goose")
        return Node(
            cast("State", fields["state"]),
            str(fields["fn"]),
            {
                str(parent): (cast("OnFailure", edge[0]), cast("Edge", edge[1]))
                for parent, edge in cast("dict[str, Any]", fields["parents"]).items()
            },
            cast("float | None", fields.get("delay")),
            cast("float | None", fields.get("due_at")),
        )
    except (Undecodable, KeyError, TypeError, IndexError, AttributeError) as error:
        raise StoreError(f"a node of a flow cannot be read: {error}") from error
