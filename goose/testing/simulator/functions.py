"""The functions that simulated workers offer; each job's part says how it ends."""

from __future__ import annotations

from collections.abc import Generator

from goose.middleware.base import current
from goose.testing.simulator.script import Script


class Nap:
    """Awaited by an async function of a simulated job; whoever drives it sees the seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[float, None, None]:
        yield self.seconds


def work(number: int) -> list[int]:
    """Play part *number*; the time it takes has passed already when this is called.

    Returns:
        What says which run of that part it was.
    """
    execution = current()
    script: Script = execution.resources[Script]
    return script.end(number, execution.attempt)


async def work_async(number: int) -> list[int]:
    """Play part *number*; return as `work`."""
    execution = current()
    script: Script = execution.resources[Script]
    await Nap(script.parts[number].seconds)
    return script.end(number, execution.attempt)
