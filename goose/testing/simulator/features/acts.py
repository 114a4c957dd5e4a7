"""What an act is: one feature's part in a world, what is asked for and what must hold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from goose.stores.base import Store
from goose.testing.simulator import functions
from goose.testing.simulator.ledger import Entry
from goose.testing.simulator.script import REASONS, Kind, Part

if TYPE_CHECKING:
    from goose.testing.simulator.features.callers import Caller
    from goose.testing.simulator.features.ledger import FeatureLedger


class Task:
    """Something a client wants, in steps.

    A step that raises a `BrokerError` or an `EnqueueError` is made again a moment later. If the client
    dies, another one goes on, which knows only what a new process would.
    """

    def __init__(self, at: float) -> None:
        self.at = at
        """When the next step is due."""

    def step(self, caller: Caller) -> float | None:
        """Do the next thing; return the seconds until the one after it, None if that was all."""
        raise NotImplementedError

    def forget(self) -> None:
        """Lose what only the process knew that has died."""


class Cast:
    """The parts of a world, to be given to acts.

    Args:
        random: Draws what acts leave to chance.
        parts: All there are; those that nobody takes are not played.
        stormy: For how long things go wrong.
    """

    def __init__(self, random: random.Random, parts: list[Part], stormy: float) -> None:
        self.random = random
        self.parts = parts
        self.stormy = stormy
        self._taken = 0

    def take(self, count: int, **fixed: Any) -> list[int]:
        """Return the numbers of *count* parts, with what is *fixed* of them."""
        numbers = list(range(self._taken, self._taken + count))
        self._taken += count
        for number in numbers:
            self.parts[number] = replace(self.parts[number], **fixed)
        return numbers

    def spare(self, numbers: Sequence[int]) -> None:
        """Let none of these parts be dead in the end."""
        for number in numbers:
            if self.parts[number].kind in REASONS:
                self.parts[number] = replace(self.parts[number], kind=Kind.FINE)


class Act:
    """One feature in one world.

    Args:
        cast: Where it takes its parts.
    """

    once = False
    """Whether its jobs never run again once their end was noted."""
    copies = False
    """Whether jobs of it that are done may be stored again."""
    ledger: FeatureLedger
    store: Store

    def __init__(self, cast: Cast) -> None:
        self.parts = cast.parts

    def join(self, ledger: FeatureLedger, store: Store) -> None:
        """Begin, with the checker of jobs and a store that always answers."""
        self.ledger, self.store = ledger, store

    @property
    def numbers(self) -> Sequence[int]:
        """The parts that it has taken."""
        raise NotImplementedError

    def tasks(self) -> list[Task]:
        """Return what clients are to do."""
        raise NotImplementedError

    def probes(self) -> list[Task]:
        """Return what they are to do when everything else has ended."""
        return []

    def stored(self, job_id: str, entry: Entry) -> None:
        """Note that the broker has a new job of it."""

    def starts(self, job_id: str, entry: Entry) -> None:
        """Note that a job of it starts; the ledger does not know yet."""

    @property
    def is_done(self) -> bool:
        """Whether all has come of it that is to come."""
        return True

    def close(self) -> None:
        """Check how it has ended."""

    def fn(self, number: int) -> Any:
        """Return the function that plays that part."""
        return functions.work_async if self.parts[number].is_async else functions.work
