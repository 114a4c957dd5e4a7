"""Cron, one at a time: an instant at which the key is held makes no job, and no key is stuck.

Jobs of the entry may take longer than there is between two instants. What is claimed late, by a
process that stood still, may be stored late, too, and is skipped then: so two may wait at once
while things go wrong, and never run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from goose.clients import Client
from goose.testing.simulator.features.acts import Cast
from goose.testing.simulator.features.crons import SETTLED, SLOW, Crons
from goose.testing.simulator.features.ledger import ENDED
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.wire import EPOCH


class UniqueCrons(Crons):
    """One unique entry that fires every few seconds, as long as its last job is done."""

    name = "lone"
    longest = 15.0

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        self._lives: list[tuple[str, float, float]] = []
        """Of each job that was stored: its id, since when and until when the broker had it."""

    def asking(self, client: Client) -> Client:
        """See `Act.asking`."""
        return super().asking(client).using(unique=self.name)

    def stored(self, job_id: str, entry: Entry) -> None:
        """Check besides that no other one is there, unless something was wrong just now."""
        super().stored(job_id, entry)
        now, number = self.ledger.now(), self.number
        live = [
            other
            for other, its in self.ledger.playing(self.number)
            if other != job_id and its.state not in ENDED and not self.ledger.endings(its)
        ]
        if live and now > self.ledger.disturbed_until + SETTLED:
            self.ledger.wrong(f"an instant makes a job of {number}, and {live} has the key")
        self._lives.append((job_id, now, math.inf))

    def ended(self, job_id: str, entry: Entry) -> None:
        """Note that its key can be had."""
        now = self.ledger.now()
        self._lives = [
            (id_, since, now if id_ == job_id and until == math.inf else until)
            for id_, since, until in self._lives
        ]

    def starts(self, job_id: str, entry: Entry) -> None:
        """Check that no other one runs.

        If a process that has lost a job to another lives on and ends it, that gives the key away.
        """
        ledger = self.ledger
        for other, its in ledger.playing(self.number):
            if other == job_id or ledger.running(its) is None:
                continue
            lost = [*ledger.strays(entry), *ledger.strays(its)]
            if all(loan.ending is None for loan in lost):
                ledger.wrong(f"{job_id} runs beside {other}")

    def missing(self, meant: Sequence[float], calm: Sequence[float]) -> set[float]:
        """See `Crons.missing`; what is made up for may find the key held."""
        unmet = self.unmet(calm)
        held = {instant for instant in unmet if self.may_be_held(instant)}
        self.ledger.seen["an instant made no job"] += len(held)
        return unmet - held

    def may_be_held(self, instant: float | None) -> bool:
        """Say whether another job had the key, about then.

        Where the broker does not show its jobs, a process that has lost one may keep its key for good.
        """
        if instant is None:
            return False
        at, ledger = instant - EPOCH, self.ledger
        if not ledger.shows and any(ledger.strays(its) for _, its in ledger.playing(self.number)):
            return True
        return any(since <= at + SLOW and until >= at for _, since, until in self._lives)
