"""Enqueues jobs in a process of its own, and prints how many there were per second.

A library's module calls ``produce.main(send, bulk=…)`` and is run as
``python MODULE single|together|bulk|pace KIND COUNT``. KIND is noop, stamp or nap; the places of the
jobs are 0 and up. The first is a single one and does not count: it imports and connects.
``pace`` sends one every 20 ms, and notes when; ``together`` has 16 callers at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

import jobs

BATCH = 500
"""Jobs in one bulk call."""
TOGETHER = 100
"""Single calls under way at once, where an asynchronous library has no bulk call."""
PACE = 0.02
CALLERS = 16
"""Threads or tasks that send at once by ``together``."""

Send = Callable[[str, int], Any]
Bulk = Callable[[str, Sequence[int]], Any]


def main(
    send: Send,
    *,
    bulk: Bulk | None = None,
    connect: Callable[[], Awaitable[Any]] | None = None,
    around: AbstractAsyncContextManager[Any] | None = None,
) -> None:
    """Do what the command line says.

    Args:
        send: Enqueues one job of that kind and place; may be a coroutine function.
        bulk: Enqueues some with the library's call for many; without one, asynchronous
            libraries have many single calls under way, and others make them in turn.
        connect: Awaited first.
        around: Entered around it all.
    """
    how, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if not inspect.iscoroutinefunction(send):
        seconds = _blocking(how, kind, count, send, bulk)
    else:

        async def whole() -> float:
            async with around or contextlib.nullcontext():
                if connect is not None:
                    await connect()
                return await _asynchronous(how, kind, count, send, bulk)

        seconds = asyncio.run(whole())
    print(json.dumps({"rate": (count - 1) / seconds}))


def _blocking(how: str, kind: str, count: int, send: Send, bulk: Bulk | None) -> float:
    jobs.sent(0)
    send(kind, 0)
    start = time.perf_counter()
    if how == "bulk" and bulk is not None:
        for part in _batches(count, BATCH):
            bulk(kind, part)
    elif how == "together":
        places = iter(range(1, count))

        def caller() -> None:
            for place in places:
                send(kind, place)

        # The same loop as that of tasks, below: a future for each call would cost as much as the call.
        with ThreadPoolExecutor(CALLERS) as callers:
            for done in [callers.submit(caller) for _ in range(CALLERS)]:
                done.result()
    else:
        for place in range(1, count):
            if how == "pace":
                time.sleep(PACE)
                jobs.sent(place)
            send(kind, place)
    return time.perf_counter() - start


async def _asynchronous(how: str, kind: str, count: int, send: Send, bulk: Bulk | None) -> float:
    jobs.sent(0)
    await send(kind, 0)
    start = time.perf_counter()
    if how == "together":
        places = iter(range(1, count))

        async def caller() -> None:
            for place in places:
                await send(kind, place)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    elif how != "bulk":
        for place in range(1, count):
            if how == "pace":
                await asyncio.sleep(PACE)
                jobs.sent(place)
            await send(kind, place)
    elif bulk is not None:
        for part in _batches(count, BATCH):
            await bulk(kind, part)
    else:
        for part in _batches(count, TOGETHER):
            await asyncio.gather(*(send(kind, place) for place in part))
    return time.perf_counter() - start


def _batches(count: int, size: int) -> list[range]:
    return [range(first, min(first + size, count)) for first in range(1, count, size)]
