"""The contract between Goose and whatever stores its jobs.

A broker moves `Envelope`s and never decodes them. It lends each to one *session* at a
time: `dequeue` makes a `Delivery`, a loan with a receipt that is never used twice, and
exactly one of `ack`, `release`, `requeue` and `bury` settles it. A settle whose receipt
is no longer good changes nothing and hands the delivery back to the caller, so that a
worker that was away too long (a zombie) cannot undo what others did since.

`Broker` is all that a broker author must write. What else a broker can do it says by
implementing further protocols here (`Sessions`, `Upkeep`, `Inspector`, `Grouped`, `Transactional` …)
and by its `capabilities`; the engine asks with ``isinstance`` and ``in``.

Errors: a broker that cannot be reached raises `BrokerUnavailable`, one that refuses
raises `BrokerError`; `dequeue` for a session it holds for dead raises `SessionLost`.
Every method may be called from several threads at once. Arguments are trusted: the
callers in Goose have checked them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from goose.brokers.values import (
    Capability,
    Delivery,
    Page,
    Promotion,
    QueueStats,
    Session,
    Share,
    State,
    Stored,
)
from goose.jobs import Envelope

Notify = Callable[[BaseException | None], None]
"""Told once what became of a call: None, or what it would have raised. Quick, and raises nothing."""


@runtime_checkable
class Broker(Protocol):
    """Stores envelopes and lends them to workers."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it promises beyond this protocol."""
        ...

    # The four core verbs.

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        """Store *envelopes*, ready now; all of them are stored when it returns.

        With `Capability.DEDUPES` an envelope whose id is stored already is left out.

        Raises:
            BrokerUnavailable: What was stored is unknown.
            BrokerError: Refused; nothing was stored.
        """
        ...

    def schedule(self, envelopes: Sequence[Envelope]) -> None:
        """Store *envelopes*, each due after its `delay` or at its `due_at`; else as `enqueue`.

        One that is due already becomes ready at once. Never lent early.
        """
        ...

    def dequeue(
        self, session: Session, queues: Sequence[Share], *, limit: int, wait: float
    ) -> Sequence[Delivery]:
        """Lend up to *limit* ready jobs of *queues* to *session*.

        Within a queue the job that became ready first comes first, as nearly as the
        broker can tell. Whether *session* lives is checked in the same atomic step, where
        the broker implements `Sessions`.

        Args:
            session: An open session.
            queues: At least one, most urgent first.
            limit: Jobs, at least 1.
            wait: Seconds to block while nothing is ready; 0 returns at once. `wake` ends it.

        Returns:
            The loans; empty after *wait* seconds or a `wake`.

        Raises:
            SessionLost: The broker holds *session* for dead (or never saw it).
        """
        ...

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Forget these jobs: they are done. Returns those that were no longer the caller's."""
        ...

    # The other three ways to settle.

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give back jobs that were not run: ready again, near the front. Returns as `ack`."""
        ...

    def requeue(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """Replace each job by its next state, due as its envelope says. Returns as `ack`.

        The envelope has the same id; its queue may be another. It is stored before, or in
        the same step as, the loan ends; ready ones go to the back of their queue.
        """
        ...

    def bury(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """Move each job to the dead jobs of its envelope's queue, with that envelope's body. Returns as `ack`."""
        ...

    # Life.

    def wake(self) -> None:
        """End a `dequeue` that blocks in another thread; with none blocked, the next one returns at once."""
        ...

    def close(self) -> None:
        """Let go of connections and files. May be called twice; deliveries stay lent."""
        ...


@runtime_checkable
class Sessions(Protocol):
    """Knows which sessions live, and takes over the loans of those that do not.

    Not needed where the server itself notices a dead client.
    """

    def open(self, session: Session, *, ttl: float) -> None:
        """Begin *session*: its first heartbeat. It is dead once silent for *ttl* seconds.

        Raises:
            BrokerError: A session of this id and epoch exists or existed.
        """
        ...

    def heartbeat(self, session: Session, *, ttl: float) -> None:
        """Prove that *session* lives, for another *ttl* seconds by the broker's clock.

        Raises:
            SessionLost: The broker does not know it, or holds it for dead already. It stays dead.
        """
        ...

    def end(self, session: Session) -> bool:
        """End *session* if it holds no loans, in one step; say whether it is gone."""
        ...

    def recover(
        self,
        session: Session,
        *,
        limit: int,
        proven: bool = False,
        dead: Session | None = None,
    ) -> Sequence[Delivery]:
        """Transfer up to *limit* orphans, of any queue, to *session*, with fresh receipts.

        A session silent past its deadline is first marked dead, in the same step: from
        then on it can take nothing, and its old receipts are void. A caller that is past its own
        deadline marks nobody: it may have been asked before an outage, and heard only after it. A dead session without
        loans is forgotten. Safe with any number of concurrent callers.

        Args:
            session: The caller's own, living one.
            limit: Jobs, at least 1; bounds the work of the call.
            proven: Only sessions whose death is certain without waiting (their process is
                gone from this very host); for callers too young to judge by silence.
            dead: Only this one, on the caller's word, however fresh its last heartbeat.

        Returns:
            Deliveries held by *session*, `Delivery.orphan_of` naming who held them.

        Raises:
            SessionLost: The caller's own session is dead.
        """
        ...

    def held(self, session: Session) -> Sequence[Delivery]:
        """Return every loan of *session*, with its receipt; changes nothing.

        For a worker that did not hear the reply to a `dequeue` or `recover`: only the broker
        knows what it lent then, and what the worker never saw it gives back.

        Raises:
            SessionLost: The broker holds *session* for dead (or never saw it).
        """
        ...

    def audit(self, session: Session, *, limit: int) -> Sequence[Delivery]:
        """Transfer up to *limit* loans whose session does not exist at all, as `recover`.

        There should be none; what comes back is counted as a defect and then settled.
        """
        ...


@runtime_checkable
class Witnessed(Protocol):
    """Carries the word of those who saw a process die to whoever is lent its jobs next.

    For brokers whose server lends the jobs of a dead client again by itself, so that nobody
    can take them over to judge them.
    """

    def testify(self, verdicts: Mapping[str, str]) -> None:
        """Have the next delivery of each of these jobs carry its verdict.

        Best effort: a delivery that is lent before the word is heard carries none.

        Args:
            verdicts: By job id, of which the first 200 bytes are enough. Nothing asks to be ready,
                so that a word to come goes out at once; supervisors do so before they start a child.

        Raises:
            BrokerUnavailable: The word is not out yet.
        """
        ...


@runtime_checkable
class Upkeep(Protocol):
    """Has work that must be done now and then by somebody; any number of callers may."""

    def promote_due(self, *, limit: int) -> Promotion:
        """Make up to *limit* due jobs ready, each exactly once, and trim the dead ones."""
        ...


@runtime_checkable
class Inspector(Protocol):
    """Looks at stored jobs and changes them from outside; every call is bounded.

    Each change is a compare-and-set on the job's state: what is in another state by then
    is left alone and not counted.
    """

    def queues(self) -> Sequence[QueueStats]:
        """Return every queue that holds a job, by name."""
        ...

    def count(self, state: State, queue: str | None = None) -> int:
        """Return how many jobs are in *state*, in *queue* or in all."""
        ...

    def page(
        self, state: State, queue: str | None = None, *, limit: int = 100, after: str | None = None
    ) -> Page:
        """Return up to *limit* jobs in *state*: next due, first ready or oldest dead first."""
        ...

    def find(self, id: str) -> Stored | None:  # noqa: A002 - the field's own name
        """Return the stored job of that id."""
        ...

    def delete(self, ids: Sequence[str], *, state: State) -> Sequence[str]:
        """Remove those of *ids* that are in *state* (not `RUNNING`); return which were removed."""
        ...

    def promote(self, ids: Sequence[str]) -> Sequence[str]:
        """Make scheduled jobs ready now; return which were."""
        ...

    def prioritise(self, ids: Sequence[str]) -> Sequence[str]:
        """Move ready jobs to the front of their queue, in the order given; return which were."""
        ...

    def purge(self, state: State, queue: str | None = None, *, older_than: float = 0.0) -> int:
        """Remove all jobs in *state* (not `RUNNING`) that are so for *older_than* seconds; return how many."""
        ...

    def replay(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Make the dead jobs of these ids ready, with the new bodies and queues; return which were."""
        ...


