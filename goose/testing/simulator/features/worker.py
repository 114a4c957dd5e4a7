"""A worker process whose jobs use features: the same engine, with the steps that these need."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any, TypeVar

from goose.calls import Offer
from goose.features.batches.trait import Sweeper
from goose.features.crons.firing import Firing
from goose.testing.simulator.faults import Chance
from goose.testing.simulator.features.ledger import FeatureLedger
from goose.testing.simulator.features.wire import KeeperWire, ShowingWire
from goose.testing.simulator.process import Worker
from goose.testing.simulator.wire import Wire
from goose.worker.config import WorkerConfig
from goose.worker.engine import Engine
from goose.worker.errands import run_into

T = TypeVar("T")

LEASE = 15.0
"""Seconds for which places are kept for a process that is not heard: outages last up to 25."""


class FeatureWorker(Worker):
    """A `Worker` with a store; its steps for features are those of `goose.worker.runner`."""

    def _make_wire(self, chance: Chance) -> Wire:
        assert isinstance(self._ledger, FeatureLedger)
        kind = ShowingWire if self._ledger.shows else KeeperWire
        return kind(self._network, self, chance, self._crash)

    def poison(self) -> None:
        """Let it die by one of its jobs."""
        assert isinstance(self._ledger, FeatureLedger)
        self._ledger.poisoned(self)
        super().poison()

    def _engine(self, offer: Offer, config: WorkerConfig) -> Engine:
        engine = super()._engine(offer, config)
        engine.traits.tools = replace(engine.traits.tools, ttl=LEASE)
        return engine

    def _make_loops(self, engine: Engine) -> None:
        super()._make_loops(engine)
        self._loop(engine.gate.step)
        tools = engine.traits.tools
        self._loop(Sweeper(tools).step)
        self._loop(Firing(tools.broker, tools.store(), mono=self.clock.mono).step)


class LongWorker(FeatureWorker):
    """One with the steps for jobs that say how far they are."""

    def _engine(self, offer: Offer, config: WorkerConfig) -> Engine:
        engine = super()._engine(offer, config)
        engine.checkpoints.threads = AtOnce()
        return engine

    def _make_loops(self, engine: Engine) -> None:
        super()._make_loops(engine)
        engine.kicks.progress = self._loop(engine.progress.step).kick
        engine.kicks.checkpoints = self._loop(engine.checkpoints.step).kick


class AtOnce(Executor):
    """Does what it is given while it is given it: whoever asks waits for the answer anyway."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See `Executor.submit`."""
        future: Future[T] = Future()
        run_into(lambda: fn(*args, **kwargs), future)
        return future
