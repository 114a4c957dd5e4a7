"""A world whose jobs use features: the storm, then the calm, then what asks for all keys once more."""

from __future__ import annotations

import random
from collections import Counter

from goose.stores.memory import MemoryStore
from goose.testing.simulator import faults
from goose.testing.simulator.features.acts import Act, Cast, Task
from goose.testing.simulator.features.batches import Batches
from goose.testing.simulator.features.callers import Caller, by_chance
from goose.testing.simulator.features.cancelled_batches import CancelledBatches
from goose.testing.simulator.features.cancelled_flows import CancelledFlows
from goose.testing.simulator.features.controls import Controls
from goose.testing.simulator.features.crons import Crons
from goose.testing.simulator.features.debounces import Debounces
from goose.testing.simulator.features.flows import Flows
from goose.testing.simulator.features.ledger import FeatureLedger
from goose.testing.simulator.features.limits import Limits
from goose.testing.simulator.features.longs import Longs
from goose.testing.simulator.features.ordered import OrderedLongWorker, OrderedWorker
from goose.testing.simulator.features.rates import Rates
from goose.testing.simulator.features.results import Results
from goose.testing.simulator.features.throttles import Throttles
from goose.testing.simulator.features.unique_crons import UniqueCrons
from goose.testing.simulator.features.uniques import Uniques
from goose.testing.simulator.features.wire import STORE_VERBS
from goose.testing.simulator.features.worker import FeatureWorker, LongWorker
from goose.testing.simulator.ledger import Ledger
from goose.testing.simulator.process import Worker
from goose.testing.simulator.script import Script, draw
from goose.testing.simulator.world import RETRY, World

PARTS = 40
"""More than all acts of a world can take."""
AT_ONCE = 2
"""Features that one world has at most."""
CALLERS = 2
SPARED = 0.6
"""How many of the faults in calls to the store do not happen, since there are many calls."""
SHOWING = 0.6
"""How many worlds have a broker that can show its jobs."""
LOOK = 0.5
"""Seconds between two looks whether all is done."""

ACTS: dict[str, type[Act]] = {
    "unique": Uniques,
    "batch": Batches,
    "flow": Flows,
    "limit": Limits,
    "cron": Crons,
    "result": Results,
    "rate": Rates,
    "debounce": Debounces,
    "throttle": Throttles,
    "unique-cron": UniqueCrons,
    "control": Controls,
    "long": Longs,
    "batch-cancel": CancelledBatches,
    "flow-cancel": CancelledFlows,
}


class FeatureWorld(World):
    """A `World` with a store, a few acts, and clients that may die."""

    # --- made in this order by the base ---------------------------------------------------

    def _draw(self) -> Script:
        scenario, chance = self.scenario, self.random
        script = draw(chance, PARTS, until=scenario.stormy * 0.8, ttl=scenario.ttl)
        cast = Cast(chance, script.parts, scenario.stormy)
        names = chance.sample(scenario.features, min(AT_ONCE, len(scenario.features)))
        self._acts = [ACTS[name](cast) for name in names]
        return script

    def _make_ledger(self, *, trace: bool) -> Ledger:
        acts = {number: act for act in self._acts for number in act.numbers}
        clock, shows = lambda: self.timeline.now, self.random.random() < SHOWING
        self._checker = FeatureLedger(self.script, clock, acts, shows=shows, trace=trace)
        return self._checker

    def _choose_chance(self) -> faults.Chance:
        chosen = super()._choose_chance()

        def draw_fault(verb: str, *, busy: bool) -> tuple[faults.Fault, bool] | None:
            fault = chosen(verb, busy=busy)
            if fault is not None and verb in STORE_VERBS and self.scenario.crash_at is None:
                return None if self.random.random() < SPARED else fault
            return fault

        return draw_fault

    def _make_clients(self) -> None:
        self._tasks: list[Task] = []
        self._callers: list[Caller] = []
        self._names = 0
        self._probed = False
        self._look_at = 0.0
        store = MemoryStore(self.broker)
        for act in self._acts:
            act.join(self._checker, store)
        tasks = [task for act in self._acts for task in act.tasks()]
        self.random.shuffle(tasks)
        for number in range(CALLERS):
            self._call(tasks[number::CALLERS])

    def _call(self, tasks: list[Task]) -> None:
        """Start a client process that does *tasks*."""
        self._names += 1
        chance = (
            by_chance(self.random, lambda: self.calm)
            if self.scenario.crash_at is None
            else self._chance
        )
        caller = Caller(
            f"c{self._names}", self.network, self._checker, chance, RETRY, self.random, self._died
        )
        self._callers.append(caller)
        for task in tasks:
            caller.do(task)

    def _died(self, caller: Caller) -> None:
        """Have another client go on with what *caller* had to do."""
        self._callers.remove(caller)
        soon = self.timeline.now + self.random.uniform(0.1, 20.0)
        tasks = list(caller.todo)
        for task in tasks:
            task.at = max(task.at, soon)
        self._call(tasks)

    def _make_worker(self, name: str) -> Worker:
        kinds = (FeatureWorker, LongWorker), (OrderedWorker, OrderedLongWorker)
        ordered, long = (
            any(getattr(act, what) for act in self._acts) for what in ("ordered", "long")
        )
        return kinds[ordered][long](
            name, self.network, self.scenario, self.script, self._offer,
            self._chance, random.Random(self.random.random()), self._gone,
        )  # fmt: skip

    def _event(self) -> None:
        super()._event()
        self._checker.away(self.network.down_until)

    # --- the end --------------------------------------------------------------------------

    def _drained(self) -> bool:
        if self.timeline.now < self._look_at:
            return False
        self._look_at = self.timeline.now + LOOK
        if not self._is_over():
            return False
        if self._probed:
            return True
        self._probed = True
        probes = [probe for act in self._acts for probe in act.probes()]
        for probe in probes:
            probe.at = self.timeline.now
            self._callers[0].do(probe)
        return not probes

    def _is_over(self) -> bool:
        if any(caller.todo for caller in self._callers) or not self._checker.is_at_rest:
            return False
        return all(act.is_done for act in self._acts)

    def _close(self) -> None:
        super()._close()
        for caller in self._callers:
            if caller.todo:
                self._checker.wrong(f"{caller.name} still has {len(caller.todo)} things to do")
        for act in self._acts:
            act.close()

    def _seen(self) -> Counter[str]:
        return self._checker.seen
