"""How far a running job is: said by its function, kept under ``result:{ID}:progress``.

`ProgressLog.note` only remembers the latest, so that a function may say it as often as it likes, also
on an event loop; a step of the worker writes what is new, a few times a second at most.

So a run may be over before its last words are written, and the next one, elsewhere, may have had its say.
Words of a run that goes on, or has ended its job, stand in the place of whatever is there. Those of one
that left the job to another run only take the place of what this process knows to be there: they are
swapped for that, so a write that an outage or a slow network has held up takes nothing back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from goose._json import dump, parse
from goose.errors import Undecodable, Unsupported
from goose.features.results.records import key_of
from goose.stores.base import MAX_VALUE, Get, Store, Swap

EVERY = 0.25
"""Seconds between two writes of one process at least."""
IDLE = 60.0
KEPT = 86_400.0
"""Seconds for which the last word of a job is kept."""
MAX_NOTE = 1_000
"""Characters of a note that are kept."""


_Run: TypeAlias = Literal["on", "left", "over"]
"""Of a job that has said something here: it goes on, was left to another run, or has ended its job."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job was when it last said so."""

    done: float
    total: float | None = None
    """What *done* will be in the end; None if that is not known."""
    note: str = ""
    at: float = 0.0
    """When that was written, in epoch seconds by the store's clock."""

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None where the total is not known."""
        return min(1.0, self.done / self.total) if self.total else None


class ProgressLog:
    """What the jobs of one process say of themselves. `note` from any thread, `step` from one.

    Args:
        store: Returns where it is kept.
        on_news: Called when there is something to write.
    """

    def __init__(
        self, store: Callable[[], Store], on_news: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self.on_news = on_news
        self._news: dict[str, Progress] = {}
        self.runs: dict[str, _Run] = {}
        """Of jobs that have said something here."""
        self._known: dict[str, bytes | None] = {}
        """What is there of jobs, as far as this process knows. Only for `step`."""
        self._rests = False
        """Whether `step` has written something just now, and comes again by itself."""
        self._lock = threading.Lock()

    def note(self, job_id: str, done: float, total: float | None, note: str) -> None:
        """Remember how far that job is, to be written soon."""
        with self._lock:
            self.runs[job_id] = "on"
            self._news[job_id] = Progress(done, total, note[:MAX_NOTE])
            waits = self._rests or len(self._news) > 1
        if not waits:
            self.on_news()

    def ended(self, job_id: str, *, final: bool) -> None:
        """Note that the run of that job is over; if it is not *final*, there will be another, anywhere."""
        if job_id in self.runs:
            with self._lock:
                self.runs[job_id] = "over" if final else "left"

    def step(self, _now: float) -> float:
        """Write what is new; return the seconds until the next call.

        Raises:
            BrokerError: Some of it is not written; it will be, unless there is newer by then.
            Unsupported: There is no store, and what was said is dropped.
        """
        with self._lock:
            news, self._news = self._news, {}
            self._rests = bool(news)
            silent = [id_ for id_, run in self.runs.items() if run != "on" and id_ not in news]
            for job_id in silent:
                del self.runs[job_id]
                self._known.pop(job_id, None)
        if not news:
            return IDLE
        try:
            self._write(news)
        except Unsupported:
            raise
        except BaseException:
            with self._lock:
                self._news = {**news, **self._news}
            raise
        return EVERY

    def _write(self, news: dict[str, Progress]) -> None:
        store = self._store()
        now = store.now()
        for job_id, progress in news.items():
            value = dump({**asdict(progress), "at": now})
            key, written = _key(job_id), False
            while not written:
                swap = Swap(key, self._known.get(job_id), value, ttl=KEPT)
                written, self._known[job_id] = store.apply([swap, Get(key)])
                if self.runs.get(job_id) == "left":
                    break


def latest(store: Store, job_id: str) -> Progress | None:
    """Return what that job said last; None if nothing is known.

    Raises:
        BrokerError: The store failed.
    """
    [body] = store.apply([Get(_key(job_id))])
    if body is None:
        return None
    try:
        fields = parse(body, max_bytes=MAX_VALUE)
        total = fields["total"]
        return Progress(
            float(fields["done"]),
            None if total is None else float(total),
            str(fields["note"]),
            float(fields["at"]),
        )
    except (Undecodable, KeyError, TypeError, ValueError):
        return None


def _key(job_id: str) -> str:
    return f"{key_of(job_id)}:progress"
