"""What every test of the conformance suite stands on: hooks for authors, and help with time.

A test gets a broker that is fresh and empty. It never trusts in luck: what must happen is
waited for with a deadline, and what must not happen early is measured by a clock. The
attributes of `Hooks` are the suite's only numbers.
"""

# mypy: disable-error-code="type-abstract"

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import pytest

from goose.brokers.base import (
    Broker,
    Capability,
    Delivery,
    Grouped,
    Inspector,
    Posting,
    Session,
    Sessions,
    Share,
    Transactional,
    Upkeep,
)
from goose.brokers.completion import Completing
from goose.jobs import Envelope

T = TypeVar("T")
Part = TypeVar("Part")
LIVES = 60.0
"""Time to live of sessions that must not die during a test, in seconds."""
QUEUE = "mail"


def job(
    id: str,  # noqa: A002 - the envelope's own name
    queue: str = QUEUE,
    body: bytes | None = None,
    *,
    delay: float | None = None,
    due_at: float | None = None,
    group: str | None = None,
) -> Envelope:
    """Return an envelope; its body tells its id unless *body* is given."""
    return Envelope(
        id, queue, f"body of {id}".encode() if body is None else body, delay, due_at, group
    )


def jobs(count: int, queue: str = QUEUE, prefix: str = "job") -> list[Envelope]:
    """Return *count* envelopes with ids that sort in their order."""
    return [job(f"{prefix}-{number:04}", queue) for number in range(count)]


def ids(items: Sequence[Delivery] | Sequence[Envelope]) -> list[str]:
    """Return the jobs' ids."""
    return [item.envelope.id if isinstance(item, Delivery) else item.id for item in items]


def needs(broker: Broker, part: type[Part]) -> Part:
    """Return *broker* as *part*, or skip the test: this broker leaves that part out."""
    if not isinstance(broker, part):
        pytest.skip(f"{type(broker).__name__} does not implement {part.__name__}")
    return broker


def needs_capability(broker: Broker, capability: Capability) -> None:
    """Skip the test if *broker* does not declare *capability*."""
    if capability not in broker.capabilities:
        pytest.skip(f"{type(broker).__name__} does not declare {capability}")


class Background(Generic[T]):
    """A call that runs in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: list[T] = []
        self._error: BaseException | None = None
        self.ended_mono = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again in `result`
            self._error = error
        self.ended_mono = time.monotonic()

    def result(self, within: float, promise: str) -> T:
        """Return what the call returned, which must be *within* seconds from now."""
        self._thread.join(within)
        assert not self._thread.is_alive(), f"after {within} s still waiting: {promise}"
        if self._error is not None:
            raise self._error
        return self._result[0]


class Hooks:
    """What a broker's author gives the suite, and may adjust.

    Only `make_broker` must be written. The other hooks widen what is tested, or speed it up.
    """

    ttl: float = 0.3
    """Seconds after which a session that a test lets die is dead."""
    delay: float = 0.3
    """Seconds for which tests schedule a job."""
    lull: float = 0.05
    """Seconds to look for a job that should not come, and for a thread to begin to wait."""
    prompt: float = 2.0
    """Seconds within which a blocked dequeue must end once there is a reason."""
    patience: float = 20.0
    """Seconds after which something that should have happened counts as never happening."""

    tells_ages: bool = True
    """Whether the inspector knows for how long a queue's oldest ready job has been ready."""

    def make_broker(self) -> Broker:
        """Return a broker that holds nothing; called once for each test."""
        raise NotImplementedError(f"{type(self).__name__} must define make_broker")

    def reopen(self, broker: Broker) -> Broker | None:
        """Return a second broker on the same jobs as *broker*; None if there is no such thing."""
        return None

    def other_namespace(self, broker: Broker) -> Broker | None:
        """Return a broker on the same store as *broker* in another namespace; None without any."""
        return None

    def make_keeping(self, *, dead_max_age: float, dead_max_count: int) -> Broker | None:
        """Return an empty broker with these limits of dead jobs; None if it has none."""
        return None

    def connection(self, broker: Broker) -> Any:
        """Return a database connection for `Transactional`, with commit, rollback and close."""
        return None

    def advance(self, broker: Broker, seconds: float) -> None:
        """Let *seconds* pass for *broker*; waits for them unless it has a clock to turn."""
        time.sleep(seconds)

    def rest(self, broker: Broker) -> None:
        """Let a broker whose server pushes jobs to it give back those that nobody asked for."""

    def clock(self) -> float:
        """Return epoch seconds as *broker* tells them."""
        return time.time()

    @pytest.fixture
    def broker(self) -> Iterator[Broker]:
        """A fresh, empty broker, closed after the test."""
        broker = self.make_broker()
        yield broker
        broker.close()

    @staticmethod
    def left_out(broker: Broker) -> list[str]:
        """Return the names of the optional parts that *broker* does not offer."""
        parts = (Sessions, Upkeep, Inspector, Grouped, Posting, Transactional, Completing)
        missing = [part.__name__ for part in parts if not isinstance(broker, part)]
        return missing + [c.name for c in Capability if c not in broker.capabilities]


