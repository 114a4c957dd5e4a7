"""The supervisor of a dead process: settles what it held, by its notes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from goose.brokers.base import Session
from goose.testing.simulator.faults import Chance
from goose.testing.simulator.slots import Notes
from goose.testing.simulator.timeline import Actor, Place
from goose.testing.simulator.wire import Network, SimulatedClock, Wire
from goose.worker.aftermath import Aftermath, Cause, testimony
from goose.worker.errands import run_into

T = TypeVar("T")

EVERY = 0.25
"""Seconds between its steps."""


class Supervisor(Place):
    """Carries out the real `Aftermath`; may die, and may pause, like any process."""

    def __init__(
        self,
        name: str,
        network: Network,
        chance: Chance,
        random: random.Random,
        *,
        sessions: Sequence[Session],
        cause: Cause,
        notes: Notes,
    ) -> None:
        super().__init__(name)
        self._ledger = network.ledger
        self._timeline = network.timeline
        self._actor = Actor(self)
        # It does not beat: what it holds for longer than a ttl is anybody's.
        self._ledger.disturbed(self, until=math.inf)
        clock = SimulatedClock(network.timeline)
        self._aftermath = Aftermath(
            Wire(network, self, chance, self._die),
            sessions,
            testimony(cause, notes.running(), notes.last(), network.timeline.now),
            name=name,
            ttl=network.ttl,
            submit=_at_once,
            clock=clock,
            random=random,
        )
        self._timeline.at(self._timeline.now, self._actor, self._step)

    def _step(self) -> None:
        if self._aftermath.step(self._timeline.now):
            self._ledger.say(f"{self.name}: is done")
            self.alive = False
        else:
            self._timeline.at(self._timeline.now + EVERY, self._actor, self._step)

    def _die(self, what: str, busy: bool) -> None:
        self._ledger.hit(self, what, until=math.inf, busy=busy)
        self.alive = False


def _at_once(errand: Callable[[], T], /) -> Future[T]:
    future: Future[T] = Future()
    run_into(errand, future)
    return future
