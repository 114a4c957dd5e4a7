"""Jobs that were to be cancelled while they waited, by somebody who died over it.

Who cancels marks the jobs first (see `goose.features.controls.orders`), and takes the marks away once
all is told. So a marked job that still waits, or is stopped and not yet let go of, is left of somebody
who died, or of one who is at it just now; to do it twice harms nobody.
"""

from __future__ import annotations

from goose.features.controls import Controls
from goose.features.traits import Tools


def finish(tools: Tools) -> None:
    """Stop the jobs that are marked and wait.

    Raises:
        BrokerError: Broker or store failed; it is done the next time.
    """
    store = tools.store()
    marks = Controls(store).marks()
    if marks:
        from goose.features.flows.book import Flows  # not every worker's

        flows = Flows(store, tools.broker, tools.ended, tools.metrics)
        for id_ in marks:
            flows.stop(id_)
