"""What stands between one process and the broker, and where calls go wrong.

Each call tells the ledger what it has changed at the instant of the change; only after that
may the caller be ended, stopped or lied to. Calls fail during an outage of the broker, and
while their process is cut off from it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from goose.brokers.base import Delivery, Promotion, Session, Share
from goose.brokers.memory import MemoryBroker
from goose.errors import BrokerUnavailable, SessionLost
from goose.jobs import Envelope
from goose.testing.simulator.faults import Chance, Fault
from goose.testing.simulator.ledger import Ledger
from goose.testing.simulator.timeline import Actor, Died, Place, Timeline

T = TypeVar("T")


EPOCH = 1_750_000_000.0
"""What the broker's clock shows when a world begins."""


class SimulatedClock:
    """A process's clocks: the wall may be wrong, and a run may be shown its own start."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.jumped = 0.0
        self.shown: float | None = None

    def mono(self) -> float:
        """Virtual seconds since the world began."""
        return self._timeline.now if self.shown is None else self.shown

    def wall(self) -> float:
        """Epoch seconds as this process believes them."""
        return EPOCH + self._timeline.now + self.jumped


class Network:
    """What all wires of a world share."""

    def __init__(
        self,
        broker: MemoryBroker,
        timeline: Timeline,
        ledger: Ledger,
        random: random.Random,
        ttl: float,
    ) -> None:
        self.broker = broker
        self.timeline = timeline
        self.ledger = ledger
        self.random = random
        self.ttl = ttl
        self.outside = Actor(Place("world"))
        """Does what comes from outside of all processes."""
        self.down_until = 0.0
        """While the broker is out of everybody's reach."""


