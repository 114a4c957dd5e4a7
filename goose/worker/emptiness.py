"""Whether a worker has nothing left to do."""

from __future__ import annotations

from goose.brokers.base import Broker, Inspector, State
from goose.errors import Unsupported
from goose.worker.engine import Engine


def is_empty(broker: Broker, engine: Engine) -> bool:
    """Say whether nothing is ready or running in the queues of *engine*, here or elsewhere.

    Without an `Inspector`, or one that sees what others run, it speaks for this process alone.

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
    queues = [share.queue for share in engine.config.queues]
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
