"""CPU of the engine alone: an embedded worker on the memory broker, in a process of its own.

Run as ``python engine.py JOBS``; prints microseconds of CPU per job, all threads together,
from the worker's start to its last job. The jobs wait there before it starts; middleware
and metrics are off.
"""

from __future__ import annotations

import sys
import time

import work

import goose
from goose.brokers.memory import MemoryBroker


def main(jobs: int) -> None:
    """Measure once."""
    broker = MemoryBroker()
    client = goose.Client(broker)
    client.enqueue_many(work.noop, [()] * jobs)
    client.enqueue(work.end)
    worker = goose.Worker(broker, allow=["work"], concurrency=1)
    before = time.process_time()
    worker.start()
    ended = work.reached_end.wait(120)
    used = time.process_time() - before
    worker.stop(5)
    if not ended:
        raise SystemExit("the jobs were not done within 120 s")
    print(1e6 * used / jobs)


if __name__ == "__main__":
    main(int(sys.argv[1]))