class Wire:
    """One place's connection: a `Broker` with `Sessions` and `Upkeep`.

    Args:
        place: Who calls.
        chance: What goes wrong.
        die: Ends the place; told of what, and whether the call was about jobs.
        about_jobs: Whether every call is.
    """

    def __init__(
        self,
        network: Network,
        place: Place,
        chance: Chance,
        die: Callable[[str, bool], None],
        *,
        about_jobs: bool = False,
    ) -> None:
        self.cut_until = 0.0
        """While only this place is cut off."""
        self.opened: list[Session] = []
        """All sessions it has begun, or tried to."""
        self.capabilities = network.broker.capabilities
        self._network = network
        self._broker = network.broker
        self._ledger = network.ledger
        self._timeline = network.timeline
        self._place = place
        self._chance = chance
        self._die = die
        self._about_jobs = about_jobs

    # --- the nine verbs, and more ---------------------------------------------------------

    def enqueue(self, envelopes: Sequence[Envelope]) -> None:
        """Store, as the contract says."""
        self._call(
            "enqueue",
            lambda: self._broker.enqueue(envelopes),
            lambda _: self._ledger.stored(envelopes),
        )

    def schedule(self, envelopes: Sequence[Envelope]) -> None:
        """Store for later, as the contract says."""
        self._call(
            "schedule",
            lambda: self._broker.schedule(envelopes),
            lambda _: self._ledger.stored(envelopes),
        )

    def dequeue(
        self, session: Session, queues: Sequence[Share], *, limit: int, wait: float
    ) -> Sequence[Delivery]:
        """Lend, as the contract says, never blocking."""
        asked_at = self._timeline.now

        def record(lent: Sequence[Delivery]) -> None:
            # Paused on the way, it lends to a session that may be given up the next moment.
            late = self._timeline.now - asked_at > self._network.ttl / 2
            self._ledger.lent(lent, self._place, late=late)

        return self._call(
            "dequeue",
            lambda: self._broker.dequeue(session, queues, limit=limit, wait=0),
            record,
            session=session,
        )

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Settle, as the contract says."""
        bare = [(delivery, None) for delivery in deliveries]
        return self._settle("ack", bare, lambda: self._broker.ack(deliveries))

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Settle, as the contract says."""
        bare = [(delivery, None) for delivery in deliveries]
        return self._settle("release", bare, lambda: self._broker.release(deliveries))

    def requeue(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """Settle, as the contract says."""
        return self._settle("requeue", deliveries, lambda: self._broker.requeue(deliveries))

    def bury(self, deliveries: Sequence[tuple[Delivery, Envelope]]) -> Sequence[Delivery]:
        """Settle, as the contract says."""
        return self._settle("bury", deliveries, lambda: self._broker.bury(deliveries))

    def _settle(
        self,
        verb: str,
        outcomes: Sequence[tuple[Delivery, Envelope | None]],
        settle: Callable[[], Sequence[Delivery]],
    ) -> Sequence[Delivery]:
        return self._call(verb, settle, lambda lost: self._ledger.settled(verb, outcomes, lost))

    def wake(self) -> None:
        """Do nothing: no call blocks here."""

    def close(self) -> None:
        """Do nothing: the broker is everybody's."""

    def open(self, session: Session, *, ttl: float) -> None:
        """Open, as the contract says."""
        self.opened.append(session)
        self._ledger.belongs(session, self._place)
        self._call(
            "open",
            lambda: self._broker.open(session, ttl=ttl),
            lambda _: self._ledger.beaten(session),
            session=session,
        )

    def heartbeat(self, session: Session, *, ttl: float) -> None:
        """Beat, as the contract says."""
        self._call(
            "heartbeat",
            lambda: self._broker.heartbeat(session, ttl=ttl),
            lambda _: self._ledger.beaten(session),
            session=session,
        )

    def end(self, session: Session) -> bool:
        """End, as the contract says."""
        return self._call("end", lambda: self._broker.end(session))

    def recover(
        self,
        session: Session,
        *,
        limit: int,
        proven: bool = False,
        dead: Session | None = None,
    ) -> Sequence[Delivery]:
        """Recover, as the contract says."""
        asked_at = self._timeline.now

        def effect() -> Sequence[Delivery]:
            if (
                dead is None
                and not proven
                and self._timeline.now - asked_at > self._network.ttl / 2
            ):
                self._ledger.judged_late()
            return self._broker.recover(session, limit=limit, proven=proven, dead=dead)

        return self._call(
            "recover",
            effect,
            lambda orphans: self._ledger.transferred(orphans, self._place, audit=False),
            session=session,
        )

    def held(self, session: Session) -> Sequence[Delivery]:
        """Look, as the contract says."""
        return self._call("held", lambda: self._broker.held(session), session=session)

    def audit(self, session: Session, *, limit: int) -> Sequence[Delivery]:
        """Audit, as the contract says."""
        return self._call(
            "audit",
            lambda: self._broker.audit(session, limit=limit),
            lambda strays: self._ledger.transferred(strays, self._place, audit=True),
            session=session,
        )

    def promote_due(self, *, limit: int) -> Promotion:
        """Promote, as the contract says."""
        return self._call("promote", lambda: self._broker.promote_due(limit=limit))

    # --- a call ---------------------------------------------------------------------------

    def _call(
        self,
        verb: str,
        effect: Callable[[], T],
        record: Callable[[T], None] = lambda result: None,
        session: Session | None = None,
    ) -> T:
        busy = self._about_jobs or self._ledger.held(self._place) > 0
        fault = self._chance(verb, busy=busy)
        if fault is not None and fault[1]:
            self._suffer(fault[0], f"before {verb}", busy=busy)
        now = self._timeline.now
        if now < self._network.down_until or now < self.cut_until:
            raise BrokerUnavailable(f"{verb}: nobody answers")
        try:
            result = effect()
        except SessionLost:
            if session is not None:
                self._ledger.given_up(self._place, session)
            self._ledger.say(f"{self._place.name}: {verb}: the session is lost")
            raise
        record(result)
        if fault is not None and not fault[1]:
            self._suffer(fault[0], f"after {verb}", busy=busy)
        return result

    def _suffer(self, fault: Fault, when: str, *, busy: bool) -> None:
        ledger, place, timeline = self._ledger, self._place, self._timeline
        what = f"{fault.value} {when}"
        actor = timeline.current
        assert actor is not None
        if fault is Fault.CRASH and ledger.may_hit(place):
            self._die(what, busy)
            raise Died
        if fault is Fault.PAUSE and timeline.may_wait and ledger.may_hit(place):
            seconds = self._network.random.uniform(0.8, 2.5) * self._network.ttl
            ledger.hit(place, what, until=timeline.now + seconds, busy=busy)
            self._wait(seconds, actor, pause=True)
            ledger.say(f"{place.name}: goes on")
        if fault is Fault.SLOW and timeline.may_wait:
            ledger.note(what, busy=busy, who=place.name)
            self._wait(self._network.random.uniform(0.0, self._network.ttl / 6), actor, pause=False)
        if fault is Fault.ERROR:
            ledger.note(what, busy=busy, who=place.name)
            raise BrokerUnavailable(f"{what} (injected)")

    def _wait(self, seconds: float, actor: Actor, *, pause: bool) -> None:
        place, timeline = self._place, self._timeline
        end = timeline.now + seconds
        self._ledger.waits.append((place, end))
        try:
            timeline.wait(seconds, actor, pause=pause)
        finally:
            self._ledger.waits.remove((place, end))
        if timeline.now > end:
            self._ledger.overran(place)
