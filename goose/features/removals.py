"""Jobs that somebody removed by hand, and died before anybody was told.

Who removes jobs that bear traits asks the broker first, since only it knows whether a worker was
faster, and tells their traits after. Before both it leaves a *note* in the store of what it is about to
remove, and takes that away in the end. A note that stays is of somebody who died in between. Workers look
for such once in a while: of its jobs those that are gone are told of, and the note goes.

Where the broker does not show every job (RabbitMQ) no worker could say what is gone. There the note is
written once more as soon as the broker has answered, and names what was removed: that is told of unseen.

How it could break, and what holds:

* It dies before it removed anything, or after a part: what is still there is left alone.
* It dies after it has told: it is told once more, and traits are idempotent.
* It is slow, not dead: what is gone already is told of twice, with the same ending.
* The answer cannot be noted: whoever removed them lives, and tells of them. Should that fail, too, or
  had it died before, or if the answer is an error after a part was removed: where the broker does not
  show every job nobody is told, since nobody knows, and workers say so in their log. What
  waits for such a job does so until it is cancelled, or until the job is sent again under its id.
* The store is away: nothing is removed, since nobody could be told.
* A note cannot be read, or one of its jobs not be told of: the other notes are done, and this one goes
  after `KEPT`.
* A worker was faster, and the job is gone because it is done: that was told first. What is told
  later of the same run is not the truer, see `goose.features.traits`.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from goose._words import several
from goose.brokers import name_of, sees_all
from goose.brokers.base import Broker, Inspector
from goose.errors import BrokerError, BrokerUnavailable, Unsupported
from goose.features.traits import Ended, Ending, Tools
from goose.jobs import Envelope, Job, decode, encode
from goose.stores.base import MAX_VALUE, Delete, Put, Store, Swap

logger = logging.getLogger("goose.features")

PREFIX = "removal:"
AT_ONCE = 200
"""Jobs in one note, at most; fewer if they are large."""
NAMED = 5
"""Jobs named in one warning."""
LEFT = 60.0
"""Seconds after which a note is taken to be of somebody who died."""
KEPT = 7 * 86_400.0
"""Seconds after which a note goes that no worker could do anything about."""
Confirm: TypeAlias = Callable[[Sequence[str]], None]
"""Called with the ids of jobs, as soon as the broker has said that they are removed."""


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
def noted(
    store: Store, ending: Ending, jobs: Sequence[Job[Any]], *, shown: bool = True
) -> Iterator[Confirm]:
    """Have workers tell of *jobs* that are removed in the block, should it not come to its end.

    Args:
        store: Where workers look for notes.
        ending: How the jobs end.
        jobs: Those that are to be removed.
        shown: Whether the broker shows jobs in every state.

    Yields:
        What has to be told which of them were removed, before anybody else is.

    Raises:
        BrokerError: The store failed; before the block nothing is removed.
    """
    notes = {PREFIX + uuid.uuid4().hex: part for part in _parts(jobs)}
    places = {} if shown else {id_: key for key, part in notes.items() for id_ in part}
    gone: dict[str, list[str]] = {}

    def note(key: str, bodies: Sequence[str], **more: bool) -> None:
        fields = {"at": store.now(), "ending": ending, "jobs": bodies, **more}
        store.apply([Put(key, json.dumps(fields, ensure_ascii=False).encode(), ttl=KEPT)])

    def confirm(removed: Sequence[str]) -> None:
        known = [id_ for id_ in removed if id_ in places]
        for id_ in known:
            gone.setdefault(places[id_], []).append(notes[places[id_]][id_])
        for key in {places[id_]: None for id_ in known}:
            try:
                note(key, gone[key], gone=True)
            except BrokerError as error:  # who removed them lives, and tells of them next
                logger.warning(
                    "removed jobs could not be noted (%s); they are told of at once", error
                )

    for key, part in notes.items():
        note(key, [*part.values()], **({} if shown else {"gone": False}))
    try:
        yield confirm
    except Unsupported:
        if not (shown or gone):  # nothing was removed, which workers could not see for themselves
            _forget(store, notes)
        raise
    _forget(store, notes)


def _forget(store: Store, keys: Iterable[str]) -> None:
    for key in keys:
        store.apply([Delete(key)])


def _parts(jobs: Sequence[Job[Any]]) -> Iterator[dict[str, str]]:
    """Yield what is to be noted of *jobs*, by id, for one note after the other."""
    part: dict[str, str] = {}
    size = 0
    for job in jobs:
        body = packed(job)
        taken = 2 * len(body.encode())  # at most: quotes and backslashes are written with another
        if part and (len(part) == AT_ONCE or size + taken > MAX_VALUE // 2):
            yield part
            part, size = {}, 0
        part[job.id] = body
        size += taken
    if part:
        yield part


def finish(tools: Tools, troubles: Troubles) -> None:
    """Tell of what somebody has removed who died over it.

    Raises:
        BrokerError: Broker or store are away; it is done the next time.
    """
    store = tools.store()
    for key, value in store.scan(PREFIX):
        with troubles.skipped(f"the note {key} of removed jobs"):
            note = json.loads(value)
            if store.now() - note["at"] < LEFT:
                continue
            gone = _gone(tools.broker, note.get("gone"), [unpacked(body) for body in note["jobs"]])
            if gone is not None:
                tools.ended([Ended(job, note["ending"], reason="removed by hand") for job in gone])
                # Unless its answer has come meanwhile: then the next one tells of that.
                store.apply([Swap(key, value, None)])


def _gone(broker: Broker, known: bool | None, jobs: list[Job[Any]]) -> list[Job[Any]] | None:
    """Return those of noted *jobs* that are gone; None if others have to look.

    Args:
        broker: Where to look.
        known: Whether who removed them had been told that they are gone; None if they can be looked for.
        jobs: Those in the note.
    """
    if known is None:
        if not (isinstance(broker, Inspector) and sees_all(broker)):
            return None
        return [job for job in jobs if broker.find(job.id) is None]
    if not known:
        logger.warning(
            "sweep: somebody who died over it may have removed %s, and %s cannot say: %s; what waits "
            "for one that is gone waits until it is cancelled, or that one is enqueued again",
            several(len(jobs)),
            name_of(broker),
            ", ".join(job.id for job in jobs[:NAMED]) + (", ..." if len(jobs) > NAMED else ""),
        )
        return []
    return jobs


def packed(job: Job[Any]) -> str:
    """Return *job* for a note: without what no trait wants to see at such an end, and may be large."""
    return encode(job.evolve(args=(), kwargs={}, failure=None)).decode()


def unpacked(body: str) -> Job[Any]:
    """Return the job in a note."""
    return decode(Envelope(json.loads(body)["id"], "", body.encode()))
