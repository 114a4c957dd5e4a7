"""A worker process that follows orders: queues are paused under it, and jobs are cancelled."""

from __future__ import annotations

from dataclasses import replace

from goose.brokers.base import Share
from goose.calls import Offer
from goose.testing.simulator.features.worker import FeatureWorker, LongWorker
from goose.worker.config import WorkerConfig
from goose.worker.engine import Engine
from goose.worker.follower import Follower, open_queues
from goose.worker.stops import Stops

QUEUE = "aside"
"""What is paused; the jobs of other acts are not in it."""


class OrderedWorker(FeatureWorker):
    """A `FeatureWorker` with the step for orders."""

    def _engine(self, offer: Offer, config: WorkerConfig) -> Engine:
        return super()._engine(offer, replace(config, queues=(*config.queues, Share(QUEUE))))

    def _make_loops(self, engine: Engine) -> None:
        super()._make_loops(engine)
        store = engine.traits.tools.store()
        self._follower = Follower(store, version="", name=self.name, clock=self.clock)
        self._follower.follow(_Carrying(self))
        self._loop(self._follower.step)

    def _start(self) -> None:
        self._follower.begin(self.clock.mono())
        super()._start()

    def serve(self, config: WorkerConfig, paused: frozenset[str]) -> None:
        """Take from the queues of *config* that are not *paused*."""
        self.engine.config = config
        self.engine.fetcher.serve(open_queues(config, paused))
        if self._begun:
            self._fetch.kick()

    def sift(self) -> None:
        """Lay the orders over what is here; async functions that are to end are cancelled."""
        ended = self.engine.sift()
        for slot in self._slots:
            if slot.work in ended:
                slot.cancel()


class OrderedLongWorker(OrderedWorker, LongWorker):
    """One with the steps for both."""


class _Carrying:
    """Carries orders out as `goose.worker.threads.Threads` does: a `Followed`."""

    def __init__(self, worker: OrderedWorker) -> None:
        self._worker = worker

    @property
    def config(self) -> WorkerConfig:
        return self._worker.engine.config

    @property
    def stops(self) -> Stops:
        return self._worker.engine.stops

    @property
    def running(self) -> int:
        return self._worker.engine.buffer.running

    def work_by(self, config: WorkerConfig, paused: frozenset[str]) -> None:
        self._worker.serve(config, paused)

    def sift(self) -> None:
        self._worker.sift()
