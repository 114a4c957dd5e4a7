"""Runs jobs in a test, without a worker: at once (`inline`), or when asked (`drain`, `run_one`).

What an enqueue does is changed only inside of a ``with``, and only for the code that runs in
its context: threads that were started elsewhere still reach the broker.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from goose import brokers, clients, sending
from goose.brokers.base import Broker, Delivery, Inspector, Session, Sessions, Share, State, Upkeep
from goose.brokers.memory import MemoryBroker
from goose.clients import Client
from goose.errors import BrokerUnavailable, Unsupported
from goose.jobs import Envelope, Job, decode, seal
from goose.middleware.base import Middleware
from goose.stores import OnDemand
from goose.stores.base import Store
from goose.testing.bench import Bench, Run
from goose.worker.outcomes import Outcome, Verb

LIMIT = 10_000
"""Runs after which a helper gives up: a job puts itself back for ever."""
_TTL = 86_400.0


@dataclass(slots=True)
class Inlined:
    """What ran inside of an `inline`."""

    runs: list[Run] = field(default_factory=list)
    """In the order in which they ended."""
    scheduled: list[Job[Any]] = field(default_factory=list)
    """Jobs enqueued for later; they do not run."""


class _InlineDoor:
    """Runs what would be stored."""

    def __init__(self, bench: Bench, seen: Inlined, *, retries: bool) -> None:
        self._bench = bench
        self._seen = seen
        self._retries = retries

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Run them one after the other."""
        for envelope in envelopes:
            if envelope.delay is not None or envelope.due_at is not None:
                self._seen.scheduled.append(decode(envelope))
            else:
                self._run(envelope)

    def _run(self, envelope: Envelope) -> None:
        for _ in range(LIMIT):
            run, outcome = self._bench.run(_loan(envelope))
            self._seen.runs.append(run)
            if run.ending == "retried" and self._retries and outcome.envelope is not None:
                envelope = outcome.envelope
                continue
            self._bench.tell(outcome)
            run.check()
            return
        raise RuntimeError(f"job {envelope.id} ran {LIMIT:,} times and is not done")


def _loan(envelope: Envelope) -> Delivery:
    return Delivery(envelope, None, Session("goose.testing"))


@contextmanager
def inline(
    *,
    allow: Iterable[str] | None = None,
    middleware: Sequence[str | Middleware] | None = None,
    resources: Mapping[type, Any] | None = None,
    retries: bool = False,
) -> Iterator[Inlined]:
    """Let each enqueue run its job at once, in the caller, whatever the client and broker.

    Arguments are encoded and decoded, middleware is entered and the job's policy is asked,
    as in a worker. Nothing is stored. A job scheduled for later does not run.

    Args:
        allow: Modules whose functions may run; None for all that are imported already.
        middleware: Around each run; None for the configured ones.
        resources: What functions find in ``goose.current().resources``, by type.
        retries: Run a job that failed again, at once, as often as its policy says.

    Raises:
        JobFailed: From the enqueue: the job ended in an error, which is the cause.
    """
    seen = Inlined()
    # What jobs return is remembered for those after them, and nowhere else.
    own = MemoryBroker()
    features = (own, OnDemand(own).open)
    bench = Bench(allow, middleware=middleware, resources=resources, features=features)
    door = _InlineDoor(bench, seen, retries=retries)
    with _instead(lambda _: door):
        yield seen


@contextmanager
def _instead(change: Callable[[sending.Door], sending.Door]) -> Iterator[None]:
    token = sending.instead.set(change)
    try:
        yield
    finally:
        sending.instead.reset(token)


class _Failing:
    """A door that says it cannot be reached, after or without handing on."""

    def __init__(self, door: sending.Door, *, stores: bool) -> None:
        self._door = door
        self._stores = stores

    def send(self, envelopes: Sequence[Envelope]) -> None:
        """Raise, as if there were no answer."""
        if self._stores:
            self._door.send(envelopes)
        raise BrokerUnavailable("no answer (goose.testing)")


@contextmanager
def broker_down() -> Iterator[None]:
    """Let each enqueue fail with `EnqueueError`, as if the broker could not be reached."""
    with _instead(lambda door: _Failing(door, stores=False)):
        yield


@contextmanager
def reply_lost() -> Iterator[None]:
    """Let each enqueue store its jobs and fail all the same, as if the answer had been lost."""
    with _instead(lambda door: _Failing(door, stores=True)):
        yield


# --- from a broker -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drained:
    """What `drain` ran."""

    runs: list[Run]
    """In order."""

    @property
    def endings(self) -> Counter[str]:
        """How many runs ended how."""
        return Counter(run.ending for run in self.runs)

    @property
    def errors(self) -> list[BaseException]:
        """What functions raised, in order."""
        return [run.error for run in self.runs if run.error is not None]

    def check(self) -> Drained:
        """Return this if every run went well.

        Raises:
            JobFailed: One did not; its error is the cause.
        """
        for run in self.runs:
            run.check()
        return self


Where = Broker | Client | str | None