@runtime_checkable
class Grouped(Protocol):
    """Shares each queue among the groups of its jobs, so that none has to wait for another's backlog.

    While a job with a group is ready in a queue, the groups of what is ready there take turns, a
    job each: whoever has few jobs waits for one job of each other group, however many
    those have. Jobs without a group are one group more then; those that were ready before the
    first job with a group are lent before. `Broker.release` gives a job back its turn. Without
    a job with a group nothing of this costs anything, and the order is that of `Broker.dequeue`.

    Jobs with a group are refused by clients whose broker does not have this.
    """

    def next_groups(self, queue: str, *, limit: int = 100) -> Sequence[str]:
        """Return groups with ready jobs in *queue*, each once, about in the order of their next turns.

        Looks at no more than a few times *limit* jobs, so it need not see every group.
        """
        ...


@runtime_checkable
class Posting(Protocol):
    """Stores while nobody waits, so that the callers of event loops need no thread for it."""

    def post(self, calls: Sequence[tuple[Sequence[Envelope], Notify]]) -> bool:
        """Do as `Broker.enqueue` would for each of *calls*, but return at once.

        Args:
            calls: What each stores, and what is told, on any thread, once that is decided: in good time.

        Returns:
            False if it cannot be done without waiting. Then nothing of it is stored and nobody told.
        """
        ...


