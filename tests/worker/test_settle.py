"""Outcomes are carried out, whatever the broker does meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from goose.brokers.base import Delivery, Session
from goose.errors import BrokerError, BrokerUnavailable
from goose.jobs import Envelope, Job, seal
from goose.worker.outcomes import Ending, Outcome, Verb
from goose.worker.settle import Settler

SESSION = Session("s")


class Recorder:
    """A broker that records settles and fails as it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.errors: list[BaseException | None] = []
        self.refuse: set[str] = set()
        self.refusal: BaseException = BrokerError("refused")
        self.lost: set[str] = set()

    def ack(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Record an ack."""
        return self._settle("ack", list(deliveries))

    def release(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Record a release."""
        return self._settle("release", list(deliveries))

    def requeue(self, pairs: Sequence[tuple[Delivery, Envelope]]) -> list[Delivery]:
        """Record a requeue."""
        return self._settle("requeue", [delivery for delivery, _ in pairs])

    def bury(self, pairs: Sequence[tuple[Delivery, Envelope]]) -> list[Delivery]:
        """Record a bury."""
        return self._settle("bury", [delivery for delivery, _ in pairs])

    def _settle(self, verb: str, deliveries: list[Delivery]) -> list[Delivery]:
        ids = [delivery.envelope.id for delivery in deliveries]
        error = self.errors.pop(0) if self.errors else None
        if error is None and self.refuse.intersection(ids):
            error = self.refusal
        if error is not None:
            raise error
        self.calls.append((verb, ids))
        return [delivery for delivery in deliveries if delivery.envelope.id in self.lost]


class Told:
    """Remembers what was reported."""

    def __init__(self) -> None:
        self.settled: list[str] = []
        self.lost: list[str] = []

    def __call__(self, batch: Sequence[Outcome], lost: Sequence[Delivery]) -> None:
        self.settled += [outcome.delivery.envelope.id for outcome in batch]
        self.lost += [delivery.envelope.id for delivery in lost]


@pytest.fixture
def broker() -> Recorder:
    """A broker to look at."""
    return Recorder()


@pytest.fixture
def told() -> Told:
    """What the settler reported."""
    return Told()


@pytest.fixture
def settler(broker: Recorder, told: Told) -> Settler:
    """A settler on that broker."""
    unchecked: Any = broker
    return Settler(unchecked, told)


def outcome(identity: str, verb: Verb = Verb.ACK) -> Outcome:
    """Return an outcome to settle."""
    envelope = Envelope(identity, "default", b"")
    return Outcome(Ending.DONE, verb, Delivery(envelope, object(), SESSION), envelope)


def test_what_ended_together_is_settled_together(settler: Settler, broker: Recorder) -> None:
    """One call per verb carries everything that is pending."""
    for number in range(3):
        settler.add(outcome(f"a{number}"))
    settler.add(outcome("r", Verb.REQUEUE))
    settler.step(0.0)

    assert [("ack", ["a0", "a1", "a2"]), ("requeue", ["r"])] == broker.calls
    assert 0 == settler.pending


def test_nothing_is_forgotten_in_an_outage(settler: Settler, broker: Recorder, told: Told) -> None:
    """What could not be settled is kept, and settled once the broker answers."""
    broker.errors = [BrokerUnavailable("down"), BrokerUnavailable("down")]
    settler.add(outcome("a"))
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            settler.step(0.0)
    assert [] == told.settled
    settler.add(outcome("b"))
    settler.step(0.0)

    assert ["a", "b"] == told.settled


def test_a_lost_settle_is_reported(settler: Settler, broker: Recorder, told: Told) -> None:
    """An answer that a delivery is no longer ours is passed on."""
    broker.lost = {"z"}
    settler.add(outcome("z"))
    settler.step(0.0)

    assert ["z"] == told.lost


def test_a_repeat_after_a_lost_reply_is_no_zombie(
    settler: Settler, broker: Recorder, told: Told
) -> None:
    """After an unsure first try, "no longer yours" may mean that the first try worked."""
    broker.errors = [BrokerUnavailable("the reply was lost")]
    broker.lost = {"a"}
    settler.add(outcome("a"))
    with pytest.raises(BrokerUnavailable):
        settler.step(0.0)
    settler.step(0.0)

    assert (["a"], []) == (told.settled, told.lost)


@pytest.mark.parametrize("refusal", [BrokerError("refused"), OverflowError("a defect")])
def test_one_refused_outcome_does_not_hold_up_the_others(
    settler: Settler, broker: Recorder, told: Told, refusal: Exception
) -> None:
    """After a refusal, or a defect of the broker, only the bad outcome stays pending."""
    broker.refuse, broker.refusal = {"bad"}, refusal
    for identity in ("a", "bad", "b"):
        settler.add(outcome(identity))
    for _ in range(4):
        with pytest.raises(type(refusal)):
            settler.step(0.0)

    assert {"a", "b"} == set(told.settled)
    assert 1 == settler.pending


def test_traits_are_told_of_some_at_a_time() -> None:
    """While many ended jobs have to be told of, those that were are settled, and so is what comes."""
    happened: list[str] = []
    broker: Any = type(
        "Broker", (), {"ack": lambda _, lent: happened.append(f"ack {len(lent)}") or ()}
    )()
    settler = Settler(broker, lambda batch, lost: None, lambda told: happened.append("tell") or {})
    job = Job("j", "app:f", traits={"toy": 1})

    def ended(job: Any) -> Outcome:
        return Outcome(
            Ending.DONE, Verb.ACK, Delivery(seal(Job("j", "app:f")), 1, SESSION), None, job
        )

    for _ in range(70):
        settler.add(ended(job))
    assert 0.0 == settler.step(0.0)
    settler.add(ended(None))
    assert [0.0, 1.0] == [settler.step(0.0), settler.step(0.0)]
    assert ["tell", "ack 32", "ack 1", "tell", "ack 32", "tell", "ack 6"] == happened