def drain(
    where: Where = None,
    *,
    allow: Iterable[str] | None = None,
    queues: Iterable[str] | None = None,
    scheduled: bool = False,
    middleware: Sequence[str | Middleware] | None = None,
    resources: Mapping[type, Any] | None = None,
) -> Drained:
    """Run every ready job in the caller's thread, also those that they enqueue.

    Args:
        where: Broker, URL or client; None for the configured broker.
        allow: Modules whose functions may run; None for all that are imported already.
        queues: Their names; None for all that hold a job.
        scheduled: Run what is due later as well, retries included, without waiting.
        middleware: Around each run; None for the configured ones.
        resources: What functions find in ``goose.current().resources``, by type.

    Returns:
        What ran. Nothing is raised for a job that failed: it is retried or dead, as in
        production; ``drain().check()`` raises.

    Raises:
        RuntimeError: It ran `LIMIT` jobs, and there are more.
        Unsupported: The broker cannot list its queues, and none is named.
    """
    broker = _broker(where)
    features = (broker, _store(where, broker))
    bench = Bench(allow, middleware=middleware, resources=resources, features=features)
    chosen = None if queues is None else list(queues)
    runs: list[Run] = []
    with _session(broker) as session:
        while len(runs) < LIMIT:
            run = _next(broker, bench, session, chosen or _queues(broker))
            if run is not None:
                runs.append(run)
                if run.ending == "deferred":
                    run.check()  # no other worker will come
            elif not (scheduled and _promote(broker, chosen)):
                return Drained(runs)
    raise RuntimeError(f"ran {LIMIT:,} jobs and there are more; does one enqueue itself?")


def run_one(
    queue: str = "default",
    where: Where = None,
    *,
    allow: Iterable[str] | None = None,
    middleware: Sequence[str | Middleware] | None = None,
    resources: Mapping[type, Any] | None = None,
) -> Run:
    """Run the first ready job of *queue* in the caller's thread, and settle it.

    Takes the arguments of `drain`.

    Raises:
        LookupError: No job is ready there.
        JobFailed: It ended in an error, which is the cause; it is retried or dead by then.
    """
    broker = _broker(where)
    features = (broker, _store(where, broker))
    bench = Bench(allow, middleware=middleware, resources=resources, features=features)
    with _session(broker) as session:
        run = _next(broker, bench, session, [queue])
    if run is None:
        raise LookupError(f"no job is ready in queue {queue!r}")
    return run.check()


def run_again(
    job: Job[Any] | Run,
    *,
    allow: Iterable[str] | None = None,
    middleware: Sequence[str | Middleware] | None = None,
    resources: Mapping[type, Any] | None = None,
) -> Run:
    """Run *job* once more, as a worker does after another one died in the middle of it.

    To prove that a function is idempotent: run it twice and look at what it left. The job
    need not be stored any more; no broker is asked.

    Raises:
        JobFailed: It ended in an error, which is the cause.
    """
    found = job.job if isinstance(job, Run) else job
    if found is None:
        raise LookupError("that run was not of a job")
    bench = Bench(allow, middleware=middleware, resources=resources)
    return bench.run(_loan(seal(found)))[0].check()


def _broker(where: Where) -> Broker:
    if where is None:
        return clients.default.broker
    return where.broker if isinstance(where, Client) else brokers.connect(where)


def _store(where: Where, broker: Broker) -> Callable[[], Store]:
    if where is None:
        where = clients.default
    client = where if isinstance(where, Client) else Client(broker)
    return lambda: client.store


@contextmanager
def _session(broker: Broker) -> Iterator[Session]:
    session = Session(f"goose.testing-{uuid.uuid4()}")
    if isinstance(broker, Sessions):
        broker.open(session, ttl=_TTL)
    yield session
    if isinstance(broker, Sessions):
        broker.end(session)


def _next(broker: Broker, bench: Bench, session: Session, queues: Sequence[str]) -> Run | None:
    if isinstance(broker, Upkeep):
        broker.promote_due(limit=1000)
    if not queues:
        return None
    taken = broker.dequeue(session, [Share(queue) for queue in queues], limit=1, wait=0)
    for delivery in taken:
        try:
            run, outcome = bench.run(delivery)
        except BaseException:
            broker.release([delivery])
            raise
        bench.settle(broker, _soon(outcome))
        return run
    return None


def _soon(outcome: Outcome) -> Outcome:
    """Return *outcome*; a job this test cannot run goes back as it was."""
    if outcome.ending.value == "deferred":
        return outcome._replace(verb=Verb.RELEASE, envelope=None)
    return outcome


def _queues(broker: Broker) -> list[str]:
    return [stats.queue for stats in _inspector(broker).queues()]


def _promote(broker: Broker, queues: Sequence[str] | None) -> bool:
    inspector = _inspector(broker)
    found: list[str] = []
    for queue in queues or _queues(broker):
        items = inspector.page(State.SCHEDULED, queue, limit=1000).items
        found += inspector.promote([stored.envelope.id for stored in items])
    return bool(found)


def _inspector(broker: Broker) -> Inspector:
    if not isinstance(broker, Inspector):
        raise Unsupported(
            f"{brokers.name_of(broker)} cannot list its jobs; name queues=, and leave out scheduled="
        )
    return broker
