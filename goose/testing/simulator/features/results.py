"""Results: what a job returned is there once its end is noted, and whoever waits gets it.

Clients enqueue jobs that keep their result, ask again and again where they are, and wait for the
end. One that dies leaves the id to another, as a program does that writes it down.

A job may end twice if a fault has it run again. So of several endings each is true, but for one
that returned something, which stays. No answer may be older than the call that asked for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from goose.clients import Client
from goose.errors import JobFailed, ResultTimeout, ResultUnavailable
from goose.features.results.records import Record, key_of, read
from goose.jobs import Job
from goose.stores.base import Get
from goose.testing.simulator.features.acts import Act, Cast, Enqueuing, Task
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.features.ledger import ENDED
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import REASONS

LOOK = 2.0
"""Seconds between two looks of a client at most."""
_STORED = ("scheduled", "ready", "running")


class Asking(Enqueuing):
    """Enqueues one job, and asks for its result until that is there."""

    def __init__(self, act: Results, number: int) -> None:
        super().__init__(act, number)
        self._results = act
        self._known: Job[Any] | str | None = None
        """Once it is stored: the job, or its id, which is all that others know."""

    def step(self, caller: Caller) -> float | None:
        """Enqueue or submit it; then look."""
        if self._known is None:
            return super().step(caller)
        if self._results.ask(caller.client, self.number, self._known):
            return None
        return self._pause()

    def stored(self, job: Job[Any]) -> float | None:
        """See `Enqueuing.stored`."""
        self._known = job
        return self._pause()

    def _pause(self) -> float:
        return self._results.random.uniform(0.0, LOOK)

    def forget(self) -> None:
        """See `Task.forget`; the id was written down."""
        super().forget()
        if isinstance(self._known, Job):
            self._known = self._known.id


class Results(Act):
    """A few jobs that keep their result."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self.random = cast.random
        self._numbers = cast.take(cast.random.randint(4, 10))
        self._returned: set[str] = set()
        """Jobs that were on record with what they returned."""

    @property
    def numbers(self) -> Sequence[int]:
        """See `Act.numbers`."""
        return self._numbers

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        return [Asking(self, number) for number in self._numbers]

    def asking(self, client: Client) -> Client:
        """See `Act.asking`."""
        return client.using(result=True)

    # --- what is kept ---------------------------------------------------------------------

    def ended(self, job_id: str, entry: Entry) -> None:
        """Check that its end was noted before the broker forgot it."""
        self._check(job_id, entry)

    def close(self) -> None:
        """Check the same again."""
        for number in self._numbers:
            for job_id, entry in self.ledger.playing(number):
                self._check(job_id, entry)

    def _check(self, job_id: str, entry: Entry) -> None:
        number = entry.part.number
        [body] = self.store.apply([Get(key_of(job_id))])
        if body is None:
            self.ledger.wrong(f"job {number} has ended, and left no result")
            return
        record = read(body)
        self._is_true(entry, record)
        if record.ending == "done":
            self._returned.add(job_id)
        elif job_id in self._returned:
            self.ledger.wrong(f"job {number} had returned, and now it is {record.ending}")

    def _is_true(self, entry: Entry, record: Record) -> None:
        number, endings = entry.part.number, self.ledger.endings(entry)
        if record.ending not in endings:
            self.ledger.wrong(f"job {number} is {record.ending} on record, and ended as {endings}")
        elif record.ending == "done":
            self._is_returned(number, record.value)
        elif record.ending == "dead":
            self._is_reason(entry, record.reason)

    def _is_returned(self, number: int, value: Any) -> None:
        returned = self.ledger.returned(number)
        if value not in returned:
            self.ledger.wrong(f"job {number} has the result {value}, and returned {returned}")

    def _is_reason(self, entry: Entry, reason: str) -> None:
        meant = REASONS.get(entry.part.kind, "crashed")
        if not reason.startswith((meant, "crashed")):
            self.ledger.wrong(f"job {entry.part.number} is dead of {reason!r}, not {meant}")

    # --- what clients are told ------------------------------------------------------------

    def ask(self, client: Client, number: int, asked: Job[Any] | str) -> bool:
        """Check all that a client can ask for; say whether it knows the end now."""
        job_id = asked if isinstance(asked, str) else asked.id
        if client.is_gone(job_id):
            self.ledger.wrong(f"a client takes job {number} for gone, and it was stored")
        self._ask_status(client, job_id)
        entry = self.ledger.entries[job_id]
        was_over = entry.state in ENDED
        try:
            value: Any = client.result(asked, 0)
        except ResultTimeout:
            if was_over:
                self.ledger.wrong(f"a client still waits for job {number}, which has ended")
            return False
        except ResultUnavailable as error:
            self.ledger.wrong(f"a client is refused what job {number} returned: {error}")
        except JobFailed as failed:
            self.ledger.seen["a client heard of a job that failed"] += 1
            self._is_true(entry, Record("dead", 0.0, reason=failed.reason))
        else:
            skipped = value is None
            self.ledger.seen["a client got a result"] += not skipped
            self._is_true(entry, Record("skipped" if skipped else "done", 0.0, value))
        return True

    def _ask_status(self, client: Client, job_id: str) -> None:
        """Check that the status was that of the job at some moment of the call."""
        entry = self.ledger.entries[job_id]
        was_over = entry.state in ENDED
        status = client.status(job_id)
        self.ledger.seen[f"a client was told {status}"] += 1
        over = was_over and entry.state in ENDED
        if status in _STORED:
            lies = over
        elif status == "unknown":
            # Where the broker does not show its jobs, that is all there is to say of one stored.
            lies = self.ledger.shows or over
        else:
            lies = status not in self.ledger.endings(entry)
        if lies:
            self.ledger.wrong(f"a client is told that job {entry.part.number} is {status}")
