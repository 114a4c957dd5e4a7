"""Ends jobs on somebody's order, wherever they are in their life, and says what became of each.

A job may move while it is looked for, so it goes in this order::

    scheduled or ready  →  deleted, by compare-and-set on its state
    running             →  marked, for the worker that has it (`goose.features.controls.orders`)
    waiting for others  →  marked, then stopped in the store (`goose.features.flows.book`)
    marked              →  looked for once more: what has left its worker meanwhile is deleted

Whoever takes a marked job later ends it instead of running it, so there is no moment at which a
job slips through. What cannot be seen on a broker is marked as well: should a worker have it, or
get it, it ends there.

A job that waits is sent by the end of its last parent, which writes the last edge, sends the job, and
marks its node as sent. A cancel may come between any two of these:

* Before the edge: the node is stopped by compare-and-set, and no end of a parent sends it any more.
* After the edge: it is free, and on its way. If the second look does not find it on the broker, it is
  ``asked``: the mark stays, and whoever gets it ends it.
* After all of it: the first look may have come too early, the second does not.
* Either side dies: a parent's end is told again, and sends what is free. The mark of a cancel stays, and
  workers finish what is marked (`goose.features.flows.stops`), as another cancel does. What it
  had removed from a queue they know by its note (`goose.features.removals`).
* Two cancels at once: both tell the same traits the same. One says ``removed``; the slower one may say
  ``not_found``, as after it.
* Its client is still telling its parents of it: it is ``not_found``, as before the enqueue. From when it
  waits it is ``removed``, and stays so though the enqueue fails then and is sent again.

What the broker had and has no more leaves nothing behind. So a job that was ``removed`` there is stored
again by a client that never heard of its enqueue and repeats it, and has to be cancelled once more. To
remember every id that was ever removed, against that, would cost all jobs more than it is worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from goose.brokers.base import State
from goose.features.controls import Controls
from goose.features.flows.book import Flows
from goose.inspecting import PAGE, Inspection, StoredJob

Cancelled: TypeAlias = Literal["removed", "stopping", "asked", "dead", "not_found"]
"""What became of a job that was to be cancelled.

========== ==================================================================================
removed    it was queued, or waited for other jobs, and is gone
stopping   it runs: ``should_stop`` is true there within a second, an async function is cancelled
asked      it is on its way, or where the broker does not show it; the worker that gets it ends it
dead       it was dead already, and stays among the dead jobs
not_found  it is not stored: done, or never there
========== ==================================================================================
"""

_UNSEEN = ("not_found", "asked")
LOOKS = 5
"""Times a job is looked for that moves from one state to another meanwhile."""


class Canceller:
    """Cancels jobs of one broker. Any thread may use it.

    Args:
        inspection: The stored jobs; None if the broker does not show them.
        controls: The orders of its workers.
        flows: The jobs that wait for others; it tells all traits of ends.
    """

    def __init__(self, inspection: Inspection | None, controls: Controls, flows: Flows) -> None:
        self._inspection = inspection
        self._controls = controls
        self._flows = flows
        self._sees_running: bool | None = None

    def cancel(self, ids: Iterable[str]) -> dict[str, Cancelled]:
        """Cancel the jobs of these ids; return what became of each.

        Raises:
            BrokerError: Broker or store failed; some may be cancelled. It may be called again.
        """
        wanted = list(dict.fromkeys(ids))
        results: dict[str, Cancelled] = {}
        for at in range(0, len(wanted), PAGE):
            results.update(self._page(wanted[at : at + PAGE]))
        return {id_: results[id_] for id_ in wanted}

    def _page(self, ids: Sequence[str]) -> dict[str, Cancelled]:
        results: dict[str, Cancelled] = {}
        marks: dict[str, float | None] = {}
        self._look(ids, results, marks)
        unseen = [id_ for id_ in ids if results[id_] in _UNSEEN and self._flows.knows(id_)]
        marks.update(dict.fromkeys(unseen))
        if marks:
            self._controls.mark(marks)
            stopped = {id_: self._flows.stop(id_) for id_ in unseen}
            again: dict[str, float | None] = {}
            moved: dict[str, Cancelled] = {}
            self._look(list(marks), moved, again)
            for id_, found in stopped.items():
                if moved[id_] not in _UNSEEN:
                    continue
                if found == "stopped":  # then no copy of it is under way
                    moved[id_] = "removed"
                    again.pop(id_, None)
                elif found == "leaving":
                    moved[id_], again[id_] = "asked", None
            results |= moved
            self._controls.unmark([id_ for id_ in marks if id_ not in again])
        return results

    def _look(
        self,
        ids: Sequence[str],
        results: dict[str, Cancelled],
        marks: dict[str, float | None],
    ) -> None:
        """Delete those of *ids* that are queued; put what became of all into *results*.

        Args:
            ids: Of jobs.
            results: What became of each.
            marks: Gets those that workers have to end, with the instant they were enqueued.
        """
        left = list(ids)
        if self._inspection is not None:
            for _ in range(LOOKS):
                queued = self._queued(left, results, marks)
                for state in (State.SCHEDULED, State.READY):
                    if not queued[state]:  # some brokers know nothing of jobs in that state
                        continue
                    removed = self._inspection.remove(
                        queued[state], state=state, ending="cancelled"
                    )
                    results.update(dict.fromkeys(removed, "removed"))
                left = [id_ for id_ in left if id_ not in results]
                if not left:
                    return
        results.update(dict.fromkeys(left, "asked"))
        marks.update(dict.fromkeys(left))

    def _queued(
        self, ids: Sequence[str], results: dict[str, Cancelled], marks: dict[str, float | None]
    ) -> dict[State, list[StoredJob]]:
        """Return those of *ids* that can be deleted, by state, and say what becomes of the others."""
        assert self._inspection is not None
        queued: dict[State, list[StoredJob]] = {State.SCHEDULED: [], State.READY: []}
        for id_ in ids:
            stored = self._inspection.get(id_)
            if stored is None:
                hidden = not self._can_see_running()
                results[id_] = "asked" if hidden else "not_found"
                if hidden:
                    marks[id_] = None
            elif stored.state is State.RUNNING:
                results[id_] = "stopping"
                marks[id_] = None if stored.job is None else stored.job.enqueued_at
            elif stored.state is State.DEAD:
                results[id_] = "dead"
            else:
                queued[stored.state].append(stored)
        return queued

    def _can_see_running(self) -> bool:
        if self._sees_running is None:
            assert self._inspection is not None
            self._sees_running = self._inspection.sees_all
        return self._sees_running
