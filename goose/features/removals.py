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
* A note cannot be read, or one of its jobs not be told of: the other notes are done, and this one goes
  after `KEPT`.
* A worker was faster, and the job is gone because it is done: that was told first. What is told
  later of the same run is not the truer, see `goose.features.traits`.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from goose.brokers import sees_all
from goose.brokers.base import Inspector
from goose.errors import BrokerUnavailable
from goose.features.traits import Ended, Ending, Tools
from goose.jobs import Envelope, Job, decode, encode
from goose.stores.base import Delete, Put, Store

logger = logging.getLogger("goose.features")

PREFIX = "removal:"
AT_ONCE = 500
"""Jobs in one note."""
LEFT = 60.0
"""Seconds after which a note is taken to be of somebody who died."""
KEPT = 7 * 86_400.0
"""Seconds after which a note goes that no worker could do anything about."""


class Troubles:
    """What of a sweep cannot be done, told of once each by a process that sweeps for ever."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @contextmanager
    def skipped(self, what: str) -> Iterator[None]:
        """Have an error in the block concern *what* alone, unless broker or store are away."""
        try:
            yield
        except BrokerUnavailable:
            raise
        except Exception:
            if what not in self._told:
                self._told.add(what)
                logger.exception("sweep: %s cannot be done now; it is tried again", what)


@contextmanager
def noted(store: Store, ending: Ending, jobs: Sequence[Job[Any]]) -> Iterator[None]:
    """Have workers tell of *jobs* that are removed in the block, should it not come to its end.

    Raises:
        BrokerError: The store failed; before the block nothing is removed.
    """
    keys: list[str] = []
    for at in range(0, len(jobs), AT_ONCE):
        bodies = [packed(job) for job in jobs[at : at + AT_ONCE]]
        note = {"at": store.now(), "ending": ending, "jobs": bodies}
        keys.append(PREFIX + uuid.uuid4().hex)
        store.apply([Put(keys[-1], json.dumps(note).encode(), ttl=KEPT)])
    yield
    for key in keys:
        store.apply([Delete(key)])


def finish(tools: Tools, troubles: Troubles) -> None:
    """Tell of what somebody has removed who died over it.

    Raises:
        BrokerError: Broker or store are away; it is done the next time.
    """
    if not (isinstance(tools.broker, Inspector) and sees_all(tools.broker)):
        return
    store = tools.store()
    for key, value in store.scan(PREFIX):
        with troubles.skipped(f"the note {key} of removed jobs"):
            note = json.loads(value)
            if store.now() - note["at"] < LEFT:
                continue
            jobs = [unpacked(body) for body in note["jobs"]]
            gone = [job for job in jobs if tools.broker.find(job.id) is None]
            tools.ended([Ended(job, note["ending"], reason="removed by hand") for job in gone])
            store.apply([Delete(key)])


def packed(job: Job[Any]) -> str:
    """Return *job* for a note: without arguments, which no trait wants to see at an end."""
    return encode(job.evolve(args=(), kwargs={})).decode()


def unpacked(body: str) -> Job[Any]:
    """Return the job in a note."""
    return decode(Envelope(json.loads(body)["id"], "", body.encode()))