@runtime_checkable
class Transactional(Protocol):
    """Stores jobs inside a transaction of the caller's own."""

    def enqueue_within(self, connection: Any, envelopes: Sequence[Envelope]) -> None:
        """Store *envelopes* through *connection*, so that they exist if and only if it commits.

        Envelopes may have a delay or instant. The caller commits.

        Raises:
            ConfigError: *connection* is of another database than this broker's.
            BrokerError: The broker's tables are missing there.
        """
        ...


@runtime_checkable
class AsyncTransactional(Protocol):
    """As `Transactional`, inside a transaction that asyncio code has open."""

    async def aenqueue_within(self, connection: Any, envelopes: Sequence[Envelope]) -> None:
        """Store *envelopes* through *connection*, as `Transactional.enqueue_within`."""
        ...


@runtime_checkable
class Migrating(Protocol):
    """Has tables that must be made, and brought up to date, before the first use or by it."""

    def migrate(self) -> None:
        """Make the tables, or bring them up to date; harmless if they are so. Safe while others work.

        Raises:
            BrokerError: The database refused.
        """
        ...

    def migration(self) -> str:
        """Return the statements that make the tables from nothing, for a person to look at or to run."""
        ...


def order(queues: Sequence[Share], random: random.Random) -> list[str]:
    """Return the names of *queues* in the order to look at them this time.

    Strict shares keep their order. Weighted ones come in an order drawn by chance, each
    place in proportion to the weights left, so that over many calls every queue is first
    as often as its weight says and none starves.
    """
    if not any(share.weight for share in queues):
        return [share.queue for share in queues]
    # The smallest of exponential variates with rates w1..wn is the i-th with chance wi/sum,
    # and the order of all is that of repeated draws without replacement.
    # Source: Efraimidis and Spirakis, Weighted random sampling, 2006.
    ranked = sorted(queues, key=lambda share: random.expovariate(share.weight))
    return [share.queue for share in ranked]


__all__ = [
    "AsyncTransactional",
    "Broker",
    "Capability",
    "Delivery",
    "Envelope",
    "Grouped",
    "Inspector",
    "Migrating",
    "Notify",
    "Page",
    "Posting",
    "Promotion",
    "QueueStats",
    "Session",
    "Sessions",
    "Share",
    "State",
    "Stored",
    "Transactional",
    "Upkeep",
    "Witnessed",
    "order",
]