class Tools(Hooks):
    """Verbs the tests are written in."""

    def open(self, broker: Broker, name: str = "worker") -> Session:
        """Return a new session, opened where sessions are."""
        session = Session(f"{name}-{uuid.uuid4()}")
        if isinstance(broker, Sessions):
            broker.open(session, ttl=LIVES)
        return session

    def keep_up(self, broker: Broker) -> None:
        """Do what upkeep there is, as every worker does."""
        if isinstance(broker, Upkeep):
            broker.promote_due(limit=1000)

    def take(
        self,
        broker: Broker,
        session: Session,
        count: int,
        *queues: str,
        limit: int | None = None,
    ) -> list[Delivery]:
        """Lend exactly *count* jobs that are there, waiting for them if need be."""
        shares = [Share(queue) for queue in queues or (QUEUE,)]
        taken: list[Delivery] = []
        deadline = time.monotonic() + self.patience
        while len(taken) < count:
            self.keep_up(broker)
            left = count - len(taken)
            taken += broker.dequeue(
                session, shares, limit=min(left, limit or left), wait=min(0.2, self.patience)
            )
            assert time.monotonic() < deadline, (
                f"{len(taken)} of {count} jobs came from {queues or QUEUE} "
                f"within {self.patience} s: {ids(taken)}"
            )
        return taken

    def assert_nothing(self, broker: Broker, session: Session, *queues: str, why: str) -> None:
        """Fail if a job can be had."""
        self.keep_up(broker)
        shares = [Share(queue) for queue in queues or (QUEUE,)]
        taken = broker.dequeue(session, shares, limit=100, wait=self.lull)
        assert [] == ids(taken), f"lent although {why}"

    def settle(self, broker: Broker, verb: str, *deliveries: Delivery) -> Sequence[Delivery]:
        """Settle *deliveries* by the name of the verb, keeping their envelopes."""
        if verb in ("requeue", "bury"):
            pairs = [(delivery, delivery.envelope) for delivery in deliveries]
            return broker.requeue(pairs) if verb == "requeue" else broker.bury(pairs)
        return broker.ack(deliveries) if verb == "ack" else broker.release(deliveries)

    def fall_silent(self, broker: Broker, session: Session) -> None:
        """Let *session* be silent for longer than it may."""
        needs(broker, Sessions).heartbeat(session, ttl=self.ttl)
        self.advance(broker, self.ttl * 1.2)

    def recover(self, broker: Broker, heir: Session, count: int, **options: Any) -> list[Delivery]:
        """Transfer exactly *count* orphans to *heir*, trying again until they are there."""
        sessions = needs(broker, Sessions)
        found: list[Delivery] = []
        deadline = time.monotonic() + self.patience
        while True:
            found += sessions.recover(heir, limit=100, **options)
            if len(found) >= count:
                break
            assert time.monotonic() < deadline, (
                f"{len(found)} of {count} orphans were recovered "
                f"within {self.patience} s: {ids(found)}"
            )
            self.advance(broker, 0.01)
        assert count == len(found), f"more orphans than there are: {ids(found)}"
        return found

    def arrival(self, broker: Broker, session: Session, queue: str = QUEUE) -> Delivery:
        """Let time pass until a job of *queue* is lent."""
        deadline = time.monotonic() + self.patience
        while True:
            self.keep_up(broker)
            taken = broker.dequeue(session, [Share(queue)], limit=1, wait=0)
            if taken:
                return taken[0]
            assert time.monotonic() < deadline, f"a due job did not come in {self.patience} s"
            self.advance(broker, self.delay / 20)

    def together(self, *calls: Callable[[], T]) -> list[T]:
        """Run *calls* at the same time and return their results."""
        gate = threading.Barrier(len(calls))

        def at_once(call: Callable[[], T]) -> Callable[[], T]:
            def run() -> T:
                gate.wait(self.patience)
                return call()

            return run

        threads = [Background(at_once(call)) for call in calls]
        return [
            thread.result(self.patience, "a call made by several threads") for thread in threads
        ]

    def blocked(
        self, broker: Broker, session: Session, *queues: str
    ) -> Background[Sequence[Delivery]]:
        """Return a dequeue that waits in a thread of its own."""
        shares = [Share(queue) for queue in queues or (QUEUE,)]
        thread = Background(
            lambda: broker.dequeue(session, shares, limit=10, wait=self.patience * 2)
        )
        # Too short a lull fails nobody: then the dequeue finds its reason at once.
        time.sleep(self.lull)
        return thread
