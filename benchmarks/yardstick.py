"""How fast this machine runs Python today, in a unit that no change of Goose can move.

Run as ``python yardstick.py ROUNDS``; prints microseconds of CPU per round, both threads together.
One round is what no worker in pure Python can do without: a typical envelope goes from one
thread to another through a deque, is read by `json.loads`, its function is found by name and
called with its arguments, and the outcome goes back. Nothing of Goose is imported.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

BODY = json.dumps(
    {
        "v": 1,
        "id": "01a21633-7f12-7681-a850-43b32706b006",
        "fn": "work:noop",
        "args": [],
        "kwargs": {},
        "queue": "default",
        "enqueued_at": 1795668803.346486,
    }
).encode()
BATCH = 100
"""Rounds handed over at a time, as a worker fetches."""


def noop() -> None:
    """Do nothing, as the benchmark's jobs."""


FUNCTIONS: dict[str, Callable[..., Any]] = {"work:noop": noop}


class Runner:
    """A thread that runs what is handed to it."""

    def __init__(self) -> None:
        self.given: deque[bytes | None] = deque()
        self.news = threading.Event()
        self.ended: deque[tuple[str, Any]] = deque()
        self.done = threading.Event()

    def run(self) -> None:
        """Run until there is a None."""
        while True:
            self.news.wait()
            self.news.clear()
            while self.given:
                body = self.given.popleft()
                if body is None:
                    return
                job = json.loads(body)
                result = FUNCTIONS[job["fn"]](*job["args"], **job["kwargs"])
                self.ended.append((job["id"], result))
            self.done.set()


def main(rounds: int) -> None:
    """Measure once."""
    runner = Runner()
    thread = threading.Thread(target=runner.run)
    thread.start()
    begun = time.process_time()
    for _ in range(rounds // BATCH):
        runner.given.extend([BODY] * BATCH)
        runner.news.set()
        runner.done.wait()
        runner.done.clear()
        runner.ended.clear()
    used = time.process_time() - begun
    runner.given.append(None)
    runner.news.set()
    thread.join()
    print(1e6 * used / (rounds // BATCH * BATCH))


if __name__ == "__main__":
    main(int(sys.argv[1]))
