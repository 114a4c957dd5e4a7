"""Limits: never more jobs of one key run at once than may, and no place of the key is lost.

Leases are shorter here than anywhere else, so that outages and pauses are longer than they hold.
"""

from __future__ import annotations

from collections.abc import Sequence

from goose.clients import Client
from goose.features.limits.values import Limit
from goose.testing.simulator.features.acts import Act, Cast, Enqueuing, Task
from goose.testing.simulator.features.worker import LEASE
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import Kind

DOUBT = LEASE / 2
"""Seconds for which a lapsed lease is doubted."""
UNHEARD = LEASE + DOUBT - 10.0
"""Seconds without a word to the store that may cost a process its leases: of the time to live it may
have used as much as there is between two times that it keeps them, and some seconds for slow calls."""
SLOW = 10.0
"""Seconds that jobs may take in which nothing goes wrong."""


class Limiting(Act):
    """Jobs under one limit, and some that ask for it at the end."""

    limit: Limit
    _numbers: Sequence[int]
    _probes: Sequence[int]

    @property
    def numbers(self) -> Sequence[int]:
        """See `Act.numbers`."""
        return [*self._numbers, *self._probes]

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        return [Enqueuing(self, number) for number in self._numbers]

    def probes(self) -> list[Task]:
        """See `Act.probes`."""
        return [Enqueuing(self, number) for number in self._probes]

    def asking(self, client: Client) -> Client:
        """See `Act.asking`."""
        return client.using(limit=self.limit)


class Limits(Limiting):
    """Jobs of one key, of which one or two may run at once; in the end as many as show all places free."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        # Some run for longer than outages last, so that leases lapse under them.
        long = cast.take(2, seconds=cast.random.uniform(10.0, 50.0))
        self._numbers = [*long, *cast.take(cast.random.randint(2, 6))]
        self._most = cast.random.randint(1, 2)
        # Twice as many as there are places, so that each has to be given back.
        self._probes = cast.take(2 * self._most, kind=Kind.FINE, seconds=0.5, delay=None)
        self._asked: dict[int, float] = {}
        """When those were asked for."""
        self.limit = Limit(concurrency=self._most, by=lambda number: "key", name="limit")

    def asked(self, number: int) -> None:
        """See `Act.asked`."""
        if number in self._probes:
            self._asked[number] = self.ledger.now()

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check that there is a place for it, and not for long after there should have been one."""
        number, ledger = entry.part.number, self.ledger
        playing = [each for other in self.numbers for each in ledger.playing(other)]
        running = sum(self._counts(its) for other, its in playing if other != job_id)
        ledger.seen[f"a limited job starts beside {running}"] += 1
        if running >= self._most:
            ledger.wrong(f"job {number} starts beside {running}: {self._most} may")
        asked_at = self._asked.get(number)
        if asked_at is not None and ledger.now() - asked_at > LEASE + DOUBT + SLOW:
            ledger.wrong(f"job {number} starts {ledger.now() - asked_at:.1f} s after the calm")

    def _counts(self, entry: Entry) -> bool:
        """Say whether that job runs, and has a lease for certain.

        A process that was not heard for long may have lost its leases; one that has lost a job to
        another, and lives on, may give the other's lease back.
        """
        loan = self.ledger.running(entry)
        if loan is None or self.ledger.was_unheard(loan, UNHEARD):
            return False
        return all(lost.place is loan.place for lost in self.ledger.strays(entry))

    def close(self) -> None:
        """Check that the last jobs, which had all the time, have run."""
        for number in self._probes:
            if not any(entry.state == "done" for _, entry in self.ledger.playing(number)):
                self.ledger.wrong(f"a place is stuck: job {number} never ran")
