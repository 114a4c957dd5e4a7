"""How one worker process stands: its numbers, and whether anything is left to do.

Any thread may ask. Numbers are read one by one from a process that works on, so two of them may
be of two moments; `is_empty` is right nevertheless, because the broker's listing has the last
word and what is on its way through the engine is still lent there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from goose.brokers.base import Broker, Inspector, State
from goose.errors import Unsupported
from goose.worker.engine import Engine
from goose.worker.outcomes import Ending


@dataclass(frozen=True, slots=True)
class RunnerStatistics:
    """One process's numbers at one moment."""

    running: int
    """Jobs in slots."""
    held: int
    """Jobs taken from the broker and waiting for a slot."""
    unsettled: int
    """Jobs that ended and whose outcome the broker has not confirmed."""
    processed: int
    """Executions that ended and were settled."""
    succeeded: int
    retried: int
    dead: int
    recovered: int
    """Orphans of others taken over."""
    lost_settles: int
    """Outcomes refused because the session had been given up."""


def statistics(engine: Engine) -> RunnerStatistics:
    """Return the numbers of *engine*."""
    report, buffer = engine.report, engine.buffer
    return RunnerStatistics(
        running=buffer.running,
        held=buffer.held,
        unsettled=buffer.unsettled,
        processed=report.processed,
        succeeded=report.endings[Ending.DONE],
        retried=report.endings[Ending.RETRIED],
        dead=report.endings[Ending.DEAD],
        recovered=report.orphans,
        lost_settles=report.lost,
    )


def is_empty(engine: Engine, broker: Broker, queues: Sequence[str]) -> bool:
    """Say whether nothing is ready or running in *queues*, here or elsewhere.

    What is only scheduled does not count. Without an `Inspector`, or one that sees what others
    run, it speaks for this process alone.

    Raises:
        BrokerError: The broker could not say.
    """
    if not engine.buffer.idle:
        return False
    if not isinstance(broker, Inspector):
        return engine.fetcher.found_nothing
    # The broker's word alone decides: what a fetch has just been lent is running there.
    # The counts are quick to say no; a job that moves from running to ready between them,
    # for a retry at once, is only seen for certain in the listing of one moment.
    states: tuple[State, ...] = (State.READY, State.RUNNING)
    if not _sees_running(broker, queues[0]):
        # Then this process answers for itself, and others for themselves.
        if not engine.fetcher.found_nothing:
            return False
        states = (State.READY,)
    if any(broker.count(state, queue) for state in states for queue in queues):
        return False
    return not any(
        stats.counts[state]
        for stats in broker.queues()
        for state in states
        if stats.queue in queues
    )


def _sees_running(broker: Inspector, queue: str) -> bool:
    try:
        broker.count(State.RUNNING, queue)
    except Unsupported:
        return False
    return True
