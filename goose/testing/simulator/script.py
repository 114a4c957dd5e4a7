"""What each job is and does: its part in a world, drawn by chance."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from goose.errors import Bury, Postpone, Skip
from goose.jobs import JSON, Job

MAX_RETRIES = 2
"""Of every job here."""


class Kind(Enum):
    """How a job ends, whenever it gets that far."""

    FINE = "fine"
    FLAKY = "flaky"
    """Fails at first, and succeeds in the end."""
    DOOMED = "doomed"
    """Fails until its retries are used up."""
    HOPELESS = "hopeless"
    """Fails with an error that its policy gives up on."""
    BURIES = "buries"
    SKIPS = "skips"
    POSTPONES = "postpones"
    """Is put off a few times, then succeeds."""
    POISON = "poison"
    """Ends its process."""


REASONS = {
    Kind.DOOMED: "retries",
    Kind.HOPELESS: "gave_up",
    Kind.BURIES: "buried",
    Kind.POISON: "crashed",
}
"""Why a job of that kind may be dead; all others must be done."""


class Hopeless(Exception):
    """What `Kind.HOPELESS` raises."""


@dataclass(frozen=True, slots=True)
class Part:
    """One job's part."""

    number: int
    kind: Kind
    is_async: bool
    seconds: float
    """For how long it runs each time."""
    times: int
    """How often it fails or is put off, if it is of that kind."""
    enqueued_at: float
    delay: float | None
    """Seconds it is scheduled for; None for at once."""
    stubborn: bool
    """Whether it cannot be interrupted."""
    steps: int = 1
    """In how many it does its work, if it is a long one."""
    polite: bool = False
    """Whether a long one gives itself back when it should stop."""

    def end(self, attempt: int, ended: int) -> None:
        """Return or raise as this part does.

        Args:
            attempt: Executions that ended in an error before.
            ended: Executions that ended at all before.
        """
        match self.kind:
            case Kind.FLAKY if attempt < self.times:
                raise RuntimeError("not yet")
            case Kind.DOOMED:
                raise RuntimeError("never")
            case Kind.HOPELESS:
                raise Hopeless("no use")
            case Kind.BURIES:
                raise Bury("as planned")
            case Kind.SKIPS:
                raise Skip("as planned")
            case Kind.POSTPONES if ended < self.times:
                raise Postpone(2.0)
            case _:
                return


class Run(Protocol):
    """What a run of a long job tells those who check it."""

    def asks(self) -> None:
        """Note that it is about to ask where the one before it came to."""
        ...

    def found(self, cursor: JSON) -> int:
        """Check what it was told; return the step that is next."""
        ...

    def keeps(self, step: int) -> JSON:
        """Return the cursor that says that *step* is next, and is about to be stored."""
        ...

    def kept(self, *, surely: bool) -> None:
        """Note that the call which stores it is over, and whether it is stored *surely*."""
        ...

    def says(self, step: int) -> str:
        """Note that it says how far it is; return the words for that."""
        ...


class Script:
    """All parts of a world, and how often each has ended a run. A resource of its workers."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.ended = [0] * len(parts)
        self.returned: list[list[int]] = [[] for _ in parts]
        """By part: which of its runs have returned something, of those that ended."""
        self.on_run: Callable[[Job[Any]], Run]
        """Called when a long job begins to run, where there are such."""

    def part_of(self, job: Job[Any]) -> Part:
        """Return the part that *job* plays."""
        number: Any = job.args[0]
        part: Part = self.parts[number]
        return part

    def end(self, number: int, attempt: int) -> list[int]:
        """End a run of that part; return its number, and how many of its runs had ended before."""
        ended = self.ended[number]
        self.ended[number] += 1
        self.parts[number].end(attempt, ended)
        self.returned[number].append(ended)
        return [number, ended]


_KINDS = [
    *[Kind.FINE] * 10,
    *[Kind.FLAKY] * 3,
    Kind.DOOMED,
    Kind.HOPELESS,
    Kind.BURIES,
    Kind.SKIPS,
    Kind.POSTPONES,
]


def draw(random: random.Random, count: int, *, until: float, ttl: float) -> Script:
    """Return *count* parts, enqueued before *until*; up to two of them are poison."""
    poison = {random.randrange(count * 2) for _ in range(2)}
    parts: list[Part] = []
    for number in range(count):
        kind = Kind.POISON if number in poison else random.choice(_KINDS)
        slow = random.random() < 0.15
        parts.append(
            Part(
                number,
                kind,
                is_async=random.random() < 0.3,
                seconds=random.uniform(0.5, 4.0) * ttl if slow else random.uniform(0.0, 2.0),
                times=random.randint(1, MAX_RETRIES),
                enqueued_at=random.uniform(0.0, until),
                delay=random.uniform(0.5, 20.0) if random.random() < 0.25 else None,
                stubborn=random.random() < 0.3,
            )
        )
    return Script(parts)
