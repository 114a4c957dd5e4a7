"""Cron: each instant is one job, whoever fires it and whatever his clock shows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from goose.clients import Client
from goose.features.crons import CatchUp, Cron
from goose.features.crons import Crons as Book
from goose.features.crons.entries import CLAIM
from goose.testing.simulator.features.acts import Act, Cast, Task
from goose.testing.simulator.features.callers import Caller
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import Kind
from goose.testing.simulator.wire import EPOCH

AFTER = 60.0
"""Seconds after the last disturbance for which it goes on."""
SLOW = 15.0
"""Seconds that an instant may wait for a worker that looks."""
SETTLED = CLAIM + 5.0
"""Seconds after a disturbance until no claim of a dead worker holds an instant up."""
EVERY = (5, 10, 15)
"""Seconds between instants, one of these."""
POLICIES: tuple[CatchUp, ...] = ("all", "all", "one", "skip")
_KINDS = (Kind.FINE, Kind.FINE, Kind.FLAKY, Kind.DOOMED, Kind.BURIES)


class Registering(Task):
    """Registers the entry, as each start of a program does."""

    def __init__(self, act: Crons, at: float) -> None:
        super().__init__(at)
        self._act = act

    def step(self, caller: Caller) -> None:
        """Register it."""
        act = self._act
        client = act.asking(caller.client)
        client.cron(act.name, act.expression, act.fn(act.number), act.number)
        act.registered = True


class Pausing(Task):
    """Has it fire no more."""

    def __init__(self, act: Crons, at: float) -> None:
        super().__init__(at)
        self._act = act

    def step(self, caller: Caller) -> float | None:
        """Pause it, once it is there and nothing has disturbed it for a while."""
        ledger = self._act.ledger
        if not self._act.registered or ledger.now() < ledger.disturbed_until + AFTER:
            return 1.0
        caller.client.crons.pause(self._act.name)
        self._act.paused_at = self._act.ledger.now()
        return None


class Crons(Act):
    """One entry that fires every few seconds, until nothing has disturbed it for a while."""

    copies = True
    name = "tick"
    longest = 3.0
    """Seconds that a job takes at most."""

    def __init__(self, cast: Cast) -> None:
        super().__init__(cast)
        chance = cast.random
        every = chance.choice(EVERY)
        self.expression = f"*/{every} * * * * *"
        self.catch_up: CatchUp = chance.choice(POLICIES)
        seconds = chance.uniform(0.0, self.longest)
        [self.number] = cast.take(1, kind=chance.choice(_KINDS), seconds=seconds)
        self.registered = False
        self.paused_at: float | None = None
        self._starts = [chance.uniform(0.0, 20.0) for _ in range(2)]
        self._end = cast.stormy + AFTER
        self._fired: dict[float, tuple[int, float]] = {}
        """By instant: how many faults there had been when its job was stored, and when that was."""
        self._late: dict[float, float] = {}
        """By instant: for how long after it its job was stored first."""

    @property
    def numbers(self) -> Sequence[int]:
        """See `Act.numbers`."""
        return [self.number]

    def tasks(self) -> list[Task]:
        """See `Act.tasks`."""
        return [*(Registering(self, at) for at in self._starts), Pausing(self, self._end)]

    def asking(self, client: Client) -> Client:
        """See `Act.asking`."""
        return client.using(catch_up=self.catch_up)

    def stored(self, job_id: str, entry: Entry) -> None:
        """Check that it is an instant of the entry, and comes again only after a fault."""
        due = datetime.fromisoformat(job_id.removeprefix(f"cron:{self.name}:")).timestamp()
        faults = self.ledger.injected.total()
        before, at = self._fired.get(due, (-1, 0.0))
        # Who stands still in the call that stores it does not know that others have done so.
        if before == faults and self.ledger.disturbed_until < at:
            self.ledger.wrong(f"the instant {due - EPOCH:g} fires again, and nothing had happened")
        self._fired[due] = faults, self.ledger.now()
        self._late.setdefault(due, self.ledger.now() + EPOCH - due)
        entry.due = max(entry.due, due - EPOCH)
        self.ledger.seen[f"cron has fired ({self.catch_up})"] += 1

    def _entry(self) -> Cron | None:
        return Book(self.store, lambda job: job).get(self.name)

    @property
    def is_done(self) -> bool:
        """See `Act.is_done`."""
        entry = self._entry()
        return entry is not None and entry.paused and not entry.pending

    def close(self) -> None:
        """Check that each instant has fired, as far as the policy wants that."""
        entry = self._entry()
        if entry is None or entry.pending or self.paused_at is None:
            self.ledger.wrong("the cron entry is stuck")
            return
        behind = self.paused_at - (entry.next_at - EPOCH)
        if behind > SLOW:
            self.ledger.wrong(f"the cron entry is {behind:.1f} s behind")
        self._close(entry, since=self.ledger.disturbed_until + SETTLED, until=self.paused_at - SLOW)

    def _close(self, entry: Cron, *, since: float, until: float) -> None:
        fired = sorted(self._fired)
        calm = list(entry.schedule.between(EPOCH + since, EPOCH + until))
        meant = list(entry.schedule.between(fired[0], fired[-1])) if fired else []
        missing = self.missing(meant, calm)
        if set(fired) - set(meant) or missing:
            shown, left = ([at - EPOCH for at in sorted(times)] for times in (fired, missing))
            self.ledger.wrong(f"cron fired at {shown}, and not at {left}")
        if fired and fired[-1] != entry.last_at and not self.may_be_held(entry.last_at):
            self.ledger.wrong("the last instant that was claimed has not fired")

    def missing(self, meant: Sequence[float], calm: Sequence[float]) -> set[float]:
        """Return the instants that have no job, or had it late, and should have had it.

        Args:
            meant: All from the first that has fired to the last.
            calm: Those at which nothing was wrong; no policy leaves one of them out.
        """
        found = set(meant) - set(self._fired) if self.catch_up == "all" else set[float]()
        return found | self.unmet(calm)

    def unmet(self, instants: Sequence[float]) -> set[float]:
        """Return those of *instants* that had no job within some seconds."""
        return {instant for instant in instants if self._late.get(instant, SLOW) >= SLOW}

    def may_be_held(self, instant: float | None) -> bool:
        """Say whether that instant may rightly have no job."""
        return False
