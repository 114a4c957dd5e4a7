"""Client processes: they carry out tasks, may stand still, and may die in the middle of a call."""

from __future__ import annotations

import random
from collections.abc import Callable

from goose.clients import Client
from goose.errors import BrokerError, EnqueueError
from goose.features.uniques.claims import sleeping
from goose.retries import Retry
from goose.settings import Settings
from goose.testing.simulator.faults import Chance, Fault
from goose.testing.simulator.features.acts import Task
from goose.testing.simulator.features.ledger import FeatureLedger
from goose.testing.simulator.features.wire import KeeperWire, ShowingWire
from goose.testing.simulator.timeline import Actor, Died, Place
from goose.testing.simulator.wire import Network

RATE = 0.03
"""How often a call of a client meets a fault."""
PATIENCE = 300.0
"""Seconds after which a call that waits for a key does so for ever."""
_FAULTS = [Fault.ERROR] * 4 + [Fault.SLOW] * 3 + [Fault.PAUSE] + [Fault.CRASH] * 2


def by_chance(random: random.Random, calm: Callable[[], bool]) -> Chance:
    """Return what strikes calls of clients."""

    def draw(verb: str, *, busy: bool) -> tuple[Fault, bool] | None:
        if random.random() >= RATE or calm():
            return None
        return random.choice(_FAULTS), random.random() < 0.4

    return draw


class Caller(Place):
    """One client process and what it still has to do.

    Args:
        gone: Called with it when it has died.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        ledger: FeatureLedger,
        chance: Chance,
        retry: Retry,
        random: random.Random,
        gone: Callable[[Caller], None],
    ) -> None:
        super().__init__(name)
        self.todo: list[Task] = []
        self._ledger = ledger
        self._timeline = network.timeline
        self._random = random
        self._gone = gone
        self._actor = Actor(self)
        kind = ShowingWire if ledger.shows else KeeperWire
        wire = kind(network, self, chance, self._die, about_jobs=True)
        self.client = Client(wire, retry=retry, settings=Settings())

    def do(self, task: Task) -> None:
        """Carry out *task* when it is due."""
        self.todo.append(task)
        self._plan(task)

    def _plan(self, task: Task) -> None:
        self._timeline.at(task.at, self._actor, lambda: self._step(task))

    def _step(self, task: Task) -> None:
        began = self._timeline.now

        def wait(seconds: float) -> None:
            # Whoever waits for another's claim lets time pass, as any call that hangs.
            if self._timeline.now - began > PATIENCE:
                self._ledger.wrong(f"{self.name} waits for a key for ever")
                self.alive = False
                raise Died
            self._timeline.wait(seconds, self._actor)

        token = sleeping.set(wait)
        try:
            delay = task.step(self)
        except (BrokerError, EnqueueError) as error:
            self._ledger.say(f"{self.name}: {type(error).__name__}: {error}")
            delay = self._random.uniform(0.0, 3.0)
        finally:
            sleeping.reset(token)
        if delay is None:
            self.todo.remove(task)
        else:
            task.at = self._timeline.now + delay
            self._plan(task)

    def _die(self, what: str, busy: bool) -> None:
        self._ledger.hit(self, what, until=self._timeline.now, busy=busy)
        self.alive = False
        for task in self.todo:
            task.forget()
        self._gone(self)
