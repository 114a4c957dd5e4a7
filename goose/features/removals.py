"""Jobs that somebody removed by hand, and died before anybody was told.

Who removes jobs that bear traits asks the broker first, since only it knows whether a worker was
faster, and tells their traits after. Before both it leaves a *note* in the store of what it is about to
remove, and takes that away in the end. A note that stays is of somebody who died in between. Workers look
for such once in a while: of its jobs those that are gone are told of, and the note goes.

How it could break, and what holds:

* It dies before it removed anything, or after a part: what is still there is left alone.
* It dies after it has told: it is told once more, and traits are idempotent.
* It is slow, not dead: what is gone already is told of twice, with the same ending.
* The broker does not show every job (RabbitMQ): nobody could say what is gone, so nothing is noted.
* A worker was faster, and the job is gone because it is done: that was told first. What is told
  later of the same run is not the truer, see `goose.features.traits`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from goose.brokers import sees_all
from goose.brokers.base import Inspector
from goose.features.traits import Ended, Ending, Tools
from goose.jobs import Envelope, Job, decode, encode
from goose.stores.base import Delete, Put, Store

PREFIX = "removal:"
AT_ONCE = 500
"""Jobs in one note."""
LEFT = 60.0
"""Seconds after which a note is taken to be of somebody who died."""


@contextmanager
def noted(store: Store, ending: Ending, jobs: Sequence[Job[Any]]) -> Iterator[None]:
    """Have workers tell of *jobs* that are removed in the block, should it not come to its end.

    Raises:
        BrokerError: The store failed; before the block nothing is removed.
    """
    keys: list[str] = []
    for at in range(0, len(jobs), AT_ONCE):
        # Without arguments, which no trait wants to see at an end.
        bodies = [
            encode(job.evolve(args=(), kwargs={})).decode() for job in jobs[at : at + AT_ONCE]
        ]
        note = {"at": store.now(), "ending": ending, "jobs": bodies}
        keys.append(PREFIX + uuid.uuid4().hex)
        store.apply([Put(keys[-1], json.dumps(note).encode())])
    yield
    for key in keys:
        store.apply([Delete(key)])


def finish(tools: Tools) -> None:
    """Tell of what somebody has removed who died over it.

    Raises:
        BrokerError: Broker or store failed; it is done the next time.
    """
    if not (isinstance(tools.broker, Inspector) and sees_all(tools.broker)):
        return
    store = tools.store()
    for key, value in store.scan(PREFIX):
        note = json.loads(value)
        if store.now() - note["at"] < LEFT:
            continue
        gone = [
            job
            for job in (_job(body) for body in note["jobs"])
            if tools.broker.find(job.id) is None
        ]
        tools.ended([Ended(job, note["ending"], reason="removed by hand") for job in gone])
        store.apply([Delete(key)])


def _job(body: str) -> Job[Any]:
    return decode(Envelope(json.loads(body)["id"], "", body.encode()))
