"""The functions that simulated workers offer; each job's part says how it ends."""

from __future__ import annotations

from collections.abc import Generator

from goose.errors import BrokerError, Postpone
from goose.jobs import JSON
from goose.middleware.base import Execution, current
from goose.testing.simulator.script import Run, Script

AWAY = 1.0
"""Seconds after which a long job runs again that cannot read where it was."""


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


class _Awaiting:
    """What a long function does besides its work, in an async one."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution

    async def cursor(self) -> JSON:
        found: JSON = await self._execution.acursor()
        return found

    async def checkpoint(self, cursor: JSON) -> None:
        await self._execution.acheckpoint(cursor)

    async def work(self, seconds: float) -> None:
        await Nap(seconds)


class _Blocking(_Awaiting):
    """The same in a sync one, which awaits nothing."""

    async def cursor(self) -> JSON:
        found: JSON = self._execution.cursor
        return found

    async def checkpoint(self, cursor: JSON) -> None:
        self._execution.checkpoint(cursor)

    async def work(self, seconds: float) -> None:
        pass


def long_work(number: int) -> list[int]:
    """Play part *number* in steps, between which no time passes; return as `work`."""
    coroutine = _in_steps(number, _Blocking)
    try:
        coroutine.send(None)
    except StopIteration as end:
        returned: list[int] = end.value
        return returned
    raise AssertionError("a sync function was to wait")


async def long_work_async(number: int) -> list[int]:
    """Play part *number* in steps, from where the last run was; return as `work`."""
    return await _in_steps(number, _Awaiting)


async def _in_steps(number: int, kind: type[_Awaiting]) -> list[int]:
    execution = current()
    does = kind(execution)
    script: Script = execution.resources[Script]
    part, run = script.parts[number], script.on_run(execution.job)
    await does.work(0.0)  # as a loop comes to it when it has the time
    run.asks()
    try:
        step = run.found(await does.cursor())
    except BrokerError:
        raise Postpone(AWAY) from None
    for done in range(step, part.steps):
        execution.progress(done, part.steps, run.says(done))
        await does.work(part.seconds / part.steps)
        if done == part.steps // 2:
            script.end(number, execution.attempt)
        await _keep(does, run, done + 1)
        if part.polite and execution.should_stop:
            raise Postpone(0)
    execution.progress(part.steps, part.steps, run.says(part.steps))
    return [number, script.ended[number]]


async def _keep(does: _Awaiting, run: Run, step: int) -> None:
    cursor, stored = run.keeps(step), False
    try:
        await does.checkpoint(cursor)
        stored = True
    except BrokerError:
        pass  # it is not worth a run
    finally:
        run.kept(surely=stored)
