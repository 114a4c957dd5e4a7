"""The name of every key.

A *domain* is what one script can see and change in one step. On one server (also behind
Sentinel) that is the whole namespace. On a Cluster it is one queue, and a home for what
concerns all of them; the part in braces keeps a domain's keys in one slot.

::

    goose:{ns}:sessions      zset  session -> deadline      the living
    goose:{ns}:lost          zset  session -> declared dead its loans wait for an heir
    goose:{ns}:gone          zset  session -> since         remembered for a week
    goose:{ns}:holders       set   sessions with loans
    goose:{ns}:held:SESSION  hash  queue/id -> receipt      its loans
    goose:{ns}:receipt       text  the latest receipt
    goose:{ns}:queues        set   names of queues
    goose:{ns:QUEUE}:jobs      hash  id -> job               in whatever state
    goose:{ns:QUEUE}:ready     zset  id -> ready since
    goose:{ns:QUEUE}:ready:turns   zset  id -> turn          of the ready, while groups take turns
    goose:{ns:QUEUE}:ready:groups  zset  group -> last turn  of the groups that do
    goose:{ns:QUEUE}:ready:grouped text  1                   jobs with a group are due later
    goose:{ns:QUEUE}:first     zset  id -> turn              of the ready, those to go first
    goose:{ns:QUEUE}:scheduled zset  id -> due
    goose:{ns:QUEUE}:dead      zset  id -> dead since
    goose:{ns:QUEUE}:sleepers  zset  sleeper -> until
    goose:{ns:QUEUE}:wake      list  a token for each sleeper that should look
    goose:{ns:QUEUE}:wake:SLEEPER list  a token that ends the sleep of one
    goose:{ns:QUEUE}:stamp     text  written by an enqueue that waits for replicas

A job that is in none of its queue's zsets is running. Instants are microseconds. On a
Cluster the first group exists also as ``goose:{ns:QUEUE}:…``, for that queue's loans, and
``goose:{ns}:uses:SESSION`` says in which queues a session took part.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Domain:
    """Keys of what one script can see: its sessions and loans."""

    prefix: str
    sessions: str = field(init=False)
    lost: str = field(init=False)
    gone: str = field(init=False)
    holders: str = field(init=False)
    receipt: str = field(init=False)
    queues: str = field(init=False)

    def __post_init__(self) -> None:
        for name in ("sessions", "lost", "gone", "holders", "receipt", "queues"):
            object.__setattr__(self, name, f"{self.prefix}:{name}")

    def held(self, session: str) -> str:
        """Return the key of a session's loans."""
        return f"{self.prefix}:held:{session}"

    def uses(self, session: str) -> str:
        """Return the key of the queues in which a session took part."""
        return f"{self.prefix}:uses:{session}"


@dataclass(frozen=True, slots=True)
class Line:
    """Keys of one queue."""

    queue: str
    domain: Domain
    prefix: str
    jobs: str = field(init=False)
    ready: str = field(init=False)
    first: str = field(init=False)
    scheduled: str = field(init=False)
    dead: str = field(init=False)
    sleepers: str = field(init=False)
    wake: str = field(init=False)
    stamp: str = field(init=False)
    enqueue: tuple[str, ...] = field(init=False)
    """Keys of enqueue.lua, so that the hot path need not gather them."""
    dequeue: tuple[str, ...] = field(init=False)
    """The same of dequeue.lua, for each queue."""

    def __post_init__(self) -> None:
        names = ("jobs", "ready", "first", "scheduled", "dead", "sleepers", "wake", "stamp")
        for name in names:
            object.__setattr__(self, name, f"{self.prefix}:{name}")
        enqueue = (self.jobs, self.ready, self.sleepers, self.wake, self.domain.queues, self.stamp)
        dequeue = (self.jobs, self.ready, self.sleepers, self.wake, self.scheduled, self.first)
        object.__setattr__(self, "enqueue", enqueue)
        object.__setattr__(self, "dequeue", dequeue)

    @property
    def turns(self) -> str:
        """The key of the turns of ready jobs, which is there while groups take turns."""
        return f"{self.ready}:turns"

    def own_wake(self, sleeper: str) -> str:
        """Return the key of the list that wakes one sleeper alone."""
        return f"{self.wake}:{sleeper}"


class Keys:
    """The keys of one namespace. Thread-safe."""

    def __init__(self, namespace: str, *, clustered: bool) -> None:
        self.home = Domain(f"goose:{{{namespace}}}")
        """Where all sessions and queues are known."""
        self.clustered = clustered
        self._namespace = namespace
        self._lines: dict[str, Line] = {}

    def line(self, queue: str) -> Line:
        """Return the keys of *queue*."""
        line = self._lines.get(queue)
        if line is None:
            prefix = f"goose:{{{self._namespace}:{queue}}}"
            domain = Domain(prefix) if self.clustered else self.home
            line = self._lines[queue] = Line(queue, domain, prefix)
        return line
