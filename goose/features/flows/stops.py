"""Jobs that were to be cancelled while they waited, or to wait again, by somebody who died over it.

Who cancels marks the jobs first (see `goose.features.controls.orders`), and takes the marks away once
all is told. So a marked job that still waits, or is stopped and not yet let go of, is left of somebody
who died, or of one who is at it just now; to do it twice harms nobody. A mark that says when its job was
enqueued is of one that was seen running, and for its worker.

Who revives a job tells its traits first, and makes it wait after (see `book`). If it is stopped in
between, for good, they may hear of that first: whoever revives it sees it in the end, and tells them
again. Should they die before that, the note which they have left is enough to do it.
"""

from __future__ import annotations

from goose.features.controls import Controls
from goose.features.flows.records import REVIVALS
from goose.features.removals import Troubles
from goose.features.traits import Tools


def finish(tools: Tools, troubles: Troubles) -> None:
    """Stop the jobs that are marked and wait, and those that were stopped while they were revived.

    Raises:
        BrokerError: Broker or store are away; it is done the next time.
    """
    store = tools.store()
    marked = [id_ for id_, seen in Controls(store).marks().items() if seen is None]
    revivals = store.scan(REVIVALS, limit=1)
    if marked or revivals:
        from goose.features.flows.book import Flows  # not every worker's

        flows = Flows(store, tools.broker, tools.ended, tools.metrics)
        for id_ in marked:
            with troubles.skipped(f"the cancel of job {id_}"):
                flows.stop(id_)
        with troubles.skipped("what was left of a replay"):
            flows.finish_revivals()
